"""Seeds of imagined worlds: each decides where its world starts, all together decide what follows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import VectorEnv

from .spaces import index

Seed = int | Sequence[int | None] | None
Seeds = tuple[int | None, ...]


def check_seeds(seed: Any, count: int) -> Seeds:
    """A seed for each of `count` worlds, None for those that were given none.

    Args:
        seed: None, an int n for n, n + 1, ... as in all of gymnasium's vector envs, or one for each world.

    Raises:
        ValueError: `seed` is nothing of this.
    """
    try:
        if seed is None:
            return (None,) * count
        if not np.iterable(seed):
            seed = range(index(seed), index(seed) + count)
        seeds = tuple(None if one is None else index(one) for one in seed)
    except TypeError:  # no number, or a list of something else
        seeds = ()
    if len(seeds) != count or any(one is not None and one < 0 for one in seeds):
        raise ValueError(
            f"seed is {seed!r}; allowed are None, an int of 0 or more, and a list of {count}, one such seed or "
            "None for each world"
        )
    return seeds


def first_seed(env: gym.Env | VectorEnv) -> int | None:
    """The seed of an env that was not given one: `env.np_random_seed` repeats it."""
    return None if env.np_random_seed == -1 else env.np_random_seed  # -1: the caller gave it a generator


def generator_of(seeds: Seeds) -> np.random.Generator:
    """The generator of a whole batch whose worlds all have seeds."""
    return np.random.default_rng([one for one in seeds if one is not None])


def start_of(seed: int, starts: int) -> int:
    """Index of the start, out of `starts`, that a world with this seed begins at."""
    return int(np.random.default_rng(seed).integers(starts))


def check_reset_mask(mask: Any, count: int) -> np.ndarray:
    """Which of `count` worlds to restart, bool `(count,)`: all if `mask` is None.

    Raises:
        ValueError: `mask` is not of this type and shape, or chooses no world.
    """
    if mask is None:
        return np.ones(count, bool)
    found = np.asarray(mask)
    if found.shape != (count,) or found.dtype != bool or not found.any():
        raise ValueError(
            f"reset_mask is {mask!r}; allowed are {count} bools, one for each world, with a True among them"
        )
    return found.copy()
