"""Sprites drawn, blended and lifted in a window around each: the values of whole frames at the cost of the drawn
pixels.

Rows are the sprites of any number of episodes, one episode after the other. All windows of a call have one size, that
of the largest look; `trimmed` cuts looks to it, which changes no value because only empty entries are cut.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .sprites import STEP, hats


@dataclass(frozen=True)
class Sprites:
    """Looks at their places, each in one of several episodes.

    Attributes:
        episode: index of the episode. look: cut to one size `P`. place: centre of the patch in pixels. depth: smaller
            is nearer.
    """

    episode: Int[Tensor, N]
    look: Float[Tensor, "N 4 P P"]
    place: Float[Tensor, "N 2"]
    depth: Float[Tensor, N]


def trimmed(look_N4PP: Float[Tensor, "N 4 P P"], room: int = 0) -> Float[Tensor, "N 4 S S"]:
    """Looks without the entries at the sides that are empty in all of them, except for `room` entries; the centre
    stays."""
    patch = look_N4PP.shape[-1]
    used = (look_N4PP[:, 3] > 0).any(0)
    at = (used.any(0) | used.any(1)).nonzero()[:, 0]
    most = (patch - 2) // 2
    cut = max(0, min(most, int(at[0]), patch - 1 - int(at[-1])) - room) if len(at) else most
    return look_N4PP[..., cut : patch - cut, cut : patch - cut]


class Ground:
    """Frames and contexts of episodes, laid out so that windows of them are quick to take.

    Args:
        frame: the frames to explain. context: the backgrounds that sprites are blended over.
    """

    def __init__(self, frame: Float[Tensor, "B 3 H W"], context: Float[Tensor, "B 3 H W"]) -> None:
        self.frame, self.context = frame, context
        self.size = (frame.shape[-2], frame.shape[-1])
        images = torch.cat([frame, context, torch.ones_like(frame[:, :1])], 1)
        self._rows = images.movedim(1, -1).reshape(-1, 7)

    def pixels(
        self, episode_N: Int[Tensor, N], corner_N2: Int[Tensor, "N 2"], window: int
    ) -> tuple[Int[Tensor, "N V V"], Bool[Tensor, "N V V"]]:
        """Index of each window entry's pixel among all frames, and whether that pixel exists."""
        height, width = self.size
        at = torch.arange(window, device=corner_N2.device)
        xs, ys = corner_N2[:, 0, None] + at, corner_N2[:, 1, None] + at
        inside = ((ys >= 0) & (ys < height))[:, :, None] & ((xs >= 0) & (xs < width))[:, None, :]
        rows = (episode_N[:, None] * height + ys.clamp(0, height - 1)) * width
        return rows[:, :, None] + xs.clamp(0, width - 1)[:, None, :], inside

    def cut(
        self, episode_N: Int[Tensor, N], corner_N2: Int[Tensor, "N 2"], window: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Frame `(N, 3, V, V)`, context `(N, 3, V, V)` and 1 where there are any `(N, V, V)`, else 0."""
        at, inside = self.pixels(episode_N, corner_N2, window)
        taken = self._rows.index_select(0, at.flatten()).view(*at.shape, 7).movedim(-1, 1)
        return taken[:, :3], taken[:, 3:6], inside.to(taken.dtype)


@dataclass(frozen=True)
class Windows:
    """Sprites blended over the contexts of their episodes, in a window around each sprite.

    Attributes:
        corner: upper left pixel (x, y). frame: the film's pixels. inside: 1 where a pixel is in the frame, else 0.
            drawn: the sprite alone. behind: the frame behind it. seen: share of it that no nearer sprite hides.
            scene: all sprites over the context. others: sum of the other sprites' alphas. cover: share of a pixel
            that sprites cover. beside: whether a sprite reaches another, or the room around that. slope_x, slope_y:
            derivatives of `drawn` by place, per pixel; None unless asked for.
    """

    corner: Int[Tensor, "N 2"]
    frame: Float[Tensor, "N 3 V V"]
    inside: Float[Tensor, "N V V"]
    drawn: Float[Tensor, "N 4 V V"]
    behind: Float[Tensor, "N 3 V V"]
    seen: Float[Tensor, "N V V"]
    scene: Float[Tensor, "N 3 V V"]
    others: Float[Tensor, "N V V"]
    cover: Float[Tensor, "N V V"]
    beside: Bool[Tensor, "N N"]
    slope_x: Float[Tensor, "N 4 V V"] | None
    slope_y: Float[Tensor, "N 4 V V"] | None

    @property
    def residual(self) -> Float[Tensor, "N 3 V V"]:
        """Film minus scene; 0 outside of the frame."""
        return (self.frame - self.scene) * self.inside[:, None]

    @property
    def parts(self) -> Float[Tensor, "N 3 V V"]:
        """The change of the frame by each sprite; 0 outside of the frame."""
        own = self.drawn[:, :3] - self.drawn[:, 3:] * self.behind
        return own * (self.seen * self.inside)[:, None]


def look_at(sprites: Sprites, ground: Ground, slopes: bool = False, room: int = 0) -> Windows:
    """Each sprite in its window, over the context and all others of its episode.

    Args:
        room: pixels around a sprite within which its window shows all other sprites.
    """
    patch = sprites.look.shape[-1]
    window = patch + 3
    whole = sprites.place - patch / 2
    corner = whole.floor().long() - 1
    within = sprites.place - corner
    x, y = within.unbind(-1)
    across, down = hats(x, patch, window), hats(y, patch, window)
    rows = (sprites.look.flatten(1, 2) @ across.mT).view(*sprites.look.shape[:-1], window)
    drawn = down[:, None] @ rows
    slope_x = slope_y = None
    if slopes:
        tilt_x, tilt_y = (hats(v + STEP, patch, window) - hats(v - STEP, patch, window) for v in (x, y))
        slope_x = down[:, None] @ (sprites.look.flatten(1, 2) @ tilt_x.mT).view_as(rows)
        slope_y = tilt_y[:, None] @ rows
    frame, context, inside = ground.cut(sprites.episode, corner, window)
    beside = _beside(sprites, room)
    behind, seen, alpha = context, torch.ones_like(inside), drawn[:, 3:]
    scene = torch.addcmul(context, alpha, context, value=-1) + drawn[:, :3]
    others, cover = torch.zeros_like(inside), alpha[:, 0]
    crowded = beside.any(1).nonzero()[:, 0]
    if len(crowded):
        parts = _blend(crowded, beside, sprites.depth, corner, drawn, context)
        behind, seen, scene, others, cover = (
            whole.index_copy(0, crowded, part)
            for whole, part in zip((behind, seen, scene, others, cover), parts, strict=True)
        )
    return Windows(corner, frame, inside, drawn, behind, seen, scene, others, cover, beside, slope_x, slope_y)


def _beside(sprites: Sprites, room: int) -> Bool[Tensor, "N N"]:
    """Whether a sprite (column), moved by a slope's step or not, reaches to another (row) or into the room around that."""
    solid = sprites.look[:, 3] > 0
    patch = solid.shape[-1]
    entry = torch.arange(patch, device=solid.device)
    reaches = sprites.episode[:, None] == sprites.episode
    for axis, used in ((0, solid.any(1)), (1, solid.any(2))):
        start = sprites.place[:, axis] - patch / 2
        low = start + torch.where(used, entry, patch).amin(-1) - 1 - STEP
        high = start + torch.where(used, entry, -patch).amax(-1) + 2 + STEP
        reaches = reaches & (high > (low - room)[:, None]) & (low < (high + room)[:, None])
    return reaches.fill_diagonal_(False)


def shifted_to(
    maps_NCVV: Float[Tensor, "N C V V"],
    source: Int[Tensor, Q],
    target: Int[Tensor, Q],
    corner: Int[Tensor, "N 2"],
) -> Float[Tensor, "Q C V V"]:
    """Maps of some windows as seen in the windows of others; 0 where they do not reach."""
    window = maps_NCVV.shape[-1]
    apart = corner[target] - corner[source]
    at = torch.arange(window, device=maps_NCVV.device)
    xs, ys = apart[:, 0, None] + at, apart[:, 1, None] + at
    valid = ((ys >= 0) & (ys < window))[:, :, None] & ((xs >= 0) & (xs < window))[:, None]
    index = ys.clamp(0, window - 1)[:, :, None] * window + xs.clamp(0, window - 1)[:, None]
    taken = maps_NCVV.flatten(2)[source].gather(
        2, index.flatten(1)[:, None].expand(-1, maps_NCVV.shape[1], -1)
    )
    return taken.view(len(source), -1, window, window) * valid[:, None]


def _blend(
    crowded: Tensor, beside: Tensor, depth: Tensor, corner: Tensor, drawn: Tensor, context: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Behind, seen, scene, others and cover of the windows into which more than one sprite reaches; see Windows."""
    order = depth.argsort(descending=True, stable=True)
    own = torch.zeros_like(beside).fill_diagonal_(True)
    there = (beside | own)[crowded][:, order]
    most = int(there.sum(1).max())
    layers = torch.where(there, torch.arange(len(order), device=order.device), len(order))
    layers = layers.sort(1).values[:, :most]
    canvas = context[crowded]
    behind, left = canvas, torch.ones_like(canvas[:, :1])
    seen, others = left.clone(), torch.zeros_like(left)
    for layer in layers.unbind(1):
        source = order[layer.clamp(max=len(order) - 1)]
        there = (layer < len(order))[:, None, None, None]
        picture = shifted_to(drawn, source, crowded, corner) * there
        color, alpha = picture.split((3, 1), 1)
        mine = there & (source == crowded)[:, None, None, None]
        behind = torch.where(mine, canvas, behind)
        canvas = torch.addcmul(canvas, alpha, canvas, value=-1) + color
        left = torch.addcmul(left, alpha, left, value=-1)
        other = torch.where(mine, 0, alpha)
        seen = torch.addcmul(seen, other, seen, value=-1)
        others += other
        # Sprites behind a sprite do not hide it.
        seen = torch.where(mine, 1, seen)
    return behind, seen[:, 0], canvas, others[:, 0], 1 - left[:, 0]


def paste(
    windows: Windows, sprites: Sprites, ground: Ground
) -> tuple[Float[Tensor, "B 3 H W"], Float[Tensor, "B H W"]]:
    """Whole frames drawn from context and sprites, and the share of each pixel that sprites cover."""
    batch, (height, width) = len(ground.frame), ground.size
    frame = ground.context.movedim(1, -1).reshape(-1, 3).clone()
    cover = torch.zeros(len(frame), device=frame.device)
    if len(sprites.episode):
        at, inside = ground.pixels(sprites.episode, windows.corner, windows.inside.shape[-1])
        mine = inside & (windows.drawn[:, 3] > 0)
        # Where sprites overlap each window has the same values.
        frame[at[mine]] = windows.scene.movedim(1, -1)[mine]
        cover[at[mine]] = windows.cover[mine]
    return frame.view(batch, height, width, 3).movedim(-1, 1), cover.view(batch, height, width)


def lift(
    maps_NCVV: Float[Tensor, "N C V V"],
    place_N2: Float[Tensor, "N 2"],
    corner_N2: Int[Tensor, "N 2"],
    patch: int,
) -> Float[Tensor, "N C P P"]:
    """The part of each window that falls on each entry of its sprite's patch: the transpose of drawing."""
    x, y = (place_N2 - corner_N2).unbind(-1)
    window = maps_NCVV.shape[-1]
    across, down = hats(x, patch, window), hats(y, patch, window)
    rows = (maps_NCVV.flatten(1, 2) @ across).view(*maps_NCVV.shape[:-1], patch)
    return down.mT[:, None] @ rows
