"""Scores of policies on a real task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from scipy.stats import binomtest, t

from ..core.threads import one_core
from ..progress import progress

AT_ONCE = 16
"""Tasks that are played side by side."""


@dataclass(frozen=True)
class PolicyScore:
    """The outcome of a policy's episodes.

    Attributes:
        success_rate: share of episodes that succeeded; None where the task does not say whether one did.
        mean_return: mean undiscounted return.
        ci95: Wilson's 95% interval of the success rate (Wilson 1927); None where that is None.
        return_ci95: Student's 95% interval of the mean return; None after a single episode.
    """

    success_rate: float | None
    mean_return: float
    ci95: tuple[float, float] | None
    return_ci95: tuple[float, float] | None


def wilson(successes: int, episodes: int) -> tuple[float, float]:
    """Wilson's 95% interval of a success rate."""
    interval = binomtest(successes, episodes).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


@dataclass(frozen=True)
class Played:
    """The outcome of an episode.

    Attributes:
        total: undiscounted return.
        success: the task's `info["success"]` at the end; None if it does not say.
        rewarded: whether any step brought a reward above 0.
    """

    total: float
    success: bool | None
    rewarded: bool


def several(task: gym.Env, count: int = AT_ONCE) -> SyncVectorEnv:
    """`count` instances of a task made by `gym.make`, each of which is reset by the caller."""
    assert task.spec is not None
    modes = {"autoreset_mode": AutoresetMode.DISABLED}
    tasks = gym.make_vec(task.spec, num_envs=count, vectorization_mode="sync", vector_kwargs=modes)
    assert isinstance(tasks, SyncVectorEnv)
    return tasks


def acting(agent: Any) -> Callable[[np.ndarray], np.ndarray]:
    """What `play` asks of an agent with Stable-Baselines3's `predict`, its own state between calls kept here."""
    state: Any = None

    def act(seen: np.ndarray) -> np.ndarray:
        nonlocal state
        actions, state = agent.predict(seen, state, deterministic=True)
        return np.asarray(actions)

    return act


@one_core()
def play(
    tasks: VectorEnv, act: Callable[[Any], Any], episodes: int, seed: int, name: str = ""
) -> list[Played]:
    """Episodes with reset seeds drawn from `seed`, as many at a time as there are tasks.

    Args:
        tasks: of autoreset mode `Disabled`, as `several` makes them.
        act: observations of all tasks to an action each.
    """
    seeds = np.random.default_rng(seed).integers(2**31, size=episodes)
    waiting = iter(range(episodes))
    playing = np.full(
        tasks.num_envs, -1
    )  # index of the episode; tasks without an episode go on, and are not counted
    total, rewarded = np.zeros(tasks.num_envs), np.zeros(tasks.num_envs, bool)
    ended = np.ones(tasks.num_envs, bool)
    found: dict[int, Played] = {}
    with progress(total=episodes, desc=name, unit="episode") as bar:
        while len(found) < episodes:
            if ended.any():
                playing[ended] = [next(waiting, -1) for _ in range(ended.sum())]
                total[ended], rewarded[ended] = 0.0, False
                # Only tasks that ended take a new episode.
                reset_seeds: Any = [int(seeds[episode]) if episode >= 0 else seed for episode in playing]
                observations, _ = tasks.reset(seed=reset_seeds, options={"reset_mask": ended})
            observations, rewards, terminated, truncated, infos = tasks.step(act(observations))
            total += rewards
            rewarded |= rewards > 0
            ended = terminated | truncated
            for index in np.flatnonzero(ended & (playing >= 0)):
                success = bool(infos["success"][index]) if "success" in infos else None
                found[int(playing[index])] = Played(float(total[index]), success, bool(rewarded[index]))
                bar.update()
    return [found[episode] for episode in range(episodes)]


def score_policy(
    tasks: VectorEnv, act: Callable[[Any], Any], episodes: int, seed: int, name: str = ""
) -> PolicyScore:
    """The score of `play`: returns, and success where the task has `info["success"]`."""
    played = play(tasks, act, episodes, seed, name)
    returns = np.array([episode.total for episode in played])
    around = None
    if episodes > 1:
        half = t.ppf(0.975, episodes - 1) * returns.std(ddof=1) / episodes**0.5
        around = float(returns.mean() - half), float(returns.mean() + half)
    if any(episode.success is None for episode in played):
        return PolicyScore(None, float(returns.mean()), None, around)
    successes = sum(bool(episode.success) for episode in played)
    return PolicyScore(successes / episodes, float(returns.mean()), wilson(successes, episodes), around)
