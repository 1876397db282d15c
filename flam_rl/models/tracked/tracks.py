"""The tracks of an episode: each entity's factor over time, and what they draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import max_pool2d

from ...types import Entities
from .context import ContextConfig, find_context, without_ghosts
from .sprites import masks
from .tokens import differs, sizes_of_movers
from .tracker import Tracker, TrackerConfig, TrackerState, scene_of


@dataclass(frozen=True)
class Tracks:
    """What a tracker found in an episode; row k holds the same entity as long as `identity` says so.

    Attributes:
        presence: bool `(T, K)`. identity: int `(T, K)`, -1 where the row is empty.
        place: `(T, K, 2)`, centre (x, y) in pixels. velocity: pixels a frame. size: width and height in pixels.
        box: `(T, K, 4)`, x0 y0 x1 y1 in pixels. depth: `(T, K)`, those of less are nearer.
        look: `(T, K, 4, P, P)`, red, green, blue times alpha, and alpha, as they were drawn.
        anchor: `(T, K, 2)`, centre of the patch that holds the look.
        context: `(T or 1, 3, H, W)`, colours in 0..1.
    """

    presence: Bool[Tensor, "T K"]
    identity: Int[Tensor, "T K"]
    place: Float[Tensor, "T K 2"]
    velocity: Float[Tensor, "T K 2"]
    size: Float[Tensor, "T K 2"]
    depth: Float[Tensor, "T K"]
    look: Float[Tensor, "T K 4 P P"]
    anchor: Float[Tensor, "T K 2"]
    context: Float[Tensor, "C 3 H W"]

    @property
    def box(self) -> Float[Tensor, "T K 4"]:
        """Boxes in pixels."""
        return torch.cat([self.place - self.size / 2, self.place + self.size / 2], -1)

    def entities(self, height: int, width: int) -> Entities:
        """Each track as an entity of its own, with boxes within the frame."""
        limits = np.array([width, height, width, height])
        box = self.box.cpu().numpy().clip(0, limits)
        presence = self.presence.cpu().numpy() & (box[..., 2:] > box[..., :2]).all(-1)
        identity = np.where(presence, self.identity.cpu().numpy(), -1)
        names = np.unique(identity[presence])
        frame, row = np.nonzero(presence)
        column = np.searchsorted(names, identity[frame, row])
        boxes = np.full((len(box), len(names), 4), np.nan)
        boxes[frame, column] = box[frame, row]
        return Entities(~np.isnan(boxes[..., 0]), boxes)

    def draw(self, chunk: int = 16) -> tuple[Float[Tensor, "T 3 H W"], Float[Tensor, "T K H W"]]:
        """The frames as context and factors draw them, in 0..1, and each factor's share of each pixel."""
        frames, shares = [], []
        context = self.context.expand(len(self.presence), -1, -1, -1)
        for at in torch.arange(len(self.presence)).split(chunk):
            layers, scene = scene_of(
                self.look[at], self.anchor[at], self.depth[at], self.presence[at], context[at]
            )
            frames.append(scene.frame_B3HW)
            shares.append(masks(layers.drawn_BK4HW, scene.seen_BKHW))
        return torch.cat(frames), torch.cat(shares)


def as_colors(frames: np.ndarray, device: torch.device | str = "cpu") -> Float[Tensor, "T 3 H W"]:
    """uint8 `(T, H, W, 3)` frames as colours in 0..1."""
    return (
        torch.as_tensor(np.ascontiguousarray(frames), device=device).movedim(-1, 1).contiguous().float() / 255
    )


