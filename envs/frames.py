"""Any task as a film: frames are what it observes."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from ..data.fitting import Fitting
from ..types import FitName


def shows_frames(task: gym.Env) -> bool:
    """Whether a task's own observations are uint8 frames `(H, W, 3)`."""
    space = task.observation_space
    return isinstance(space, gym.spaces.Box) and space.dtype == np.uint8 and space.shape[2:] == (3,)


class Frames(gym.Wrapper, RecordConstructorArgs):
    """A task whose observations are uint8 frames `(H, W, 3)`: its own if they are, else what it renders.

    Where frames are fitted to another size, `truth` and `entities` leave the info: they are in pixels of the task's own.
    `own_observation` is the task's own last one, which a policy may need; `own_observation_space` its space.

    Args:
        env: a task; where its observations are no frames, one that renders `rgb_array`.
        height, width: pixels to which frames are fitted, as training fits a video's; by default they stay as they are.
        fit: `letterbox` adds bars where the aspect is another, `crop` cuts the sides.

    Raises:
        ValueError: the task renders nothing that is a frame.
    """

    def __init__(
        self,
        env: gym.Env,
        height: int | None = None,
        width: int | None = None,
        fit: FitName = "letterbox",
    ) -> None:
        RecordConstructorArgs.__init__(self, height=height, width=width, fit=fit)
        super().__init__(env)
        self._renders = not shows_frames(env)
        if self._renders and env.render_mode != "rgb_array":
            raise ValueError(
                f"observations of {env} are {env.observation_space}; to render frames instead its render_mode must be "
                f"'rgb_array', but is {env.render_mode!r}"
            )
        self._fitting = Fitting(height, width, fit) if height and width else None
        self.own_observation_space = env.observation_space
        shape = self._frame(env.reset(seed=0)[0]).shape  # a task need not say what it renders
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the task; the observation is its rendered frame."""
        observation, info = self.env.reset(seed=seed, options=options)
        return self._frame(observation), self._info(info)

    def step(self, action: Any) -> tuple[np.ndarray, Any, bool, bool, dict[str, Any]]:
        """Step the task; the observation is its rendered frame."""
        observation, reward, terminated, truncated, info = self.env.step(action)
        return self._frame(observation), reward, terminated, truncated, self._info(info)

    def render(self) -> Any:
        """What the task renders, at its own size."""
        return self.env.render()

    def _info(self, info: dict[str, Any]) -> dict[str, Any]:
        if self._fitting is None:
            return info
        return {name: value for name, value in info.items() if name not in ("truth", "entities")}

    def _frame(self, observation: Any) -> np.ndarray:
        self.own_observation = observation
        picture = np.asarray(self.env.render()) if self._renders else observation
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise ValueError(
                f"{self.env} renders {picture.dtype} {picture.shape}; allowed is uint8 (H, W, 3)"
            )
        if self._fitting is None:
            return picture.copy() if self._renders else picture
        return self._fitting.place(self._fitting.scale(picture))
