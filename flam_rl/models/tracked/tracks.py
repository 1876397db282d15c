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
from .camera import Mosaic, camera_path
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
        camera: `(T, 2)`, by how many pixels (x, y) the ground lies from where it was in the first frame.
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
    camera: Float[Tensor, "T 2"]

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
        return follow(
            colors, ground[None].to(device), torch.zeros(len(colors), 2, device=device), config, shortest
        )
    path = camera_path(colors)
    view, known = find_view(colors, path, None, config, context, past), slice(past)
    for _ in range(context.rounds):
        tracks = follow(colors[known], view[known] if len(view) > 1 else view, path[known], config, shortest)
        clearer = find_view(colors, path, ~moving_masks(tracks, context.moved), config, context, past)
        better = differs(clearer - view, config.threshold)
        view = torch.where(better[:, None], clearer, view)
        if better.sum() < config.area * len(view):
            break
    return follow(colors, view, path, config, shortest)


def find_view(
    colors: Float[Tensor, "T 3 H W"],
    path: Float[Tensor, "T 2"],
    valid: Bool[Tensor, "N H W"] | None,
    config: TrackerConfig,
    context: ContextConfig,
    past: int | None,
) -> Float[Tensor, "C 3 H W"]:
    """The context as each frame shows it; one for all frames where the camera stands still.

    Args:
        path: of `camera_path`. valid: where no entity is, of the frames that are known.
        past: only the first so many frames are known. Ground that none of them shows has their mean colour.
    """
    known = colors[:past]
    if not bool(path.any()):
        ground = find_context(known, valid, context)
        return without_ghosts(known, ground, context, config.threshold, config.area)[None]
    mosaic = Mosaic(path, (colors.shape[-2], colors.shape[-1]))
    seen = mosaic.lay(torch.ones_like(colors[:, :1]))[:past, 0] > 0.99
    laid = mosaic.lay(colors)[:past]
    empty = None
    if valid is not None:
        moving = torch.zeros_like(colors[:, :1])
        moving[: len(valid), 0] = (~valid).to(colors.dtype)
        empty = mosaic.lay(moving)[:past, 0] < 0.01
    ground = find_context(laid, empty, context, seen)
    ground = without_ghosts(laid, ground, context, config.threshold, config.area, seen)
    shown = seen[:: context.every(len(known))].any(0)
    ground = torch.where(shown, ground, known.mean((0, 2, 3))[:, None, None])
    return mosaic.look(ground)


def clip_context(
    frames: np.ndarray, config: TrackerConfig, context: ContextConfig = ContextConfig()
) -> Float[Tensor, "3 H W"]:
    """The context of a clip of uint8 `(T, H, W, 3)` by itself, before tracks are known; a still camera is taken for granted."""
    colors = as_colors(frames)
    return find_view(colors, torch.zeros(len(colors), 2), None, config, context, None)[0]


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
    colors: Float[Tensor, "T 3 H W"],
    context: Float[Tensor, "C 3 H W"],
    path: Float[Tensor, "T 2"],
    config: TrackerConfig,
    shortest: int,
) -> Tracks:
    """The tracks over a known context, which moves along a path with the camera."""
    tracker = Tracker(config)
    state = tracker.start(1, colors.device)
    states = []
    moved = torch.cat([torch.zeros_like(path[:1]), path[1:] - path[:-1]])
    for color, ground, step in zip(colors, context.expand(len(colors), -1, -1, -1), moved, strict=True):
        state = tracker.step(state, color[None], ground[None], step[None])
        states.append(state)
    return tracks_of(states, context, path, shortest)


def moving_masks(tracks: Tracks, moved: float) -> Bool[Tensor, "T H W"]:
    """Where a track is, and a pixel around, that has been at places more than `moved` pixels apart."""
    far = torch.zeros_like(tracks.presence)
    for number in tracks.identity[tracks.presence].unique():
        where = tracks.presence & (tracks.identity == number)
        places = (tracks.place - tracks.camera[:, None])[where]
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


def tracks_of(
    states: list[TrackerState],
    context: Float[Tensor, "C 3 H W"],
    camera: Float[Tensor, "T 2"],
    shortest: int = 1,
) -> Tracks:
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
        camera=camera,
    )
