"""ActionAdapter: latent action of the agent's factor <-> real action, from a label budget."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..actions import ActionSpace
from ..core.adapters import Adapter, make_adapter
from ..core.agent import AgentFinder, Agents, in_order
from ..core.config import AgentSettings
from ..core.heads import Labels
from ..core.layers import first_least
from ..core.weights import fill
from ..core.world import World
from ..files import written_whole
from ..types import LabelledTransitions, check_ranges
from .agent import agents_by_episode, fit_finder, numbers_of_agents
from .fitting import fit_ensemble, held_out_episodes, known_rows, labelled_factors
from .reward import fit_event_head, fit_reward_head

STILL, LIVELY = 0.05, 0.8
"""Share of the mean square change of a factor in its livelier steps, this quantile of all, below which nothing happened to it."""
EQUAL = 0.01
"""Share of the actions explained by which a factor must be better than one before it to be the agent's."""


@dataclass(frozen=True)
class ActionAdapter:
    """Whom actions move, and what latent actions are in real ones.

    Attributes:
        agents: the agent, or several with a part of each action; an agent's factor is the one whose latent action tells its
            labelled actions best. Their networks have that factor as context.
        explained: how much of what held-out labelled actions hold each factor's network explains, `(K,)`: of discrete
            ones the share of their entropy (McFadden's R^2), of a box the share of their variance (R^2); 1 is all. Of
            several agents' factors it is about their own part of the actions.
        accuracy: share of held-out labelled actions that each factor's network gets right in each number, `(K,)`;
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
        """Fit one adapter a factor on part of the labels, keep the best on the rest, refit it on all.

        Args:
            budget: transitions that may be read; `labelled` must hold no more.

        Raises:
            ValueError: `labelled` holds more transitions than `budget`, or actions that tell nothing apart.
        """
        return _fit_adapter(world, labelled, budget, seed)[0]

    @property
    def summary(self) -> str:
        """Which factors are the agents', and how well their adapters tell actions, in a line."""
        factors, several = self.agents.factors, len(self.agents) > 1
        named, its = ", ".join(map(str, factors)), "their adapters" if several else "its adapter"
        if self.agents.differ:
            who = f"the factors of {len(factors)} agents differ" if several else "the agent's factor differs"
            return f"{who} by episode; brought to place {named}"
        who = (
            f"{len(factors)} agents have the factors {named}" if several else f"the agent's factor is {named}"
        )
        shares = self.accuracy or self.explained
        told = ", ".join(f"{shares[factor]:.3f}" for factor in factors)
        if not self.accuracy:
            return f"{who}; {its} {'explain' if several else 'explains'} {told} of held-out actions' variance"
        return f"{who}; held-out accuracy of {its} {told}"

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
    """What an adapter's file says beyond its tensors."""

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
            ValueError: it is of another number of factors than the world's, or a share is none.
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


def check_labels(labelled: LabelledTransitions) -> None:
    """What can be said before there is a world.

    Raises:
        ValueError: there are no labelled actions, or all of them are one.
    """
    parts = zip(labelled.actions, labelled.known, strict=True)
    actions = np.concatenate([actions[known[:, 0]] for actions, known in parts])
    if len(np.unique(actions.reshape(len(actions), -1), axis=0)) < 2:
        found = f"all {len(actions)} are {actions[0]}" if len(actions) else "there are none"
        raise ValueError(
            f"labels must hold two different actions or more, to tell which factor is the agent's; {found}"
        )


def fit_labels(
    world: World, labelled: LabelledTransitions, budget: int = 1000, seed: int = 0
) -> tuple[Labels, ActionAdapter]:
    """Everything that labels add to a world: `world.labels = fit_labels(world, labelled)[0]`.

    Raises:
        ValueError: as `ActionAdapter.fit`.
    """
    adapter, data = _fit_adapter(world, labelled, budget, seed)
    places = adapter.agents.factors
    usual = adapter.agents.in_place(world.model.scenes(world.stored_starts).factors)
    reward = fit_reward_head(world, data, usual, places, seed)
    termination = fit_event_head(world, data, usual, data["termination"], 1.0, places, seed)
    return Labels(adapter.agents, reward, termination, adapter.budget), adapter


