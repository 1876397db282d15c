"""Record episodes of a task: what `flam-rl collect` stores and what evaluation looks at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from ...actions import ActionSpace
from ...types import Episode, LabelledTransitions, Truth
from .behaviors import BEHAVIORS, BehaviorName

PolicyName = Literal["mixed", "goal", "random", "expert"]


def record_episodes(task: gym.Env, steps: int, seed: int, policy: PolicyName = "mixed") -> Iterator[Episode]:
    """Whole episodes of `task` until `steps` transitions are recorded.

    Args:
        policy: of the caller's agent. `mixed` draws one of the behaviours for each episode, `goal` is the
            one that seeks the goal, `random` is uniform over actions, `expert` the task's own.

    Raises:
        ValueError: `policy` is none of these, or the task has nothing to act by so.
    """
    rng = np.random.default_rng(seed)
    recorded = 0
    while recorded < steps:
        episode = record_episode(task, int(rng.integers(2**31)), _make_policy(task, policy, rng))
        recorded += len(episode.actions)
        yield episode


def record_labels(task: gym.Env, budget: int, seed: int) -> LabelledTransitions:
    """Half of the budget as video is recorded, half seeking the goal: rewards are rarer than actions.

    Raises:
        ValueError: the task's actions are none of those of `ActionSpace.of`.
    """
    actions, half, rest = ActionSpace.of(task.action_space), budget // 2, budget - budget // 2
    mixed = LabelledTransitions.of(record_episodes(task, half, seed), half, actions)
    return mixed + LabelledTransitions.of(record_episodes(task, rest, seed + 1, "goal"), rest, actions)


def record_episode(task: gym.Env, seed: int, act: Callable[[np.ndarray], Any]) -> Episode:
    """One episode of `task` from `reset(seed=seed)`, acted by `act(frame) -> action`.

    Raises:
        ValueError: the fields of `info["truth"]`, or their shapes, differ from step to step.
    """
    frame, info = task.reset(seed=seed)
    if hasattr(act, "begin"):
        act.begin()
    frames, infos = [frame], [info]
    actions: list[Any] = []
    rewards: list[float] = []
    terminated = truncated = False
    while not (terminated or truncated):
        actions.append(act(frame))
        frame, reward, terminated, truncated, info = task.step(actions[-1])
        frames.append(frame)
        infos.append(info)
        rewards.append(float(reward))
    terminations = np.zeros(len(actions), bool)
    terminations[-1] = terminated
    return Episode(
        np.stack(frames),
        np.array(actions),
        np.array(rewards, np.float32),
        terminations,
        _entities(infos),
        seed,
    )


def _entities(infos: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """What the task told of its entities, stacked over an episode: its `truth`, else MultiGrid's `entities`."""
    if "truth" in infos[0]:
        return Truth.stack([info["truth"] for info in infos]).arrays()
    return {key: np.stack([info["entities"][key] for info in infos]) for key in infos[0].get("entities", {})}


class _Behave:
    """The caller's agent acting by a behaviour drawn, out of `names`, at the start of each episode."""

    def __init__(self, task: gym.Env, rng: np.random.Generator, names: Sequence[BehaviorName]) -> None:
        self.task: Any = task.unwrapped
        self.rng, self.names = rng, names

    def begin(self) -> None:
        self.behavior = self.task.make_behavior(self.names[int(self.rng.integers(len(self.names)))], self.rng)

    def __call__(self, frame: np.ndarray) -> Any:
        return self.behavior()


def check_policy(task: gym.Env, policy: PolicyName) -> None:
    """
    Raises:
        ValueError: `task` has nothing to act by so.
    """
    needs = {"mixed": "make_behavior", "goal": "make_behavior", "expert": "expert_action"}.get(policy)
    if needs and not hasattr(task.unwrapped, needs):
        raise ValueError(
            f"the policy {policy!r} needs a task with {needs}(); {task} has none, only 'random' works"
        )


def _make_policy(task: gym.Env, policy: PolicyName, rng: np.random.Generator) -> Callable[[np.ndarray], Any]:
    check_policy(task, policy)
    inner: Any = task.unwrapped
    space: Any = task.action_space
    if policy == "mixed":
        return _Behave(task, rng, BEHAVIORS)
    if policy == "goal":
        return _Behave(task, rng, ("goal",))
    if policy == "random" and isinstance(space, gym.spaces.Discrete):
        return lambda frame: int(rng.integers(space.n))
    if policy == "random":
        space.seed(int(rng.integers(2**31)))
        return lambda frame: space.sample()
    if policy == "expert":
        return lambda frame: inner.expert_action()
    raise ValueError(f"policy is {policy!r}; allowed are 'mixed', 'goal', 'random' and 'expert'")
