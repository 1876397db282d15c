"""Running tasks seen frame by frame: the tracker's state as factors."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
from torch import Tensor

from ...types import Scene
from .context import ContextConfig
from .flam import TrackedFLAM
from .known import KnownLooks
from .sprites import draw
from .tracker import Tracker, TrackerState
from .views import as_colors, find_view

SHOWN = (1, 2, 4, 8, 16, 32, 64)
"""Frames after which the background of an episode is found anew, where it is not known: what has moved is then not in it."""


class TrackedWatcher:
    """Factors of B running tasks. An entity keeps its row while it is tracked.

    Raises:
        ValueError: the world's camera moves; camera paths are found from whole films only.
    """

    def __init__(self, flam: TrackedFLAM, count: int) -> None:
        config = flam.config
        if config.state.margin:
            raise ValueError("this world's camera moves; running tasks are watched with a still one only")
        self.flam = flam
        tracker = replace(config.tracker, factors=config.state.entities, patch=config.state.patch)
        looks = None if config.shared_ground else flam.known_looks
        self._tracker = Tracker(tracker, looks)
        self._known = KnownLooks(flam.known_looks)
        self._state = self._tracker.start(count)
        self._factors = torch.zeros(count, config.state.factors, config.state.dim)
        self._identity = torch.full((count, config.state.entities), -1)
        self._ground = flam.ground_3HW.expand(count, -1, -1, -1).clone()
        self._films: list[list[np.ndarray]] = [[] for _ in range(count)]

    @torch.inference_mode()
    def see(self, frames: np.ndarray, fresh: np.ndarray, moved: np.ndarray | None = None) -> Scene:
        """As `Watcher.see`."""
        new = np.ones(len(frames), bool) if moved is None else moved
        rows = torch.from_numpy(np.flatnonzero(new))
        if fresh.any():
            began = torch.from_numpy(np.flatnonzero(fresh))
            _put(self._state, began, self._tracker.start(len(began)))
            self._identity[began] = -1
        if not self.flam.config.shared_ground:
            self._find_grounds(frames, fresh, new)
        colors = as_colors(frames)[rows]
        state = self._tracker.step(_rows(self._state, rows), colors, self._ground[rows])
        self._factors[rows] = self._factors_of(state, self._factors[rows], self._identity[rows])
        self._identity[rows] = torch.where(state.presence, state.identity, -1)
        _put(self._state, rows, state)
        return Scene(self._factors.clone(), self._ground.flatten(1))

    def _find_grounds(self, frames: np.ndarray, fresh: np.ndarray, new: np.ndarray) -> None:
        config = self.flam.config.tracker
        for row in np.flatnonzero(new):
            film = self._films[row]
            if fresh[row]:
                film.clear()
            if len(film) == SHOWN[-1]:
                continue
            film.append(frames[row].copy())
            if len(film) in SHOWN:
                colors = as_colors(np.stack(film))
                path, things = torch.zeros(len(colors), 2), self._known.find(colors)
                self._ground[row] = find_view(
                    colors, path, config, ContextConfig(), things=things, complete=True
                )[0]

    def _factors_of(self, state: TrackerState, before_BKS: Tensor, identity_BK: Tensor) -> Tensor:
        config = self.flam.config.state
        offset, _ = state.extent
        patch = config.patch
        look = draw(state.look, patch / 2 - offset, (patch, patch)).drawn_BK4HW
        place = config.from_pixels(state.place + offset)
        known = (state.identity == identity_BK) & state.presence
        velocity = (place - before_BKS[..., :2]) * (config.half / config.speed)
        nearer = (state.depth[:, None, :] < state.depth[:, :, None]) & state.presence[:, None, :]
        depth = nearer.sum(-1) / max(config.entities - 1, 1)
        numbers = [
            place,
            velocity * known[..., None],
            depth[..., None],
            torch.ones_like(depth)[..., None],
            self.flam.codes.encode(look),
        ]
        return torch.cat(numbers, -1) * state.presence[..., None]


def _rows(state: TrackerState, rows: Tensor) -> TrackerState:
    return TrackerState(**{f.name: getattr(state, f.name)[rows] for f in fields(state)})


def _put(state: TrackerState, rows: Tensor, new: TrackerState) -> None:
    for f in fields(state):
        getattr(state, f.name)[rows] = getattr(new, f.name)