def _fit_adapter(
    world: World, labelled: LabelledTransitions, budget: int, seed: int
) -> tuple[ActionAdapter, dict[str, torch.Tensor]]:
    """The adapter, and `labelled_factors` with the agents' factors at their places in each of them."""
    if len(labelled) > budget:
        raise ValueError(f"{len(labelled)} labelled transitions given, but the budget is {budget}")
    check_labels(labelled)
    everything, actions = labelled_factors(world, labelled), labelled.action_space
    data = known_rows(everything, 0)
    reader = make_adapter(world.factor_dim, world.latent_action_dim, actions).to(data["now"])
    reader.standardize(data["action"])
    parts = reader.encode(data["action"]).float().split(actions.widths, -1)
    found = []
    for numbers in numbers_of_agents(data, parts):
        part = actions.part(numbers)
        action = data["action"].reshape(len(data["action"]), -1)[:, numbers].view(-1, *part.shape)
        found.append(_find(world, data | {"action": action}, numbers, part, seed))
    agents = torch.stack([one.agent_N for one in found], 1)
    places, finders = [one.place for one in found], []
    if any(one.finder is not None for one in found):
        places = _places(agents, world.factors)
        finders = [one.finder or _finder_of(world, data, one.agent_N, seed) for one in found]
        everything = _in_place(everything, data["episode"], agents, places)
    # Of an agent's factor it is told how well its own adapter does, of others how well they would do for the first agent.
    tried = list(found[0].tried)
    for one, place in zip(found, places, strict=True):
        tried[place] = one.trial
    adapter = ActionAdapter(
        Agents(actions, places, [one.numbers for one in found], [one.net for one in found], finders),
        tuple(trial.explained for trial in tried),
        tuple(trial.accuracy for trial in tried if trial.accuracy is not None),
        len(labelled),
    )
    return adapter, everything


class _Found(NamedTuple):
    """An agent, as labels tell it.

    Attributes:
        numbers: which numbers of an action are its. net: its adapter.
        place: its factor, with a `finder` the most frequent one; agent_N: its factor of each transition, int64 `(n,)`.
        tried: each factor as its own, in all episodes. trial: the adapter of those that it has.
    """

    numbers: list[int]
    net: Adapter
    place: int
    agent_N: torch.Tensor
    finder: AgentFinder | None
    tried: list[_Trial]
    trial: _Trial


def _find(
    world: World, data: dict[str, torch.Tensor], numbers: list[int], actions: ActionSpace, seed: int
) -> _Found:
    """The agent whose actions, of these numbers of the task's, are in `data`."""

    def fit(factor_N: torch.Tensor, rows: torch.Tensor, sees: bool = True) -> Adapter:
        return fit_adapter(world, data, factor_N, actions, rows, seed, sees)

    held_out = held_out_episodes(data["episode"], seed)
    tried = [_try(fit, data, torch.full_like(data["episode"], k), held_out) for k in range(world.factors)]
    place = int(first_least(-torch.tensor([trial.explained for trial in tried]), EQUAL))
    agents, trial = torch.full_like(data["episode"], place), tried[place]
    candidates, finder = agents_by_episode(fit, data, place), None
    if candidates is not None:
        finder, agents = fit_finder(world.factor_dim, data, candidates, seed)
        place = int(first_least(-torch.bincount(agents).float(), EQUAL))
        trial = _try(fit, data, agents, held_out)
    net = fit(agents, torch.ones_like(held_out), trial.sees)
    return _Found(numbers, net, place, agents, finder, tried, trial)


def _finder_of(world: World, data: dict[str, torch.Tensor], agent_N: torch.Tensor, seed: int) -> AgentFinder:
    """What tells an agent by its look whose factor is the same in all episodes, where another's is not."""
    sure = nn.functional.one_hot(agent_N, world.factors).bool()
    return fit_finder(world.factor_dim, data, sure, seed)[0]


def _places(agents_NC: torch.Tensor, factors: int) -> list[int]:
    """The place of each agent: its most frequent factor that is no other's place."""
    places: list[int] = []
    for agent_N in agents_NC.T:
        count = torch.bincount(agent_N, minlength=factors).float()
        count[places] = -1
        places.append(int(first_least(-count, EQUAL)))
    return places


class _Trial(NamedTuple):
    """How well an adapter tells held-out actions.

    Attributes:
        sees: whether it sees the factor, or the latent action alone.
        explained, accuracy: as `ActionAdapter`'s, of one factor; accuracy None for a box.
    """

    sees: bool
    explained: float
    accuracy: float | None


