"""The real task beside the imagined world, under the same keys."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from ..envs.decoded_env import DecodedEnv
from ..types import Scene
from .stage import Stage


class Beside:
    """A real task that is acted in by latent actions of the agents' factors.

    Attributes:
        frame: uint8 `(H, W, 3)`, what it shows. reward, ended: of the latest step.
    """

    def __init__(self, stage: Stage) -> None:
        assert stage.make_task is not None
        self._shown = _Shown(stage.make_task())
        self._decoded = DecodedEnv(self._shown, stage.world)
        self._done: list[np.ndarray] = []
        self.reward, self.ended = 0.0, False

    @property
    def frame(self) -> np.ndarray:
        """uint8 `(H, W, 3)`, what the task shows."""
        return self._shown.frame

    @property
    def scene(self) -> Scene:
        """What the world sees of it, one row."""
        return self._decoded.scene

    def begin(self, seed: int) -> None:
        """Start anew."""
        self._seed, self._done, self.reward, self.ended = seed, [], 0.0, False
        self._decoded.reset(seed=seed)

    def step(self, latent_actions: torch.Tensor) -> None:
        """Act until it has ended, by the agents' latent actions one after the other, float `(C * A,)`."""
        if self.ended:
            return
        action = latent_actions.cpu().numpy()
        self._done.append(action)
        _, self.reward, terminated, truncated, _ = self._decoded.step(action)
        self.ended = terminated or truncated

    def back_to(self, step: int) -> None:
        """As after so many steps: a sim cannot go back, so it does them again."""
        if step >= len(self._done):
            return
        done = self._done[:step]
        self.begin(self._seed)
        for action in done:
            self.step(torch.from_numpy(action))

    def close(self) -> None:
        """Close the real task."""
        self._decoded.close()


class _Shown(gym.ObservationWrapper):
    """Keeps the frame that was observed last."""

    frame: np.ndarray

    def observation(self, frame: Any) -> np.ndarray:
        self.frame = frame
        return frame
