"""Held-out video as a world sees it: encoded once, measured many times."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from ..core.threads import one_core
from ..core.world import World
from ..data.hold_out import in_pieces
from ..progress import progress
from ..types import Entities, Scene, Truth, Video

logger = logging.getLogger(__name__)

AHEAD = 16
"""Least number of steps that `Encoded.opening` prepares, so that measures of several horizons share one encoding of a
clip."""


@dataclass(frozen=True, eq=False)
class Encoded:
    """The encoding of each episode of a video by a world.

    Attributes:
        frames: uint8 `(T, H, W, 3)`; arrays that are mapped from a file stay mapped.
        scenes: factors `(T, K, S)` and the context `(X,)` that the whole episode shows.
        latent_actions: `(T - 1, L, A)`, means of the latent actions inferred between successive frames.
        truth: of each episode, where the task gives it; else None.
    """

    world: World
    frames: tuple[np.ndarray, ...]
    scenes: tuple[Scene, ...]
    latent_actions: tuple[torch.Tensor, ...]
    truth: tuple[Truth, ...] | None
    _openings: dict[tuple[int, int], tuple[Scene, torch.Tensor]] = field(default_factory=dict)

    @cached_property
    def entities(self) -> tuple[Entities, ...]:
        """The entities of each episode, without masks; `masked` gives the masks of one episode at a time.

        Raises:
            ValueError: the world has one factor for the whole scene, so no entities.
        """
        return tuple(self.masked(index, masks=False) for index in range(len(self.frames)))

    @torch.inference_mode()
    def masked(self, index: int, masks: bool = True) -> Entities:
        """The entities of an episode with their share of each pixel.

        Raises:
            ValueError: the world has one factor for the whole scene, so no entities.
        """
        return self.world.model.entities_of(self.scenes[index], masks)

    def opening(self, index: int, start: int, steps: int) -> tuple[Scene, torch.Tensor]:
        """As `Model.opening`, for an episode: the context, like the factors, depends on frames up to `start` only."""
        scene = self.scenes[index]
        if scene.context.shape[-1] == 0:
            return Scene(scene.factors[start], scene.context), self.latent_actions[index][
                start : start + steps
            ]
        key = index, start
        if key not in self._openings or len(self._openings[key][1]) < steps:
            ahead = max(steps, min(AHEAD, len(self.frames[index]) - 1 - start))
            clip = torch.as_tensor(np.ascontiguousarray(self.frames[index][: start + ahead + 1]))
            self._openings[key] = self.world.model.opening(clip.to(self.world.device), start, ahead)
        now, latent_actions = self._openings[key]
        return now, latent_actions[:steps]

    def actions_per_factor(self, index: int) -> torch.Tensor:
        """The latent action of each factor, `(T - 1, K, A)`."""
        return self.world.actions_per_factor(self.latent_actions[index])


@one_core()
@torch.inference_mode()
def encode(world: World, video: Video, truth: tuple[Truth, ...] | None = None) -> Encoded:
    """Encode each episode; long ones are encoded, and measured, in pieces.

    Args:
        truth: of each episode.

    Raises:
        ValueError: the model needs true actions and the video comes without.
    """
    pieces = in_pieces(video)
    frames = tuple(piece.select(video.episodes[piece.episode]) for piece in pieces)
    known = truth and tuple(
        Truth(**{name: piece.select(values) for name, values in truth[piece.episode].arrays().items()})
        for piece in pieces
    )
    scenes, latent_actions = [], []
    for index, episode in enumerate(progress(frames, desc="encoding", unit="episode")):
        scene = _see(world, episode, known[index].action if known else None)
        scenes.append(scene)
        latent_actions.append(
            world.infer_actions(scene.factors[None]).mean[0]
            if len(episode) > 1
            else scene.factors.new_zeros(0, world.latent_actions, world.latent_action_dim)
        )
    return Encoded(world, frames, tuple(scenes), tuple(latent_actions), known)


def _see(world: World, frames: np.ndarray, actions: np.ndarray | None) -> Scene:
    clip = torch.as_tensor(frames[None], device=world.device)
    acted = None if actions is None else torch.as_tensor(actions[None], device=world.device)
    return world.see(clip, acted).select(0)


def left_out(name: str, reason: str) -> None:
    """Log that a measure is left out (its result is None), and why."""
    logger.info("%s is left out: %s", name, reason)
