"""ActionAdapter: latent actions of the agents' factors <-> real actions, from a label budget."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from pydantic import ConfigDict, TypeAdapter, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..actions import ActionSpace
from ..core.adapters import Adapter, make_adapter
from ..core.agent import Agents, in_order
from ..core.config import AgentSettings
from ..core.heads import Labels
from ..core.layers import first_least
from ..core.weights import fill
from ..core.world import World
from ..files import written_whole
from ..types import LabelledTransitions, check_ranges
from .agent import GAIN, agents_by_episode, alike_numbers, fit_finder
from .fitting import fit_ensemble, held_out_episodes, known_rows, labelled_factors
from .reward import fit_event_head, fit_reward_head

STILL, SLOW = 0.01, 0.1
"""Mean square change of a factor below which nothing happened to it; and the same as a share of its mean, for factors in which
little changes in any step."""
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
        if self.agents.finder is not None:
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
        about = _About(AgentSettings.of(self.agents), self.explained, self.accuracy, self.budget)
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
    reward = fit_reward_head(world, data, places, seed)
    termination = fit_event_head(world, data, data["termination"], 1.0, places, seed)
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
    trials = _try_factors(world, data, actions, seed)
    found = find_agents(data, actions, trials)
    agents = torch.stack([factor_N for _, factor_N in found], 1)
    places, finder = [int(factor) for factor in agents[0]], None
    if bool((agents != agents[0]).any()):
        places = _usual(agents, world.factors)
        finder = fit_finder(world.factor_dim, data, agents, seed)
        everything = _in_place(everything, data["episode"], agents, places)
    adapters = []
    for numbers, factor_N in found:
        part = actions.part(numbers)
        action = data["action"].reshape(len(factor_N), -1)[:, numbers].view(-1, *part.shape)
        every = torch.ones_like(factor_N).bool()
        adapters.append(fit_adapter(world, data | {"action": action}, factor_N, part, every, seed))
    explained, accuracy = (
        trials.explained(range(actions.size)),
        trials.right_KN.mean(1) if trials.right_KN is not None else None,
    )
    if len(found) > 1:
        for (numbers, _), place in zip(found, places, strict=True):
            explained[place] = trials.explained(numbers)[place]
            if accuracy is not None and trials.right_KN is not None:
                accuracy[place] = trials.right_KN[place, numbers].mean()
    return ActionAdapter(
        Agents(actions, places, [numbers for numbers, _ in found], adapters, finder),
        tuple(explained.tolist()),
        () if accuracy is None else tuple(accuracy.tolist()),
        len(labelled),
    ), everything


@dataclass(frozen=True)
class Trials:
    """How well each factor tells held-out actions, number by number.

    Attributes:
        action_NW: the actions of all transitions, as a network reads them.
        missed_KN, blind_KN: nats, but for a constant, by which the factor's network, and one that knows only how often each
            action is taken, miss a number on average.
        right_KN: how often the network is right; None for a box.
    """

    action_NW: torch.Tensor
    missed_KN: torch.Tensor
    blind_KN: torch.Tensor
    right_KN: torch.Tensor | None

    def explained(self, numbers: Sequence[int]) -> torch.Tensor:
        """Share of what these numbers hold that each factor explains: float `(K,)`."""
        missed, blind = self.missed_KN[:, numbers].sum(1), self.blind_KN[:, numbers].sum(1)
        return (blind - missed) / blind.clamp_min(1e-6)


def _try_factors(world: World, data: dict[str, torch.Tensor], actions: ActionSpace, seed: int) -> Trials:
    """A network for each factor, fitted to part of the labels and tried on the rest."""
    held_out = held_out_episodes(data["episode"], seed)
    fitting = ~held_out if bool((~held_out).any()) else held_out
    missed, blind, right = [], [], []
    for factor in range(world.factors):
        net = fit_adapter(world, data, torch.full_like(data["episode"], factor), actions, fitting, seed)
        now, latent, action = data["now"][:, factor], data["latent"][:, factor], data["action"]
        constant = net.constant(action[fitting]).expand(int(held_out.sum()), -1)
        missed.append(net.errors(now[held_out], latent[held_out], action[held_out]).mean(0))
        blind.append(net.member_errors(constant, action[held_out]).mean(0))
        if actions.kind == "discrete":
            real = net.real(now[held_out], latent[held_out])
            right.append((real == action[held_out]).float().view(len(real), -1).mean(0))
    return Trials(
        net.encode(data["action"]).float(),
        torch.stack(missed),
        torch.stack(blind),
        torch.stack(right) if right else None,
    )


def find_agents(
    data: dict[str, torch.Tensor], actions: ActionSpace, trials: Trials
) -> list[tuple[list[int], torch.Tensor]]:
    """Of each agent which numbers of an action are its, and its factor of each transition, int64 `(n,)`.

    Most tasks have one agent. Of several each has numbers that clearly move another factor than the others' do.
    """
    every, parts = list(range(actions.size)), trials.action_NW.split(actions.widths, -1)

    def by_episode(numbers: list[int], factor: int) -> torch.Tensor:
        return agents_by_episode(data, torch.cat([parts[number] for number in numbers], -1), factor)

    usual = int(first_least(-trials.explained(every), EQUAL))
    alone: list[torch.Tensor | None] = []
    for number in every if len(every) > 1 else ():
        shares = trials.explained([number])
        best = int(first_least(-shares, EQUAL))
        best = best if shares[best] > shares[usual].clamp_min(0) + GAIN else usual
        moved = by_episode([number], best)
        alone.append(moved if bool((shares[best] > GAIN) | (moved != best).any()) else None)
    found = alike_numbers(alone) if alone else [every]
    if len(found) == 1:
        return [(every, by_episode(every, usual))]
    best_of = (int(first_least(-trials.explained(numbers), EQUAL)) for numbers in found)
    return [(numbers, by_episode(numbers, best)) for numbers, best in zip(found, best_of, strict=True)]


def _usual(agents_NC: torch.Tensor, factors: int) -> list[int]:
    """The place of each agent: its most frequent factor that is no other's place."""
    places: list[int] = []
    for agents in agents_NC.T:
        count = torch.bincount(agents, minlength=factors).float()
        count[places] = -1
        places.append(int(first_least(-count, EQUAL)))
    return places