def _try(
    fit: Callable[[torch.Tensor, torch.Tensor, bool], Adapter],
    data: dict[str, torch.Tensor],
    factor_N: torch.Tensor,
    held_out: torch.Tensor,
) -> _Trial:
    """The better adapter of one that sees the agent's factor `factor_N` and one that sees its latent action alone: few labels
    say what an action does wherever it is taken before they say what else it depends on."""
    fitting = ~held_out if bool((~held_out).any()) else held_out
    now, latent = (_pick_factor(data[key], factor_N)[held_out] for key in ("now", "latent"))
    action, trials = data["action"], []
    for sees in (False, True):
        net = fit(factor_N, fitting, sees)
        constant = net.constant(action[fitting]).expand(int(held_out.sum()), -1)
        missed = net.errors(now, latent, action[held_out]).mean()
        unexplained = missed / net.member_errors(constant, action[held_out]).mean().clamp_min(1e-6)
        accuracy = None
        if net.actions.kind == "discrete":
            accuracy = float((net.real(now, latent) == action[held_out]).float().mean())
        trials.append(_Trial(sees, 1 - float(unexplained), accuracy))
    return trials[int(first_least(-torch.tensor([trial.explained for trial in trials]), EQUAL))]


def _pick_factor(values_NKX: torch.Tensor, factor_N: torch.Tensor) -> torch.Tensor:
    return values_NKX.take_along_dim(factor_N[:, None, None], 1).squeeze(1)


def _in_place(
    data: dict[str, torch.Tensor], episode: torch.Tensor, agents_NC: torch.Tensor, places: list[int]
) -> dict[str, torch.Tensor]:
    """`data` with the agents' factors at their places; episodes of which no action tells where they are are left out."""
    count = int(data["episode"].max()) + 1
    by_episode = torch.full((count, len(places)), -1, device=episode.device)
    by_episode[episode] = agents_NC
    rows = by_episode[data["episode"], 0] >= 0
    data = {key: values[rows] for key, values in data.items()}
    order = in_order(by_episode[data["episode"]], places, data["now"].shape[1]).unsqueeze(-1)
    return data | {key: data[key].take_along_dim(order, 1) for key in ("now", "next", "imagined", "latent")}


def informative(now_BS: torch.Tensor, next_BS: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
    """Which transitions tell what a latent action is in real ones, whole numbers `(B, *shape)`: bool `(B,)`.

    Walking into a wall and staying change nothing alike. Of the transitions that changed nothing, only those
    tell whose action most surely does nothing; else a latent action of staying decodes to one of walking.
    """
    change = (next_BS - now_BS).square().mean(-1)
    still = change <= STILL * change.quantile(LIVELY)
    action_B = torch.unique(action_B, dim=0, return_inverse=True)[1]
    often = torch.bincount(action_B)
    idle = (torch.bincount(action_B[still], minlength=len(often)) / (often + 5)).argmax()
    return ~still | (action_B == idle)


def fit_adapter(
    world: World,
    data: dict[str, torch.Tensor],
    factor_N: torch.Tensor,
    actions: ActionSpace,
    rows: torch.Tensor,
    seed: int,
    sees: bool,
) -> Adapter:
    """An adapter of the transitions in the mask `rows`, where the agent's factor is `factor_N`; it sees that, or the latent
    action alone."""
    torch.manual_seed(seed)
    net = make_adapter(world.factor_dim, world.latent_action_dim, actions).to(data["now"])

    now, following, latent = (_pick_factor(data[key], factor_N) for key in ("now", "next", "latent"))
    if actions.kind == "discrete":
        rows = rows & informative(now, following, data["action"])
    now, latent, action = now[rows], latent[rows], data["action"][rows]
    # In imagination latent actions are snapped to codes, so the adapter must know those as well.
    snapped = torch.empty_like(latent)
    for factor in factor_N[rows].unique().tolist():
        its = factor_N[rows] == factor
        snapped[its] = world.snap(data["now"][rows][its], factor, latent[its])
    now, latent = now.repeat(2, 1) * sees, torch.cat([latent, snapped])
    net.standardize(action)
    action = torch.cat([action, action])
    chosen = net.encode(action).to(now)

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(now.device)
        outputs = net.to_real(torch.cat([now[drawn], latent[drawn]], -1))
        guessed = net.to_latent(torch.cat([now[drawn], chosen[drawn]], -1))
        return net.member_errors(outputs, action[drawn]).mean() + nn.functional.mse_loss(
            guessed, latent[drawn]
        )

    fit_ensemble(net, loss, len(now), seed)
    for part in (net.to_real, net.to_latent):
        part.weight_0[:, : world.factor_dim].mul_(sees)
    net.conclude(now, latent, action)
    return net
