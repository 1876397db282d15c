"""The real task of a world or a data set: made only where it is known whose code that runs."""

from __future__ import annotations

import importlib
import logging
import os
import shlex
import sys

import gymnasium as gym
import numpy as np

from ..actions import ActionSpace
from ..envs.frames import Frames, shows_frames
from ..envs.tasks.registry import is_known
from ..types import FitName, Json

SUITES = {
    "ALE/": ("ale_py", "atari"),
    "MiniGrid-": ("minigrid", "minigrid"),
    "BabyAI-": ("minigrid", "minigrid"),
}
SUITES |= {
    f"{name}-": ("highway_env", "highway")
    for name in ("highway", "merge", "roundabout", "intersection", "exit", "parking", "racetrack", "two-way")
}
"""What registers the ids with a prefix: a package, and the extra that installs it."""
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
    if found and is_known(found):
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


def make_task(task: str, kwargs: Json) -> gym.Env:
    """The task of a gymnasium id, with uint8 frames `(H, W, 3)` as observations: its own, or what it renders.

    Args:
        task: may name a module to import first, as `mymodule:My-v0`, which may lie in the present folder.

    Raises:
        ValueError: it is not registered or not installed, does not take these arguments, or renders no rgb.
    """
    try:
        _import_suite(task)
        env = gym.make(task, **kwargs)
        if shows_frames(env):
            return env
        if env.render_mode != "rgb_array":
            if "rgb_array" not in env.metadata.get("render_modes", ()):
                raise ValueError(
                    f"its observations are {env.observation_space}, and it does not render 'rgb_array'"
                )
            env.close()
            env = gym.make(task, **{**kwargs, "render_mode": "rgb_array"})
        return Frames(env)
    except (gym.error.Error, ImportError, TypeError, ValueError) as error:
        raise ValueError(f"the task {task!r} with {kwargs} cannot be made: {error}") from error


def _import_suite(task: str) -> None:
    """Import what registers a task that the user named.

    Raises:
        ImportError: it is a known suite that is not installed.
    """
    if ":" in task and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    if task in gym.registry:
        return
    for prefix, (package, extra) in SUITES.items():
        if task.startswith(prefix):
            try:
                importlib.import_module(package)
            except ImportError as error:
                raise ImportError(
                    f"it needs the package {package}: pip install 'flam_rl[{extra}]'"
                ) from error


def fitted(task: gym.Env, frame_shape: tuple[int, ...], fit: FitName = "letterbox") -> gym.Env:
    """`task` with its frames fitted to `(H, W, 3)`, as those of its video were for training.

    One whose frames are made of tiles stays as it is: what reads tiles in imagined frames needs them whole.
    """
    if task.observation_space.shape == frame_shape or hasattr(task.unwrapped, "tiles"):
        return task
    return Frames(task, frame_shape[0], frame_shape[1], fit)


def misfit(task: gym.Env, frame_shape: tuple[int, ...]) -> str | None:
    """Why a world of such frames `(H, W, 3)` cannot be acted in on `task`, or None if it can."""
    seen = task.observation_space
    if seen.shape != frame_shape or seen.dtype != np.uint8:
        return f"its observations are {seen}; allowed are uint8 frames of {frame_shape}"
    try:
        ActionSpace.from_gym(task.action_space)
    except ValueError as error:
        return f"its {error}"
    return None
