"""How policies do on a real task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from scipy.stats import binomtest
from tqdm import tqdm


@dataclass(frozen=True)
class PolicyScore:
    """Success over episodes.

    Attributes:
        success_rate: share of episodes that succeeded.
        mean_return: mean undiscounted return.
        ci95: Wilson's 95% interval of the success rate (Wilson 1927).
    """

    success_rate: float
    mean_return: float
    ci95: tuple[float, float]


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson's 95% interval of a success rate."""
    interval = binomtest(successes, episodes).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def score_policy(
    env: gym.Env, act: Callable[[Any], Any], episodes: int, seed: int, name: str = ""
) -> PolicyScore:
    """Episodes with reset seeds drawn from `seed`; success is the task's `info["success"]`."""
    rng = np.random.default_rng(seed)
    returns, successes = [], 0
    for reset_seed in tqdm(rng.integers(2**31, size=episodes), desc=name, unit="episode", disable=None):
        observation, info = env.reset(seed=int(reset_seed))
        total, done = 0.0, False
        while not done:
            observation, reward, terminated, truncated, info = env.step(act(observation))
            total += float(reward)
            done = terminated or truncated
        returns.append(total)
        successes += bool(info["success"])
    return PolicyScore(successes / episodes, float(np.mean(returns)), wilson(successes, episodes))