def track(
    frames: np.ndarray,
    config: TrackerConfig = TrackerConfig(),
    context: ContextConfig = ContextConfig(),
    ground: Float[Tensor, "3 H W"] | None = None,
    past: int | None = None,
    shortest: int = 3,
    device: torch.device | str = "cpu",
) -> Tracks:
    """The tracks of an episode, by one causal step a frame.

    Args:
        frames: uint8 `(T, H, W, 3)`.
        ground: the context where it is known; found from the episode by default.
        past: know the context from the first so many frames only, as prediction must; from all by default.
        shortest: tracks of fewer frames are left out.

    Raises:
        ValueError: fewer than 2 frames, or frames of another form.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < 2:
        raise ValueError(
            f"tracking needs 2 or more frames, uint8 (T, H, W, 3); given {frames.dtype} {frames.shape}"
        )
    colors = as_colors(frames, device)
    if ground is not None:
        return follow(colors, ground.to(device), config, shortest)
    known = colors[:past]
    ground = clip_context(known, config, context)
    for _ in range(context.rounds):
        tracks = follow(known, ground, config, shortest)
        clearer = find_context(known, ~moving_masks(tracks, context.moved), context)
        clearer = without_ghosts(known, clearer, context, config.threshold, config.area)
        clearer_than_before = differs(clearer - ground, config.threshold).sum() >= config.area
        ground = torch.where(clearer_than_before, clearer, ground)
        if not clearer_than_before:
            break
    else:
        return follow(colors, ground, config, shortest)
    return tracks if past is None else follow(colors, ground, config, shortest)


def clip_context(
    frames: np.ndarray | Tensor, config: TrackerConfig, context: ContextConfig = ContextConfig()
) -> Float[Tensor, "3 H W"]:
    """The context of a clip by itself, before tracks are known; frames uint8 `(T, H, W, 3)` or colours."""
    colors = as_colors(frames) if isinstance(frames, np.ndarray) else frames
    return without_ghosts(
        colors, find_context(colors, config=context), context, config.threshold, config.area
    )


def shared_context(
    contexts: Sequence[Float[Tensor, "3 H W"]], config: ContextConfig = ContextConfig()
) -> Float[Tensor, "3 H W"] | None:
    """The context that clips have in common, by vote; None if one differs from it in a tenth of its pixels or more, or
    there are fewer than three."""
    if len(contexts) < 3:
        return None
    stacked = torch.stack(list(contexts))
    common = find_context(stacked, config=config)
    apart = differs(stacked - common, config.alike).float().mean((1, 2))
    return common if float(apart.max()) < 0.1 else None


def patch_for(
    clips: Sequence[np.ndarray], contexts: Sequence[Float[Tensor, "3 H W"]], config: TrackerConfig
) -> int:
    """A side of patches that holds nine of ten things that move in the clips, with room to turn: 12 to 40 pixels."""
    sizes = np.concatenate(
        [
            sizes_of_movers(as_colors(clip), ground, config.threshold, config.area)
            for clip, ground in zip(clips, contexts, strict=True)
        ]
    )
    largest = float(np.quantile(sizes, 0.9)) if len(sizes) else 0.0
    return int(min(40, max(12, 2 * np.ceil(largest / 2 + 3))))


def follow(
    colors: Float[Tensor, "T 3 H W"], context: Float[Tensor, "3 H W"], config: TrackerConfig, shortest: int
) -> Tracks:
    """The tracks over a known context."""
    tracker = Tracker(config)
    state = tracker.start(1, colors.device)
    states = []
    for color in colors:
        state = tracker.step(state, color[None], context[None])
        states.append(state)
    return tracks_of(states, context[None], shortest)


def moving_masks(tracks: Tracks, moved: float) -> Bool[Tensor, "T H W"]:
    """Where a track is, and a pixel around, that has been at places more than `moved` pixels apart."""
    far = torch.zeros_like(tracks.presence)
    for number in tracks.identity[tracks.presence].unique():
        where = tracks.presence & (tracks.identity == number)
        places = tracks.place[where]
        far |= where & ((places.amax(0) - places.amin(0)).amax() > moved)
    _, shares = tracks.draw()
    solid = _without_dents(shares * far[:, :, None, None] > 0.2).any(1, keepdim=True)
    return max_pool2d(solid.float(), 3, 1, 1)[:, 0] > 0


def _without_dents(mask: Bool[Tensor, "T K H W"]) -> Bool[Tensor, "T K H W"]:
    """Masks with all that lies between two of their pixels in a row or a column.

    Over a ghost that has its own colour a look has holes, and there it would never be masked.
    """
    between = []
    for axis in (-1, -2):
        ahead = mask.to(torch.uint8).cummax(axis).values
        behind = mask.to(torch.uint8).flip(axis).cummax(axis).values.flip(axis)
        between.append((ahead & behind) > 0)
    return between[0] | between[1]


def tracks_of(states: list[TrackerState], context: Float[Tensor, "C 3 H W"], shortest: int = 1) -> Tracks:
    """The tracks of the first episode of a batch, from the states after each of its frames."""
    rows = max(1, max(int(s.alive[0].sum(0)) and int(s.alive[0].nonzero()[-1]) + 1 for s in states))
    presence = torch.stack([s.presence[0, :rows] for s in states])
    identity = torch.stack([torch.where(s.alive, s.identity, -1)[0, :rows] for s in states])
    length = torch.bincount(identity[presence].flatten(), minlength=int(states[-1].born[0]) + 1)
    presence &= torch.where(identity >= 0, length[identity], 0) >= shortest
    extents = [s.extent for s in states]
    anchor = torch.stack([s.place[0, :rows] for s in states])
    return Tracks(
        presence=presence,
        identity=identity,
        place=anchor + torch.stack([e.offset_BK2[0, :rows] for e in extents]),
        velocity=torch.stack([s.velocity[0, :rows] for s in states]),
        size=torch.stack([e.size_BK2[0, :rows] for e in extents]),
        depth=torch.stack([s.depth[0, :rows] for s in states]),
        look=torch.stack([s.look[0, :rows] for s in states]),
        anchor=anchor,
        context=context,
    )
