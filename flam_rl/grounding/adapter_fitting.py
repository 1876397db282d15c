"""Fitting of the agents of a task: whom its actions move, and an adapter for each, from labelled transitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..actions import ActionSpace
from ..core.adapters import Adapter, make_adapter
from ..core.agent import AgentFinder, Agents, in_order
from ..core.layers import first_least
from ..core.world import World
from ..types import LabelledTransitions
from .agent import agents_by_episode, fit_finder, numbers_of_agents
from .fitting import fit_ensemble, held_out_episodes, known_rows, labelled_factors

STILL, LIVELY = 0.05, 0.8
"""A factor counts as still in a step when its mean square change is below `STILL` times the `LIVELY` quantile of all steps' changes."""
EQUAL = 0.01
"""How much more of the actions (a share) a factor must explain than an earlier factor, to be taken for the agent's instead."""


def check_labels(labelled: LabelledTransitions) -> None:
    """Check what can be checked of labels before a world is trained.

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


class Fitted(NamedTuple):
    """What `fit_agents` finds.

    Attributes:
        agents: the agents with their adapters, and their finders where an agent's factor differs by episode.
        explained, accuracy: as `ActionAdapter`'s.
        data: as `labelled_factors` gives it, with the agents' factors at their places in each transition.
    """

    agents: Agents
    explained: tuple[float, ...]
    accuracy: tuple[float, ...]
    data: dict[str, torch.Tensor]


def fit_agents(world: World, labelled: LabelledTransitions, seed: int) -> Fitted:
    """Find the agents of labelled transitions, and fit the adapter of each.

    Raises:
        ValueError: the actions tell nothing apart, or the world's model needs true actions.
    """
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
    # An agent's own factor has the figures of its own adapter, any other factor those of an adapter for the first agent.
    tried = list(found[0].tried)
    for one, place in zip(found, places, strict=True):
        tried[place] = one.trial
    return Fitted(
        Agents(actions, places, [one.numbers for one in found], [one.net for one in found], finders),
        tuple(trial.explained for trial in tried),
        tuple(trial.accuracy for trial in tried if trial.accuracy is not None),
        everything,
    )


class _Found(NamedTuple):
    """An agent, found from labels.

    Attributes:
        numbers: which numbers of an action belong to the agent.
        net: the agent's adapter.
        place: index of the agent's factor; with a `finder`, the index that it has most often.
        agent_N: index of the agent's factor at each transition, int64 `(n,)`.
        finder: finds the agent's factor by its look, where the index differs by episode; else None.
        tried: for each factor, the trial in which it is the agent's factor in all episodes.
        trial: the trial with the factors in `agent_N`.
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
    """The agent that the given numbers of the task's actions belong to; `data["action"]` holds only these numbers."""

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
    """A finder for an agent whose factor has one index in all episodes; it is needed as soon as another agent's index differs."""
    sure = nn.functional.one_hot(agent_N, world.factors).bool()
    return fit_finder(world.factor_dim, data, sure, seed)[0]


def _places(agents_NC: torch.Tensor, factors: int) -> list[int]:
    """The place of each agent: the factor that it has most often, among those that are not an earlier agent's place."""
    places: list[int] = []
    for agent_N in agents_NC.T:
        count = torch.bincount(agent_N, minlength=factors).float()
        count[places] = -1
        places.append(int(first_least(-count, EQUAL)))
    return places


class _Trial(NamedTuple):
    """How well an adapter predicts held-out actions.

    Attributes:
        sees: whether the adapter sees the factor, or the latent action alone.
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
    """The better of two adapters: one sees the agent's factor `factor_N`, the other sees its latent action alone.

    With few labels the second is often better: they suffice to learn what an action does on average, and not what else its
    effect depends on.
    """
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
    """The values `(n, X)` of one factor in each row."""
    return values_NKX.take_along_dim(factor_N[:, None, None], 1).squeeze(1)


def _in_place(
    data: dict[str, torch.Tensor], episode: torch.Tensor, agents_NC: torch.Tensor, places: list[int]
) -> dict[str, torch.Tensor]:
    """`data` with the agents' factors moved to their places; episodes without labelled actions are left out."""
    count = int(data["episode"].max()) + 1
    by_episode = torch.full((count, len(places)), -1, device=episode.device)
    by_episode[episode] = agents_NC
    rows = by_episode[data["episode"], 0] >= 0
    data = {key: values[rows] for key, values in data.items()}
    order = in_order(by_episode[data["episode"]], places, data["now"].shape[1]).unsqueeze(-1)
    return data | {key: data[key].take_along_dim(order, 1) for key in ("now", "next", "imagined", "latent")}


def informative(now_BS: torch.Tensor, next_BS: torch.Tensor, action_B: torch.Tensor) -> torch.Tensor:
    """Which transitions say what real action a latent action stands for: bool `(B,)`.

    Walking into a wall and staying both change nothing. Among the transitions without a change, only those with the action that
    most surely does nothing are kept; otherwise the latent action of staying would be decoded as walking.

    Args:
        now_BS, next_BS: the agent's factor before and after, float.
        action_B: real actions, whole numbers `(B, *shape)`.
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
    """Fit an adapter to some of the transitions.

    Args:
        data: as `labelled_factors` gives it.
        factor_N: index of the agent's factor at each transition, int64 `(n,)`.
        actions: the actions that the adapter decodes to.
        rows: which transitions are fitted to, bool `(n,)`.
        sees: whether the adapter sees the agent's factor, or the latent action alone.
    """
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
