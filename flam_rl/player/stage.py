"""What all visitors of a world share: the world, its keys, and the threads that step it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from functools import lru_cache
from typing import TypeVar

import gymnasium as gym
import torch

from ..core.stepping import Stepper
from ..core.threads import LoneThreads
from ..core.world import World
from ..envs.tasks.registry import find
from ..types import Json
from .keys import Keys, agents_of

THREADS = 2
"""That step and draw worlds, a core each, however many visitors there are."""
STEPPERS = 16
"""That are kept, one for each choice of controlled latent actions; each has a copy of the weights."""
T = TypeVar("T")


class Stage:
    """A world on which visitors play, each with a state of its own.

    Args:
        make_task: makes the real task behind the world's frames, one for each visitor who asks; None where there is none.
        name: of the world, for people.
    """

    def __init__(self, world: World, name: str, make_task: Callable[[], gym.Env] | None = None) -> None:
        self.world, self.name, self.make_task = world, name, make_task
        self.keys = Keys(world)
        self.starts = world.starts()
        self.fingerprint = _fingerprint(world)
        self.agents = agents_of(world)
        self.stepper: Callable[[tuple[int, ...]], Stepper] = lru_cache(STEPPERS)(self._stepper)
        self._threads = LoneThreads(THREADS)

    async def run(self, function: Callable[[], T]) -> T:
        """`function()` on one of the threads, without gradients."""

        def alone() -> T:
            with torch.inference_mode():
                return self._threads.run(function)

        return await asyncio.to_thread(alone)

    def action_names(self, action: torch.Tensor) -> list[str]:
        """What each agent does in a real action, in words."""
        assert self.world.labels is not None
        agents, record, found = self.world.labels.agents, find(self.world.info.task), []
        names = record.actions if record is not None and agents.actions.kind == "discrete" else ()
        for numbers in agents.numbers:
            part = action.flatten()[list(numbers)].tolist()
            single = part[0] if len(part) == 1 else None
            found.append(
                names[single] if names and single is not None else str(part if single is None else single)
            )
        return found

    @property
    def facts(self) -> Json:
        """What a page needs to know of the world once."""
        height, width = self.world.frame_size
        return {
            "world": self.name,
            "height": height,
            "width": width,
            "factors": self.world.factors,
            "latent_actions": self.world.latent_actions,
            "agents": self.agents,
            "task": self.world.info.task if self.make_task else "",
            "labels": self.world.labels is not None,
            "starts": len(self.starts.factors),
            "keys": [[{"slot": key.slot, "name": key.name} for key in keys] for keys in self.keys.by_action],
        }

    def _stepper(self, controlled: tuple[int, ...]) -> Stepper:
        return self.world.imagination(list(controlled), events=True)


def _fingerprint(world: World) -> str:
    """The same for the same weights and starts."""
    seen = hashlib.sha256()
    for name, tensor in sorted((world.state_dict() | world.stored_starts).items()):
        seen.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        seen.update(tensor.cpu().numpy().tobytes())
    return seen.hexdigest()[:16]
