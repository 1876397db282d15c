"""The tracks of an episode: each entity's factor over time, and what they draw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...core.threads import lone_threads
from ...progress import progress
from ...types import Entities
from .camera import camera_path
from .context import ContextConfig, grown, outline
from .known import KnownLooks
from .sprites import draw, extent, masks
from .tokens import differs, filled
from .tracker import Tracker, TrackerConfig, TrackerState, scene_of
from .views import as_colors, find_view
from .windows import Ground, Sprites, look_at, trimmed


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


def track(
    frames: np.ndarray,
    config: TrackerConfig = TrackerConfig(),
    context: ContextConfig = ContextConfig(),
    ground: Float[Tensor, "3 H W"] | None = None,
    past: int | None = None,
    shortest: int = 3,
    device: torch.device | str = "cpu",
    looks: Float[Tensor, "M 4 P P"] | None = None,
) -> Tracks:
    """The tracks of an episode, by one causal step a frame.

    Args:
        frames: uint8 `(T, H, W, 3)`.
        ground: the context where it is known; found from the episode by default.
        past: know the context from the first so many frames only, as prediction must; from all by default.
        shortest: tracks of fewer frames are left out.
        looks: what entities look like, as far as that is known: what looks so is in no context that is found.

    Raises:
        ValueError: fewer than 2 frames, or frames of another form.
    """
    return track_all([frames], config, context, ground, past, shortest, device, looks=looks)[0]


def track_all(
    episodes: Sequence[np.ndarray],
    config: TrackerConfig = TrackerConfig(),
    context: ContextConfig = ContextConfig(),
    ground: Float[Tensor, "3 H W"] | None = None,
    past: int | None = None,
    shortest: int = 3,
    device: torch.device | str = "cpu",
    batch: int = 16,
    described: str | None = None,
    looks: Float[Tensor, "M 4 P P"] | None = None,
) -> list[Tracks]:
    """The tracks of episodes of one frame size, `batch` of them at a time on each core; see `track`.

    Whatever `batch` is, the tracks of an episode are the same but for rounding.

    Args:
        described: what a progress bar says; there is none by default.

    Raises:
        ValueError: an episode has fewer than 2 frames, or another form.
    """
    for frames in episodes:
        if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8 or len(frames) < 2:
            raise ValueError(
                f"tracking needs 2 or more frames, uint8 (T, H, W, 3); given {frames.dtype} {frames.shape}"
            )
    # Those of like length lie together, for a step of a batch costs as much at its end as at its start.
    order = sorted(range(len(episodes)), key=lambda index: -len(episodes[index]))
    parts = [order[start : start + batch] for start in range(0, len(order), batch)]
    bar = progress(total=len(order), desc=described, unit="episode", disable=described is None)

    def track_part(part: list[int]) -> list[Tracks]:
        chosen = [episodes[i] for i in part]
        found = _track_together(chosen, config, context, ground, past, shortest, device, looks)
        bar.update(len(part))
        return found

    with bar:
        found = lone_threads().map(track_part, parts)
    tracks = dict(zip(order, [each for part in found for each in part], strict=True))
    return [tracks[index] for index in range(len(episodes))]


def _track_together(
    episodes: Sequence[np.ndarray],
    config: TrackerConfig,
    context: ContextConfig,
    ground: Float[Tensor, "3 H W"] | None,
    past: int | None,
    shortest: int,
    device: torch.device | str,
    looks: Float[Tensor, "M 4 P P"] | None,
) -> list[Tracks]:
    """See `track_all`; longest episodes first."""
    colors = [as_colors(frames, device) for frames in episodes]
    if ground is not None:
        still = [torch.zeros(len(each), 2, device=device) for each in colors]
        return follow_all(colors, [ground[None].to(device)] * len(colors), still, config, shortest)
    paths = [camera_path(each) for each in colors]
    known = [None if looks is None else KnownLooks(looks.to(device)).find(each[:past]) for each in colors]
    views = [
        find_view(each, path, config, context, past, mask, complete=mask is not None)
        for each, path, mask in zip(colors, paths, known, strict=True)
    ]
    found: dict[int, Tracks] = {}
    left = list(range(len(colors)))
    rounds = 0 if past == 1 else context.rounds  # in one frame nothing moves
    for turn in range(rounds + 1):
        last = turn == rounds
        first = slice(None if last else past)
        tracks = follow_all(
            [colors[i][first] for i in left],
            [views[i][first] if len(views[i]) > 1 else views[i] for i in left],
            [paths[i][first] for i in left],
            config,
            shortest,
            looks,
        )
        found |= dict(zip(left, tracks, strict=True))
        if last:
            break
        changed = []
        for i in left:
            things, mask = things_in(found[i], colors[i][first], context), known[i]
            things = grown(things, colors[i][first], context) if mask is None else things | mask
            clearer = find_view(colors[i], paths[i], config, context, past, things, complete=True)
            better = differs(clearer - views[i], config.threshold)
            if better.sum() >= context.area * len(views[i]):
                views[i] = torch.where(better[:, None], clearer, views[i])
                changed.append(i)
        left = changed
        if not left:
            break
    short = [i for i, tracks in found.items() if len(tracks.presence) < len(colors[i])]
    if short:
        shortened = [[each[i] for i in short] for each in (colors, views, paths)]
        again = follow_all(shortened[0], shortened[1], shortened[2], config, shortest)
        found |= dict(zip(short, again, strict=True))
    return [without_ground(found[i], context) for i in range(len(colors))]


def without_ground(tracks: Tracks, config: ContextConfig) -> Tracks:
    """The tracks without those that stay where they are on ground that a camera passes over: the context has them instead."""
    if len(tracks.context) == 1:
        return tracks
    ground = torch.zeros_like(tracks.presence)
    least, still = config.still
    for number in tracks.identity[tracks.presence].unique():
        where = tracks.presence & (tracks.identity == number)
        places = (tracks.anchor - tracks.camera[:, None])[where]
        spread = places.quantile(torch.tensor([0.05, 0.95]).to(places), dim=0).diff(dim=0)
        if len(places) >= least and float(spread.max()) <= still:
            ground |= where
    if not bool(ground.any()):
        return tracks
    rows, context = ground.any(0), tracks.context.clone()
    for at in ground.any(1).nonzero()[:, 0].split(16):
        look, place, depth, there = (
            each[at][:, rows] for each in (tracks.look, tracks.anchor, tracks.depth, ground)
        )
        context[at] = scene_of(look, place, depth, there, tracks.context[at])[1].frame_B3HW
    presence = tracks.presence & ~ground
    return replace(
        tracks, presence=presence, identity=torch.where(ground, -1, tracks.identity), context=context
    )


def follow_all(
    colors: Sequence[Float[Tensor, "_ 3 H W"]],
    contexts: Sequence[Float[Tensor, "_ 3 H W"]],
    paths: Sequence[Float[Tensor, "_ 2"]],
    config: TrackerConfig,
    shortest: int,
    looks: Float[Tensor, "M 4 P P"] | None = None,
) -> list[Tracks]:
    """The tracks of several episodes side by side, longest first, over known contexts, which move along paths with the camera."""
    tracker = Tracker(config, looks)
    states = tracker.start(len(colors), colors[0].device)
    moved = [torch.cat([torch.zeros_like(path[:1]), path[1:] - path[:-1]]) for path in paths]
    views = [context.expand(len(each), -1, -1, -1) for each, context in zip(colors, contexts, strict=True)]
    seen: list[_Seen] = []
    for t in range(len(colors[0])):
        count = sum(len(each) > t for each in colors)
        now = states.first(count)
        tracker.advance(
            now, *(torch.stack([each[t] for each in parts[:count]]) for parts in (colors, views, moved))
        )
        seen.append(_Seen.from_state(now))
    return [
        _tracks_of([frame.only(b) for frame in seen[: len(each)]], context, path, shortest)
        for b, (each, context, path) in enumerate(zip(colors, contexts, paths, strict=True))
    ]


def things_in(
    tracks: Tracks, colors: Float[Tensor, "T 3 H W"], config: ContextConfig
) -> Bool[Tensor, "T H W"]:
    """Where a track is that is no ghost of the context: it has moved, or the frame has its outline."""
    far = torch.zeros_like(tracks.presence)
    for number in tracks.identity[tracks.presence].unique():
        where = tracks.presence & (tracks.identity == number)
        places = (tracks.place - tracks.camera[:, None])[where]
        moved = bool((places.amax(0) - places.amin(0)).amax() > config.moved)
        far |= where & (moved or _stands_out(tracks, where, colors))
    context = tracks.context.expand(len(far), -1, -1, -1)
    solid = torch.zeros_like(context[:, 0], dtype=torch.bool)
    for frames in torch.arange(len(far), device=far.device).split(16):
        frame, row = far[frames].nonzero().unbind(1)
        if not len(frame):
            continue
        ground = Ground(context[frames], context[frames])
        look = trimmed(tracks.look[frames][frame, row])
        sprites = Sprites(frame, look, tracks.anchor[frames][frame, row], tracks.depth[frames][frame, row])
        windows = look_at(sprites, ground)
        at, inside = ground.pixels(frame, windows.corner, windows.inside.shape[-1])
        mine = _without_dents((windows.drawn[:, 3] * windows.seen > 0.5) & inside) & inside
        solid[frames[0] : frames[-1] + 1].view(-1)[at[mine]] = True
    return solid


def _stands_out(tracks: Tracks, where: Bool[Tensor, "T K"], colors: Float[Tensor, "T 3 H W"]) -> bool:
    """Whether a track's outline is stronger in its middle frame than in the context there."""
    at = where.nonzero()[int(where.sum()) // 2]
    t, k = at.tolist()
    size = (colors.shape[-2], colors.shape[-1])
    drawn = draw(tracks.look[t, k][None, None], tracks.anchor[t, k][None, None], size).drawn_BK4HW
    mask = filled((drawn[0, 0, 3] > 0.3).cpu().numpy())
    context = tracks.context[t if len(tracks.context) > 1 else 0]
    return outline(colors[t].cpu().numpy(), mask) > outline(context.cpu().numpy(), mask)


def _without_dents(mask: Bool[Tensor, "N V V"]) -> Bool[Tensor, "N V V"]:
    """Masks with all that lies between two of their pixels in a row or a column.

    Over a ghost that has its own colour a look has holes, and there it would never be masked.
    """
    between = []
    for axis in (-1, -2):
        ahead = mask.to(torch.uint8).cummax(axis).values
        behind = mask.to(torch.uint8).flip(axis).cummax(axis).values.flip(axis)
        between.append((ahead & behind) > 0)
    return between[0] | between[1]


@dataclass(frozen=True)
class _Seen:
    """What is kept of states after a frame: their factors, rows one after the other."""

    episode: Int[Tensor, N]
    row: Int[Tensor, N]
    presence: Bool[Tensor, N]
    identity: Int[Tensor, N]
    place: Float[Tensor, "N 2"]
    velocity: Float[Tensor, "N 2"]
    depth: Float[Tensor, N]
    look: Float[Tensor, "N 4 P P"]

    @classmethod
    def from_state(cls, state: TrackerState) -> _Seen:
        rows = state.alive.nonzero().unbind(1)
        kept = (state.presence, state.identity, state.place, state.velocity, state.depth, state.look)
        return cls(*rows, *(each[rows] for each in kept))

    def only(self, episode: int) -> _Seen:
        mine = slice(
            *torch.searchsorted(self.episode, torch.tensor([episode, episode + 1]).to(self.episode)).tolist()
        )
        return _Seen(*(getattr(self, f.name)[mine] for f in fields(self)))


def _tracks_of(
    seen: list[_Seen], context: Float[Tensor, "C 3 H W"], camera: Float[Tensor, "T 2"], shortest: int
) -> Tracks:
    """The tracks of an episode, from its factors after each frame."""
    rows = max([1] + [int(frame.row[-1]) + 1 for frame in seen if len(frame.row)])
    frame = torch.cat([torch.full_like(each.row, t) for t, each in enumerate(seen)])
    row = torch.cat([each.row for each in seen])

    def dense(name: str, empty: int = 0) -> Tensor:
        values = torch.cat([getattr(each, name) for each in seen])
        table = values.new_full((len(seen), rows, *values.shape[1:]), empty)
        table[frame, row] = values
        return table

    presence, identity, anchor, look = dense("presence"), dense("identity", -1), dense("place"), dense("look")
    length = torch.bincount(identity[presence].flatten(), minlength=int(identity.max()) + 2)
    presence &= torch.where(identity >= 0, length[identity], 0) >= shortest
    where, size = extent(look[:, :, 3])
    return Tracks(
        presence=presence,
        identity=identity,
        place=anchor + where,
        velocity=dense("velocity"),
        size=size,
        depth=dense("depth"),
        look=look,
        anchor=anchor,
        context=context,
        camera=camera,
    )
