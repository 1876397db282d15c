"""ActionAdapter: latent action of the agent's factor <-> real action, from a label budget."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

from ..core.agent import Agents
from ..core.config import AgentSettings
from ..core.heads import Labels
from ..core.weights import fill
from ..core.world import World
from ..files import written_whole
from ..types import LabelledTransitions, check_ranges
from .adapter_fitting import fit_agents
from .reward import fit_event_head, fit_reward_head


@dataclass(frozen=True)
class ActionAdapter:
    """Whom actions move, and what latent actions are in real ones.

    Attributes:
        agents: the agent, or several agents that each have a part of each action. An agent's factor is the one whose latent
            action predicts the labelled actions best; the agent's network sees that factor as context.
        explained: how much of the held-out labelled actions each factor's network explains, `(K,)`: for discrete actions the
            share of their entropy (McFadden's R^2), for a box the share of their variance (R^2); 1 is all. With several
            agents, the network of an agent's factor is measured on that agent's part of the actions.
        accuracy: share of held-out labelled actions that each factor's network predicts right in every number, `(K,)`;
            empty for a box.
        budget: how many labelled transitions were read.
    """

    agents: Agents
    explained: tuple[float, ...]
    accuracy: tuple[float, ...]
    budget: int

    @classmethod
    def fit(
        cls,
        world: World,
        labelled: LabelledTransitions,
        budget: int = 1000,
        seed: int = 0,
    ) -> ActionAdapter:
        """Fit an adapter for each factor to a part of the labels, choose the one that is best on the rest, and refit it to all labels.

        Args:
            budget: how many transitions may be read; `labelled` must hold no more.

        Raises:
            ValueError: `labelled` holds more transitions than `budget`, or actions that tell nothing apart.
        """
        return _fit(world, labelled, budget, seed)[0]

    @property
    def summary(self) -> str:
        """One line: which factors are the agents', and how well their adapters predict actions."""
        factors, several = self.agents.factors, len(self.agents) > 1
        named, its = ", ".join(map(str, factors)), "their adapters" if several else "its adapter"
        if self.agents.differ:
            who = f"the factors of {len(factors)} agents differ" if several else "the agent's factor differs"
            return f"{who} by episode; brought to place {named}"
        who = (
            f"{len(factors)} agents have the factors {named}" if several else f"the agent's factor is {named}"
        )
        shares = self.accuracy or self.explained
        figures = ", ".join(f"{shares[factor]:.3f}" for factor in factors)
        if not self.accuracy:
            return (
                f"{who}; {its} {'explain' if several else 'explains'} {figures} of held-out actions' variance"
            )
        return f"{who}; held-out accuracy of {its} {figures}"

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file, in place only when whole."""
        path = Path(path)
        about = _About(AgentSettings.from_agents(self.agents), self.explained, self.accuracy, self.budget)
        tensors = self.agents.state_dict()
        state = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
        with written_whole(path) as scratch:
            scratch.write_bytes(save(state, {"adapter": json.dumps(asdict(about))}))

    @classmethod
    def load(cls, path: str | os.PathLike[str], world: World) -> ActionAdapter:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing, truncated, or does not fit `world`: says what was found and what is allowed.
        """
        try:
            with safe_open(path, "pt") as file:
                about = _ABOUT.validate_json((file.metadata() or {}).get("adapter", "{}"))
                about.check(world)
                agents = about.agents.make(world.factor_dim, world.latent_action_dim).float()
                fill(agents, {key: file.get_tensor(key) for key in file.keys()})  # noqa: SIM118
        except (OSError, SafetensorError, ValidationError, ValueError, RuntimeError) as error:
            raise ValueError(f"{path}: not an adapter for this world ({error})") from error
        return cls(agents.requires_grad_(False), about.explained, about.accuracy, about.budget)


@dataclass(frozen=True)
class _About:
    """The metadata of an adapter's file, beside its tensors."""

    agents: AgentSettings
    explained: tuple[float, ...]
    accuracy: tuple[float, ...]
    budget: int

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)

    def __post_init__(self) -> None:
        check_ranges(self, budget=(1, 2**63))

    def check(self, world: World) -> None:
        """
        Raises:
            ValueError: the number of factors differs from the world's, or a figure is above 1 (an accuracy: outside 0..1).
        """
        self.agents.check_factors(world.factors)
        wanted = 0 if self.agents.actions.kind == "box" else world.factors
        if len(self.explained) != world.factors or len(self.accuracy) != wanted:
            raise ValueError(
                f"explained is of {len(self.explained)} factors, accuracy of {len(self.accuracy)}; allowed are "
                f"{world.factors} and {wanted}"
            )
        if not all(0 <= share <= 1 for share in self.accuracy) or max(self.explained) > 1:
            raise ValueError(f"accuracy is {self.accuracy}, explained {self.explained}; allowed is 1 at most")


_ABOUT = TypeAdapter(_About)


def fit_labels(
    world: World, labelled: LabelledTransitions, budget: int = 1000, seed: int = 0
) -> tuple[Labels, ActionAdapter]:
    """Fit everything that labels add to a world: `world.labels = fit_labels(world, labelled)[0]`.

    Raises:
        ValueError: as `ActionAdapter.fit`.
    """
    adapter, data = _fit(world, labelled, budget, seed)
    places = adapter.agents.factors
    usual = adapter.agents.in_place(world.model.scenes(world.stored_starts).factors)
    reward = fit_reward_head(world, data, usual, places, seed)
    termination = fit_event_head(world, data, usual, data["termination"], 1.0, places, seed)
    return Labels(adapter.agents, reward, termination, adapter.budget), adapter


def _fit(
    world: World, labelled: LabelledTransitions, budget: int, seed: int
) -> tuple[ActionAdapter, dict[str, torch.Tensor]]:
    """The adapter, and the labelled transitions as `fit_agents` gives them.

    Raises:
        ValueError: as `ActionAdapter.fit`.
    """
    if len(labelled) > budget:
        raise ValueError(f"{len(labelled)} labelled transitions given, but the budget is {budget}")
    fitted = fit_agents(world, labelled, seed)
    return ActionAdapter(fitted.agents, fitted.explained, fitted.accuracy, len(labelled)), fitted.data
