"""Record episodes of a task: what `flam-rl collect` stores and what evaluation looks at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ...actions import ActionSpace
from ...types import Episode, Json, LabelledTransitions, Truth
from .acting import Act, behaviors, make_policy


def record_episodes(task: gym.Env, steps: int, seed: int, policy: str | None = None) -> Iterator[Episode]:
    """Whole episodes of `task` until `steps` transitions are recorded; one that has as many by itself is cut there.

    Args:
        policy: of what the caller controls. `random` is uniform over actions, `mixed` draws one of the task's behaviours
            for each episode, the name of one (as `goal`) is that, `expert` is the task's own, and the path of a zip is a
            policy that Stable-Baselines3 saved, a file that may run code: name only those that you trust. By default
            `mixed` where there are behaviours, else `random`.

    Raises:
        ValueError: the task has nothing to act by so; or as `record_episode`.
        FileNotFoundError: there is no such zip.
    """
    return iter(Recording(task, steps, seed, policy))


class Recording:
    """The episodes of `record_episodes`, which can be gone on with after any of them.

    Args:
        task, steps, seed, policy: as `record_episodes`, and so what is raised.

    Attributes:
        recorded: transitions so far.
    """

    def __init__(self, task: gym.Env, steps: int, seed: int, policy: str | None = None) -> None:
        self.task, self.steps, self.recorded = task, steps, 0
        self.rng = np.random.default_rng(seed)
        self.act = make_policy(task, policy, self.rng)

    def __iter__(self) -> Iterator[Episode]:
        """The episodes that are still to come."""
        while self.recorded < self.steps:
            episode = record_episode(self.task, int(self.rng.integers(2**31)), self.act, self.steps)
            self.recorded += len(episode.actions)
            yield episode

    def state_dict(self) -> Json:
        """What decides the next episodes, which begin with a seed each: generators between two episodes."""
        space = self.task.action_space.np_random.bit_generator.state
        return {"recorded": self.recorded, "rng": self.rng.bit_generator.state, "space": space}

    def load_state_dict(self, state: Json) -> None:
        """Go on from there.

        Raises:
            ValueError, TypeError, KeyError: it is no such state.
        """
        self.rng.bit_generator.state = state["rng"]
        self.task.action_space.np_random.bit_generator.state = state["space"]
        self.recorded = state["recorded"]


def record_labels(task: gym.Env, budget: int, seed: int) -> LabelledTransitions:
    """Half of the budget as video is recorded, half seeking the goal where the task can: rewards are rarer than actions.

    Raises:
        ValueError: the task's actions are none of those of `ActionSpace.from_gym`.
    """
    actions, half, rest = ActionSpace.from_gym(task.action_space), budget // 2, budget - budget // 2
    mixed = LabelledTransitions.from_episodes(record_episodes(task, half, seed), half, actions)
    seeking = "goal" if "goal" in behaviors(task) else None
    return mixed + LabelledTransitions.from_episodes(
        record_episodes(task, rest, seed + 1, seeking), rest, actions
    )


def record_episode(task: gym.Env, seed: int, act: Act, limit: int = 10**9) -> Episode:
    """One episode of `task` from `reset(seed=seed)`, of `limit` steps at most, acted by `act(frame) -> action`.

    Raises:
        ValueError: actions are of a space that is no array; or the fields of `info["truth"]`, or their shapes, differ from
            step to step.
    """
    space = task.action_space
    if space.shape is None or space.dtype is None:
        raise ValueError(
            f"actions of {task} are {space}; allowed are Discrete, Box, MultiDiscrete and MultiBinary"
        )
    frame, info = task.reset(seed=seed)
    if hasattr(act, "begin"):
        act.begin()
    frames, infos = [frame], [info]
    actions: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated) and len(actions) < limit:
        actions.append(act(frame))
        frame, reward, terminated, truncated, info = task.step(actions[-1])
        frames.append(frame)
        infos.append(info)
        rewards.append(float(reward))
    terminations = np.zeros(len(actions), bool)
    terminations[-1] = terminated
    return Episode(
        np.stack(frames),
        np.array(actions, space.dtype),
        np.array(rewards, np.float32),
        terminations,
        _entities(infos),
        seed,
    )


def _entities(infos: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The recorded truth of the entities, stacked over an episode: the task's `truth`, and MultiGrid's `entities`."""
    truth = Truth.stack([info["truth"] for info in infos]).arrays() if "truth" in infos[0] else {}
    cells = {key: np.stack([info["entities"][key] for info in infos]) for key in infos[0].get("entities", {})}
    return truth | cells
