"""Factor vectors: the state of a tracked entity in numbers of order one, and the conversion of tracks to sequences of
them.

A factor has S = 6 + L numbers: place (x, y), velocity (x, y), depth, presence, and L of its look code. An entity
keeps its row for its whole life; in an empty row all numbers are 0. Places are 0 in the middle of the frame and 1 at
the end of its longer side. Velocities are relative to the ground, in units of `speed` pixels per frame. If the camera
moves, it is the last factor: its velocity is the motion of the ground in the frame, its place the motion since the
context was seen, its depth -1, its look 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ...types import check_ranges
from .sprites import draw, extent
from .tracks import Tracks

PLACE, VELOCITY = slice(0, 2), slice(2, 4)
DEPTH, PRESENCE = 4, 5
LOOK = slice(6, None)

NEAR = 4.0
"""Unit, in pixels, of distances to other factors and to the border of the frame: fractions of a pixel decide what
happens at a touch."""


@dataclass(frozen=True)
class StateConfig:
    """Settings of the conversion between pixels and factors."""

    height: int = 64
    """Height of frames in pixels."""
    width: int = 64
    entities: int = 8
    """Most entities at one time; K is one more where the camera moves."""
    patch: int = 24
    """Height and width of a look in pixels."""
    look_dim: int = 12
    """L, numbers of a look code."""
    speed: float = 1.0
    """Pixels per frame of a velocity of 1."""
    margin: int = 0
    """Pixels around a frame that its context holds for a moving camera; 0 if the camera stands still."""

    def __post_init__(self) -> None:
        check_ranges(self, height=(8, 4096), width=(8, 4096), entities=(1, 256), patch=(4, 256))
        check_ranges(self, look_dim=(1, 256), speed=(1e-3, 1e3), margin=(0, 1024))

    @property
    def factors(self) -> int:
        """K."""
        return self.entities + (self.margin > 0)

    @property
    def dim(self) -> int:
        """S."""
        return 6 + self.look_dim

    @property
    def seen_dim(self) -> int:
        """Numbers of `seen`."""
        return self.dim + 4

    def seen(self, factors_BKS: Float[Tensor, "*B K S"]) -> Float[Tensor, "*B K Z"]:
        """The inputs for the motion of factors: all numbers but the camera's place, which depends on where the clip
        began; and the distances to the borders of the frame, in units of `NEAR` pixels, clipped at 2, because there
        may be walls, and entities come and go there."""
        if self.margin:
            nowhere = torch.cat([torch.zeros_like(factors_BKS[..., -1:, :2]), factors_BKS[..., -1:, 2:]], -1)
            factors_BKS = torch.cat([factors_BKS[..., :-1, :], nowhere], -2)
        place = factors_BKS[..., PLACE] * (self.half / NEAR)
        size = torch.tensor([self.width, self.height], device=place.device) / (2 * NEAR)
        borders = torch.cat([place + size, size - place], -1).clamp(-2, 2)
        return torch.cat([factors_BKS, borders], -1)

    @property
    def half(self) -> float:
        """Pixels from the middle of the frame to a place of 1."""
        return max(self.height, self.width) / 2

    def to_pixels(self, place: Tensor) -> Tensor:
        """Places `(..., 2)` of factors in pixels of the frame."""
        return place * self.half + torch.tensor([self.width / 2, self.height / 2], device=place.device)

    def from_pixels(self, pixels: Tensor) -> Tensor:
        """The inverse of `to_pixels`."""
        middle = torch.tensor([self.width / 2, self.height / 2], device=pixels.device)
        return (pixels - middle) / self.half


@dataclass(frozen=True)
class Rows:
    """Tracks of an episode in rows: one entity at a time, and at least one empty frame between two entities in a row.

    Attributes:
        presence: bool `(T, K)`; an entity that is hidden for some frames stays present.
        identity: int `(T, K)`, -1 where the row is empty.
        place: `(T, K, 2)`, centre in pixels. velocity: `(T, K, 2)`, pixels over the ground since the last frame.
        depth: `(T, K)`, 0 for the nearest, 1 for the farthest of K.
        look: `(T, K, 4, P, P)`, centred in its patch.
        camera: `(T, 2)`, as `Tracks.camera`.
    """

    presence: Bool[Tensor, "T K"]
    identity: Int[Tensor, "T K"]
    place: Float[Tensor, "T K 2"]
    velocity: Float[Tensor, "T K 2"]
    depth: Float[Tensor, "T K"]
    look: Float[Tensor, "T K 4 P P"]
    camera: Float[Tensor, "T 2"]

    def factors(self, config: StateConfig, look_TEL: Float[Tensor, "T E L"]) -> Float[Tensor, "T K S"]:
        """Factor vectors, with look codes given."""
        numbers = [
            config.from_pixels(self.place),
            self.velocity / config.speed,
            self.depth[..., None],
            torch.ones_like(self.depth)[..., None],
            look_TEL,
        ]
        factors = torch.cat(numbers, -1) * self.presence[..., None]
        if not config.margin:
            return factors
        camera = factors.new_zeros(len(factors), 1, config.dim)
        camera[:, 0, PLACE] = (self.camera - self.camera[-1]) / config.half
        camera[1:, 0, VELOCITY] = (self.camera[1:] - self.camera[:-1]) / config.speed
        camera[:, 0, DEPTH], camera[:, 0, PRESENCE] = -1.0, 1.0
        return torch.cat([factors, camera], 1)


def rows_of(tracks: Tracks, count: int | None = None) -> Rows:
    """Tracks in `count` rows; by default as many rows as they need.

    An entity gets the first row that has been empty for a frame, and keeps it while its track is alive; without a
    free row it is left out. The choice depends on no later frame.
    """
    spans = []
    for name in tracks.identity[tracks.presence].unique().tolist():
        held = tracks.identity == name
        frames = (tracks.presence & held).any(1).nonzero()[:, 0]
        spans.append((int(frames[0]), name, int(frames[-1]), int(held.any(1).nonzero()[-1])))
    spans.sort()
    ends: list[int] = []
    where: dict[int, int] = {}
    for begin, name, _, kept in spans:
        row = next((row for row, last in enumerate(ends) if last + 1 < begin), len(ends))
        if count is not None and row >= count:
            continue
        if row == len(ends):
            ends.append(kept)
        ends[row] = kept
        where[name] = row
    k, t = max(1, len(ends)) if count is None else count, len(tracks.presence)
    centred = _centred(tracks)
    rows = Rows(
        presence=torch.zeros(t, k, dtype=torch.bool),
        identity=torch.full((t, k), -1),
        place=torch.zeros(t, k, 2),
        velocity=torch.zeros(t, k, 2),
        depth=torch.zeros(t, k),
        look=torch.zeros(t, k, *tracks.look.shape[2:]),
        camera=tracks.camera,
    )
    depth = _ranked(tracks.depth, tracks.presence) / max(k - 1, 1)
    for begin, name, end, _ in spans:
        if name not in where:
            continue
        row, life = where[name], slice(begin, end + 1)
        frames, column = (tracks.presence & (tracks.identity == name)).nonzero(as_tuple=True)
        rows.presence[life, row] = True
        rows.identity[life, row] = name
        rows.place[life, row] = _filled(tracks.place[frames, column], frames, begin, end)
        rows.depth[life, row] = _last(depth[frames, column], frames, begin, end)
        rows.look[life, row] = _last(centred[frames, column], frames, begin, end)
        moved = rows.place[begin + 1 : end + 1, row] - rows.place[begin:end, row]
        rows.velocity[begin + 1 : end + 1, row] = moved - (
            tracks.camera[begin + 1 : end + 1] - tracks.camera[begin:end]
        )
    return rows


def _centred(tracks: Tracks, chunk: int = 16) -> Float[Tensor, "T K 4 P P"]:
    """Looks with the centre of their alpha in the middle of the patch."""
    patch = tracks.look.shape[-1]
    parts = []
    for look in tracks.look.split(chunk):
        parts.append(draw(look, patch / 2 - extent(look[:, :, 3]).offset_BK2, (patch, patch)).drawn_BK4HW)
    return torch.cat(parts)


def _ranked(depth_TK: Float[Tensor, "T K"], presence_TK: Bool[Tensor, "T K"]) -> Float[Tensor, "T K"]:
    """For each factor the number of present factors that are nearer."""
    nearer = (depth_TK[:, None, :] < depth_TK[:, :, None]) & presence_TK[:, None, :]
    return nearer.sum(-1).to(depth_TK.dtype)


def _filled(values: Tensor, frames: Tensor, begin: int, end: int) -> Tensor:
    """Values of some frames, interpolated linearly for the frames between."""
    at = torch.arange(begin, end + 1)
    after = torch.searchsorted(frames, at).clamp(max=len(frames) - 1)
    before = (after - (frames[after] > at).long()).clamp_min(0)
    share = (at - frames[before]).to(values.dtype) / (frames[after] - frames[before]).clamp_min(1)
    return torch.lerp(values[before], values[after], share[:, None])


def _last(values: Tensor, frames: Tensor, begin: int, end: int) -> Tensor:
    """Values of some frames; the frames between keep the last value."""
    at = torch.arange(begin, end + 1)
    return values[torch.searchsorted(frames, at, right=True) - 1]