def _in_place(
    data: dict[str, torch.Tensor], episode: torch.Tensor, agents_NC: torch.Tensor, places: list[int]
) -> dict[str, torch.Tensor]:
    """`data` with the agents' factors at their places; episodes of which no action tells where they are are left out."""
    count = int(data["episode"].max()) + 1
    of_episode = torch.full((count, len(places)), -1, device=episode.device)
    of_episode[episode] = agents_NC
    rows = of_episode[data["episode"], 0] >= 0
    data = {key: values[rows] for key, values in data.items()}
    order = in_order(of_episode[data["episode"]], places, data["now"].shape[1]).unsqueeze(-1)
    return data | {key: data[key].take_along_dim(order, 1) for key in ("now", "next", "imagined", "latent")}


def informative(now_BS: torch.Tensor, next_BS: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
    """Which transitions tell what a latent action is in real ones, whole numbers `(B, *shape)`: bool `(B,)`.

    Walking into a wall and staying change nothing alike. Of the transitions that changed nothing, only those
    tell whose action most surely does nothing; else a latent action of staying decodes to one of walking.
    """
    change = (next_BS - now_BS).square().mean(-1)
    still = change < (SLOW * change.mean()).clamp_max(STILL)
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
) -> Adapter:
    """An adapter of the transitions in the mask `rows`, where the agent's factor is `factor_N`."""
    torch.manual_seed(seed)
    net = make_adapter(world.factor_dim, world.latent_action_dim, actions).to(data["now"])

    def agents(values_NKX: torch.Tensor) -> torch.Tensor:
        return values_NKX.take_along_dim(factor_N[:, None, None], 1).squeeze(1)

    if actions.kind == "discrete":
        rows = rows & informative(agents(data["now"]), agents(data["next"]), data["action"])
    now, latent, action = agents(data["now"])[rows], agents(data["latent"])[rows], data["action"][rows]
    # In imagination latent actions are snapped to codes, so the adapter must know those as well.
    snapped = torch.empty_like(latent)
    for factor in factor_N[rows].unique().tolist():
        its = factor_N[rows] == factor
        snapped[its] = world.snap(data["now"][rows][its], factor, latent[its])
    now, latent = now.repeat(2, 1), torch.cat([latent, snapped])
    net.standardize(action)
    action = torch.cat([action, action])
    chosen = net.encode(action).to(now)

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(now.device)
        outputs = net.to_real(torch.cat([now[drawn], latent[drawn]], -1))
        guessed = net.to_latent(torch.cat([now[drawn], chosen[drawn]], -1))
        missed = net.member_errors(outputs, action[drawn]).sum(-1).mean()
        return missed + nn.functional.mse_loss(guessed, latent[drawn])

    fit_ensemble(net, loss, len(now), seed)
    net.conclude(now, latent, action)
    return net
