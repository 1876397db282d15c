"""The real task of a world or a data set: made only where it is known whose code that runs."""

from __future__ import annotations

import logging
import shlex

import gymnasium as gym
import numpy as np

from ..actions import ActionSpace
from ..types import Json

logger = logging.getLogger(__name__)


def find_task(
    found: str, kwargs: Json, named: str | None, whose: str, needed: bool = False
) -> gym.Env | None:
    """The task that the user named, or else the one that a world or a data set names, or None with a warning.

    To make a task is to import the module that it is in and to run it, and a world or a data set may be anyone's. So
    what it names is made only where that is one of flam_rl's own; any other must be named by the user.

    Args:
        found: gymnasium id that is named there, empty if none is. kwargs: its arguments, used for `named` too.
        named: gymnasium id by the user, `--task`.
        whose: who names `found`, for messages.
        needed: raise instead of warning.

    Raises:
        ValueError: there is no task and it is needed, or it cannot be made.
    """
    if named:
        return make_task(named, kwargs)
    if found and is_own(found):
        return make_task(found, kwargs)
    reason = f"{whose} names no task"
    if found:
        reason = (
            f"{whose} names the task {found!r} with {kwargs}, which is not flam_rl's own: making it would run code "
            f"that you have not named; --task {shlex.quote(found)} allows it"
        )
    if needed:
        raise ValueError(reason)
    if found:
        logger.warning("%s; going on without it", reason)
    return None


def is_own(task: str) -> bool:
    """Whether a gymnasium id is one that flam_rl registers."""
    spec = gym.registry.get(task)
    return spec is not None and spec.namespace == "flam_rl"


def make_task(task: str, kwargs: Json) -> gym.Env:
    """
    Raises:
        ValueError: it is not registered or not installed, or does not take these arguments.
    """
    try:
        return gym.make(task, **kwargs)
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"the task {task!r} with {kwargs} cannot be made: {error}") from error


def misfit(task: gym.Env, frame_shape: tuple[int, ...]) -> str | None:
    """Why a world of such frames `(H, W, 3)` cannot be acted in on `task`, or None if it can."""
    seen = task.observation_space
    if seen.shape != frame_shape or seen.dtype != np.uint8:
        return f"its observations are {seen}; allowed are uint8 frames of {frame_shape}"
    try:
        ActionSpace.of(task.action_space)
    except ValueError as error:
        return f"its {error}"
    return None
