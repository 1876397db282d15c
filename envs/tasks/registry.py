"""The record of each task, and where tasks come from: the files of this folder, and other packages.

A task is one file of this folder that holds `TASKS`, its records. Another package brings its own by an entry point of
the group `flam_rl.tasks`, whose name is the task's id: in its setup.cfg

    [options.entry_points]
    flam_rl.tasks =
        other/Slide-v0 = other.slide:TASK

Nothing of such a package is imported before its task is made. The files of this folder import no sim before that either.
"""

from __future__ import annotations

import importlib
import logging
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

import gymnasium as gym

from ...types import Json

GROUP = "flam_rl.tasks"
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Task:
    """A task, as the file that it is in says. Called with arguments, it makes the env.

    Attributes:
        id: gymnasium id.
        entry_point: `module:Class` of the env; imported when the first one is made.
        install: what pip installs its sim by, as `flam_rl[pucks]`.
        kwargs: arguments that belong to the id; others of the constructor are the caller's.
        behaviors: names that the env's `make_behavior(name, rng)` takes; it returns a function that gives the next
            action of what the caller controls. Recording draws one for each episode.
        expert: whether the env has `expert_action()`, the next action of one that solves the task.
        actions: names of the `Discrete` actions, in their order; empty where actions are others.
        keys: what a person presses for an action, by the names that browsers give to keys.
        variants: arguments by name, for suites that measure on several.
    """

    id: str
    entry_point: str
    install: str
    kwargs: Json = field(default_factory=dict)
    behaviors: tuple[str, ...] = ()
    expert: bool = False
    actions: tuple[str, ...] = ()
    keys: Mapping[str, int] = field(default_factory=dict)
    variants: Mapping[str, Json] = field(default_factory=dict)

    def __call__(self, **kwargs: Any) -> gym.Env:
        """Make the task."""
        module, name = self.entry_point.split(":")
        return getattr(importlib.import_module(module), name)(**{**self.kwargs, **kwargs})

    def sim(self, module: str) -> ModuleType:
        """A module of the task's sim, imported.

        Raises:
            ImportError: it is missing; the message has the line that installs it.
        """
        try:
            return importlib.import_module(module)
        except ImportError as error:
            package = module.split(".")[0]
            raise ImportError(
                f"{self.id} needs the package {package}: pip install '{self.install}'"
            ) from error


_tasks: dict[str, Task] = {}


def register(task: Task) -> None:
    """Let `gymnasium.make(task.id)` make a task, and `find` know it: for a file that is in no package."""
    _tasks[task.id] = task
    gym.register(task.id, entry_point=task.entry_point, kwargs=task.kwargs)


def register_all() -> None:
    """Register the tasks of this folder and those that other packages bring; `import flam_rl` calls it."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(importlib.import_module(package).__path__):
        for task in getattr(importlib.import_module(f"{package}.{module.name}"), "TASKS", ()):
            register(task)
    for point in entry_points(group=GROUP):
        try:
            gym.register(point.name, entry_point=point.value)
        except gym.error.Error as error:
            logger.warning("the entry point %r of %s is left out: %s", point.name, GROUP, error)


def is_known(id: str) -> bool:
    """Whether flam_rl or an installed package brings this task, so that to make it runs no code of a stranger."""
    return id in _tasks or id in entry_points(group=GROUP).names


def find(id: str) -> Task | None:
    """The record of a task; None for an id of gymnasium that has none.

    Raises:
        ValueError: what another package brings under this id is no `Task` of this id.
    """
    if id in _tasks:
        return _tasks[id]
    for point in entry_points(group=GROUP, name=id):
        task = point.load()
        if not isinstance(task, Task) or task.id != id:
            raise ValueError(f"the entry point {id!r} of {GROUP} is {task!r}; allowed is a Task of this id")
        return task
    return None
