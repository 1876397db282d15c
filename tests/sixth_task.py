"""A task of somebody else, in one file that knows gymnasium and NumPy only: `--task sixth_task:Drones-v0`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

HEIGHT, WIDTH = 48, 80
PAD = np.array([60.0, 16.0])
"""Where the steered drone is to hover, x and y in pixels."""
COLOURS = np.array([(235, 60, 60), (60, 130, 250), (250, 215, 50)], float)
RADIUS = 4.5
PUSH, GLIDE = 0.9, 0.85


class Drones(gym.Env):
    """Three discs glide over a field and keep out of each other's way. The caller pushes the red one, chance the others.

    It observes where the red one is and how fast; frames are only rendered. Each step costs the distance to the pad, and
    nothing is ever a success or an end.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-100, 100, (4,), np.float32)
    action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, max_steps: int = 50, render_mode: str | None = None) -> None:
        self.max_steps, self.render_mode = max_steps, render_mode
        y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
        self._pixels = np.stack([x, y], -1)
        field = 90 + 30 * np.sin(x / 9 + np.sin(y / 7)) + 20 * np.cos(y / 5 - x / 16)
        self._field = field[..., None] * (0.7, 1.0, 0.6)
        self._field[np.abs(np.linalg.norm(self._pixels - PAD, axis=-1) - 6) < 0.8] = 240

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._place = self.np_random.uniform(RADIUS, np.array([WIDTH, HEIGHT]) - RADIUS, (len(COLOURS), 2))
        self._velocity = self.np_random.uniform(-1, 1, self._place.shape)
        self._wind, self._steps = np.zeros((len(COLOURS) - 1, 2)), 0
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self._wind = 0.7 * self._wind + 0.5 * self.np_random.uniform(-1, 1, self._wind.shape)
        apart = self._place[:, None] - self._place
        away = np.linalg.norm(apart, axis=-1, keepdims=True).clip(1)
        shoved = (apart / away * (2 * RADIUS + 3 - away).clip(0)).sum(1)
        self._velocity = GLIDE * self._velocity + PUSH * np.concatenate([action[None], self._wind])
        self._velocity = (self._velocity + 0.3 * shoved).clip(-3, 3)
        self._place = self._place + self._velocity
        low, high = RADIUS, np.array([WIDTH, HEIGHT]) - RADIUS
        self._velocity[(self._place < low) | (self._place > high)] *= -1
        self._place = self._place.clip(low, high)
        self._steps += 1
        cost = float(np.linalg.norm(self._place[0] - PAD)) / 40
        return self._observe(), -cost, False, self._steps >= self.max_steps, {}

    def render(self) -> np.ndarray:
        picture = self._field
        for place, colour in zip(self._place[::-1], COLOURS[::-1], strict=True):
            away = np.linalg.norm(self._pixels - place, axis=-1)
            cover = np.clip(RADIUS + 0.5 - away, 0, 1)[..., None]
            picture = picture + cover * (colour - picture)
        return picture.round().astype(np.uint8)

    def _observe(self) -> np.ndarray:
        return np.concatenate([self._place[0], self._velocity[0]]).astype(np.float32)


gym.register("Drones-v0", entry_point=Drones)
