"""Pucks tasks for tests, and episodes of them."""

from __future__ import annotations

import gymnasium as gym
import numpy as np

from flam_rl.envs.tasks.pucks import PucksTask
from flam_rl.types import Truth

BUSY = {"pucks": 6, "looks": 8, "background": "new_texture", "camera": "moving", "visits": True}


def make(**arguments) -> PucksTask:
    return gym.make("flam_rl/Pucks-v0", **arguments).unwrapped


def play(task: PucksTask, seed: int, behavior: str = "patrol") -> tuple[np.ndarray, Truth]:
    """Frames and truth of an episode in which puck 0 acts by a behaviour."""
    frame, info = task.reset(seed=seed)
    act = task.make_behavior(behavior, np.random.default_rng(seed))
    frames, truths, ended = [frame], [info["truth"]], False
    while not ended:
        frame, _, terminated, truncated, info = task.step(act())
        frames.append(frame)
        truths.append(info["truth"])
        ended = terminated or truncated
    return np.stack(frames), Truth.stack(truths)
