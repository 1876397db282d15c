"""A world's config.json: what it may hold, and the networks that it describes."""

from __future__ import annotations

import reprlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..actions import ActionSpace
from ..types import check_ranges
from .adapters import make_adapter
from .agent import AgentFinder, Agents
from .heads import DenseHead, EventHead, Labels
from .info import WorldInfo
from .model import Model
from .registry import ModelName, kind_of
from .world import World

VERSION = 4
MOST_BYTES = 2**20
"""Bytes that a config.json may have."""


@dataclass(frozen=True)
class AgentSettings:
    """Whom a task's actions move."""

    actions: ActionSpace
    factors: tuple[int, ...]
    """Of each agent its own, or its place."""
    numbers: tuple[tuple[int, ...], ...]
    """Which numbers of an action are each agent's."""
    differ: bool
    """Whether the agents' factors differ by episode."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number of an action is no agent's or of several, or an agent has none.
        """
        given = sorted(number for numbers in self.numbers for number in numbers)
        whole = given == list(range(self.actions.size))
        if not whole or not all(self.numbers) or len(self.numbers) != len(self.factors):
            raise ValueError(
                f"numbers is {self.numbers}; allowed are 0 to {self.actions.size - 1}, each once, one or more for each of "
                f"{len(self.factors)} agents"
            )

    @classmethod
    def from_agents(cls, agents: Agents) -> AgentSettings:
        """What to save of `agents`."""
        return cls(agents.actions, agents.factors, agents.numbers, agents.differ)

    def check_factors(self, factors: int) -> None:
        """
        Raises:
            ValueError: an agent's factor is none of `factors`.
        """
        _check_factors("factors", self.factors, factors)

    def make(self, factor_dim: int, latent_action_dim: int) -> Agents:
        """The networks, with weights that mean nothing yet."""
        parts = [self.actions.part(numbers) for numbers in self.numbers]
        return Agents(
            self.actions,
            self.factors,
            self.numbers,
            [make_adapter(factor_dim, latent_action_dim, part) for part in parts],
            [AgentFinder(factor_dim) for _ in parts] if self.differ else [],
        )


@dataclass(frozen=True)
class LabelSettings:
    """What config.json holds of a world's labels."""

    agents: AgentSettings
    budget: int
    reward: Literal["event", "dense"]
    reward_sees: tuple[int, ...]
    termination_sees: tuple[int, ...]

    def __post_init__(self) -> None:
        check_ranges(self, budget=(1, 2**63))

    @classmethod
    def from_labels(cls, labels: Labels) -> LabelSettings:
        """What to save of `labels`."""
        sees = (tuple(head.sees.tolist()) for head in (labels.reward, labels.termination))
        reward: Literal["event", "dense"] = "dense" if isinstance(labels.reward, DenseHead) else "event"
        return cls(AgentSettings.from_agents(labels.agents), labels.budget, reward, *sees)

    def check_factors(self, factors: int) -> None:
        """
        Raises:
            ValueError: a label is of a factor that is none of `factors`.
        """
        _check_factors("labels.agents.factors", self.agents.factors, factors)
        _check_factors("labels.reward_sees", self.reward_sees, factors)
        _check_factors("labels.termination_sees", self.termination_sees, factors)


def _check_factors(name: str, indices: tuple[int, ...], factors: int) -> None:
    if not indices or len(set(indices)) < len(indices) or not set(indices) <= set(range(factors)):
        raise ValueError(f"{name} is {list(indices)}; allowed are factors 0 to {factors - 1}, each once")


Settings = TypeVar("Settings")


@dataclass(frozen=True)
class WorldConfig(Generic[Settings]):
    """config.json, field by field; the settings are those of the model's kind."""

    version: int
    model: ModelName
    settings: Settings
    info: WorldInfo = field(compare=False)  # makes no network another
    labels: LabelSettings | None

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def from_world(cls, world: World) -> WorldConfig:
        """What to save of `world`."""
        labels = None if world.labels is None else LabelSettings.from_labels(world.labels)
        kind = cast(ModelName, world.model.kind)
        return cls(VERSION, kind, world.model.settings, world.info, labels)

    def make(self) -> tuple[Model, Labels | None]:
        """The networks, with weights that mean nothing yet; on the meta device they take no memory.

        Raises:
            ValueError: settings that do not go together.
        """
        model = kind_of(self.model).make(self.settings)
        return model, None if self.labels is None else self._make_labels(self.labels, model)

    def _make_labels(self, labels: LabelSettings, model: Model) -> Labels:
        labels.check_factors(model.factors)
        dim = model.factor_dim
        return Labels(
            labels.agents.make(dim, model.latent_action_dim),
            DenseHead(dim, labels.reward_sees)
            if labels.reward == "dense"
            else EventHead(dim, labels.reward_sees, 0.0),
            EventHead(dim, labels.termination_sees, 0.0),
            labels.budget,
        )


@dataclass(frozen=True)
class _Version:
    version: int

    __pydantic_config__ = ConfigDict(strict=True)


@dataclass(frozen=True)
class _Named:
    model: ModelName

    __pydantic_config__ = ConfigDict(strict=True)


def read_config(path: Path) -> WorldConfig:
    """
    Raises:
        ValueError: a field is missing, unknown, of another type or out of its range; says which, what was found and
            what is allowed.
    """
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ValueError(f"is of {size} bytes; allowed are {MOST_BYTES}")
    text = path.read_bytes()
    version = _decode(_Version, text).version  # first: what else there is depends on it
    if version != VERSION:
        raise ValueError(f"version {version}, this flam_rl reads {VERSION}")
    settings = kind_of(_decode(_Named, text).model).settings
    config: WorldConfig = _decode(WorldConfig[settings], text)  # type: ignore[valid-type]
    return config


def _decode(kind: Any, text: bytes) -> Any:
    """`text` as an instance of the dataclass `kind`."""
    try:
        return _adapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        where = ".".join(map(str, first["loc"])) or "the whole"
        wrong = {
            "unexpected_keyword_argument": "no field of this name is allowed",
            "missing": "the field is missing",
        }.get(first["type"], first["msg"])
        raise ValueError(f"{where}: {wrong}; found {reprlib.repr(first['input'])}") from error


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)
