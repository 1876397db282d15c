"""Who acts when a task is recorded: chance, the task's own behaviours and expert, or a saved policy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from .registry import find

Act = Callable[[np.ndarray], Any]
"""The next action for what a task shows."""


def check_policy(task: gym.Env, policy: str | None) -> str:
    """The policy that `policy` names on `task`; None is `mixed` where the task has behaviours, else `random`.

    Raises:
        ValueError: the task has nothing to act by so.
        FileNotFoundError: it is a saved policy that is not there.
    """
    own = behaviors(task)
    names = (["mixed", *own] if own else []) + (
        ["expert"] if hasattr(task.unwrapped, "expert_action") else []
    )
    names = list(dict.fromkeys(["random", *names]))
    if policy is None:
        return "mixed" if own else "random"
    if policy.endswith(".zip"):
        if not Path(policy).is_file():
            raise FileNotFoundError(f"the policy {policy} is not there")
    elif policy not in names:
        raise ValueError(
            f"the policy is {policy!r}; on {task} allowed are {', '.join(names)}, or a Stable-Baselines3 zip"
        )
    return policy


def make_policy(task: gym.Env, policy: str | None, rng: np.random.Generator) -> Act:
    """A function that acts by `policy` (as `record_episodes` takes it), with random choices from `rng`.

    Raises:
        ValueError, FileNotFoundError: as `check_policy`; or a saved policy was trained on other spaces.
    """
    policy = check_policy(task, policy)
    inner: Any = task.unwrapped
    space: Any = task.action_space
    if policy.endswith(".zip"):
        return _saved(task, policy)
    if policy == "expert":
        return lambda frame: inner.expert_action()
    if policy == "mixed":
        return _Behave(inner, rng, behaviors(task))
    if policy != "random":
        return _Behave(inner, rng, (policy,))
    if isinstance(space, gym.spaces.Discrete):
        return lambda frame: int(space.start + rng.integers(space.n))
    space.seed(int(rng.integers(2**31)))
    return lambda frame: space.sample()


def behaviors(task: gym.Env) -> tuple[str, ...]:
    """Names of the behaviours that a task brings."""
    record = find(task.spec.id) if task.spec else None
    return record.behaviors if record else ()


class _Behave:
    """The caller's entity acting by a behaviour drawn, out of `names`, at the start of each episode."""

    def __init__(self, task: Any, rng: np.random.Generator, names: Sequence[str]) -> None:
        self.task, self.rng, self.names = task, rng, names

    def begin(self) -> None:
        self.behavior = self.task.make_behavior(self.names[int(self.rng.integers(len(self.names)))], self.rng)

    def __call__(self, frame: np.ndarray) -> Any:
        return self.behavior()


def _saved(task: gym.Env, path: str) -> Act:
    """A policy that Stable-Baselines3 saved, acting on the task's own observations, without exploring."""
    from stable_baselines3.common.policies import ActorCriticPolicy
    from stable_baselines3.common.save_util import load_from_zip_file

    data, weights, _ = load_from_zip_file(path, device="cpu")
    if not data or "policy_class" not in data or "policy" not in weights:
        raise ValueError(
            f"{path} holds no policy; allowed is what the save() of a Stable-Baselines3 model wrote"
        )
    kwargs = {"use_sde": data["use_sde"]} if issubclass(data["policy_class"], ActorCriticPolicy) else {}
    kwargs |= {name: value for name, value in data["policy_kwargs"].items() if name != "device"}
    seen, does = data["observation_space"], data["action_space"]
    policy = data["policy_class"](seen, does, lambda _: 0.0, **kwargs)
    policy.load_state_dict(weights["policy"])
    policy.set_training_mode(False)
    frames = task.has_wrapper_attr("own_observation")
    own = task.get_wrapper_attr("own_observation_space") if frames else task.observation_space
    try:
        policy.predict(own.sample())
    except (ValueError, TypeError, AssertionError) as error:
        raise ValueError(f"{path} was trained on observations {seen}; those of {task} are {own}") from error
    if does != task.action_space:
        raise ValueError(f"{path} was trained on actions {does}; those of {task} are {task.action_space}")

    def act(frame: np.ndarray) -> Any:
        observation = task.get_wrapper_attr("own_observation") if frames else frame
        action = policy.predict(observation, deterministic=True)[0]
        return action.item() if isinstance(does, gym.spaces.Discrete) else action

    return act
