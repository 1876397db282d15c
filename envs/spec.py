"""The spec of FLAM-v0, which JSON can hold whatever the env was made with."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from gymnasium.envs.registration import EnvSpec

from ..core.checkpoint import load_world
from ..core.world import World


class Specified:
    """An env whose `spec`, which gymnasium sets, is a `FLAMSpec`."""

    _spec: FLAMSpec | None = None

    @property
    def spec(self) -> FLAMSpec | None:
        """How to make this env again."""
        return self._spec

    @spec.setter
    def spec(self, spec: EnvSpec | None) -> None:
        self._spec = None if spec is None else FLAMSpec.from_spec(spec)


@dataclass
class FLAMSpec(EnvSpec):
    """An env's spec; a `World` among its arguments goes into JSON as the name or folder that it comes from."""

    @classmethod
    def from_spec(cls, spec: EnvSpec) -> FLAMSpec:
        """`spec` as a `FLAMSpec`."""
        return cls(**{field.name: getattr(spec, field.name) for field in fields(spec) if field.init})

    def to_json(self) -> str:
        """As `EnvSpec.to_json`.

        Raises:
            ValueError: the env was made with a `World` that is in no folder, or differs from the one there.
        """
        kwargs = {key: _plain(value) for key, value in self.kwargs.items()}
        return EnvSpec.to_json(replace(self, kwargs=kwargs))


def _plain(value: Any) -> Any:
    """An argument of FLAM-v0 as JSON takes it."""
    if isinstance(value, World):
        return _source(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return value.tolist()
    if isinstance(value, list | tuple | range):
        return [_plain(one) for one in value]
    return value


def _source(world: World) -> str:
    """The name or folder that `load_world` loads this world from."""
    if not world.source:
        why = "in no folder"
    elif not _holds(world.source, world):
        why = f"no longer what {world.source} holds"
    else:
        return world.source
    raise ValueError(
        f"this env's world is {why}, so its spec cannot name it; save it with flam_rl.save_world, or give "
        "gym.make the name of a folder"
    )


def _holds(source: str, world: World) -> bool:
    try:
        return _alike(load_world(source), world)
    except (ValueError, OSError, ImportError):  # moved, deleted, damaged or out of reach
        return False


def _alike(one: World, other: World) -> bool:
    """Whether two worlds imagine the same."""
    tensors = [world.state_dict() | world.stored_starts for world in (one, other)]
    agents = [world.labels and world.labels.agents.factors for world in (one, other)]
    return (
        agents[0] == agents[1]
        and one.info.horizon == other.info.horizon
        and tensors[0].keys() == tensors[1].keys()
        and all(torch.equal(value.cpu(), tensors[1][key]) for key, value in tensors[0].items())
    )
