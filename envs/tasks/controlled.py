"""Actions of one agent that is the caller's, or of several at once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np


def joint_space(actions: int, controlled: int) -> gym.Space:
    """`Discrete` actions of one agent; of several a number of `MultiDiscrete` each."""
    if controlled == 1:
        return gym.spaces.Discrete(actions)
    return gym.spaces.MultiDiscrete([actions] * controlled)


def joint(actions: Sequence[int]) -> int | np.ndarray:
    """The action of `joint_space` in which each controlled agent does this."""
    return int(actions[0]) if len(actions) == 1 else np.array(actions, np.int64)


def each(space: gym.Space, action: Any) -> list[int]:
    """What each controlled agent does in an action of `joint_space`.

    Raises:
        ValueError: it is none of the space.
    """
    if not space.contains(action):
        actions = space.n if isinstance(space, gym.spaces.Discrete) else space.nvec[0]  # type: ignore[attr-defined]
        numbers = "the integers" if isinstance(space, gym.spaces.Discrete) else f"{len(space.nvec)} integers"  # type: ignore[attr-defined]
        raise ValueError(f"action is {action!r}; allowed are {numbers} 0 to {actions - 1}")
    return np.atleast_1d(action).tolist()
