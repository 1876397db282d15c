"""Which factor is the agent's in each labelled episode: the same in all of them, or found for each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from ..core.adapters import Adapter
from ..core.agent import SURE, AgentFinder
from ..core.layers import first_least
from .fitting import fit_ensemble

ROUNDS = 5
"""Of fitting an adapter and finding the agent's factors with it."""
GAIN = 0.15
"""Share of what actions leave unexplained that must go where the agent's factor is found for each episode."""
RIDGE = 0.1
"""Of the regression within an episode, in units of the largest sum of squares of an action's number."""
ALIKE = 0.05
"""Share of latent actions explained by which a factor must be better than another within an episode."""

Fit = Callable[[torch.Tensor, torch.Tensor], Adapter]
"""Agent's factor of each transition int64 `(n,)` and which of them count, bool `(n,)`, to an adapter."""


def agents_by_episode(fit: Fit, data: dict[str, torch.Tensor], agent: int) -> torch.Tensor:
    """The agent's factor of each labelled transition, int64 `(n,)`: `agent`, unless it clearly differs by episode.

    At first the agent's factor is the one whose latent actions are most like a linear function of the actions within an
    episode. Then adapters are fitted to the first half of each episode with the factors found so far, and each episode's
    factor becomes the one that explains its actions best, until nothing changes. What was found must then explain the
    second halves better than `agent` does.

    Args:
        data: of `labelled_factors`, transitions whose action is known.
        agent: the one factor that explains all episodes best.
    """
    episode = torch.unique(data["episode"], return_inverse=True)[1]
    count, factors = int(episode.max()) + 1, data["now"].shape[1]
    everywhere = torch.full((count,), agent, device=episode.device)
    first = first_halves(episode)
    if count < 2 or factors < 2 or bool(first.all()):
        return everywhere[episode]
    alone = fit(everywhere[episode], first)
    found = _most_alike(data, alone.encode(data["action"]).float(), episode, first, everywhere)
    if torch.equal(found, everywhere):
        return everywhere[episode]
    net = fit(found[episode], first)
    for _ in range(ROUNDS):
        errors = _by_factor(net, data)
        better = _assign(errors[first], episode[first], found)
        if torch.equal(better, found):
            break
        found, net = better, fit(better[episode], first)
    rest = ~first
    before = _of(_by_factor(alone, data), everywhere[episode])[rest]
    after = _of(_by_factor(net, data), found[episode])[rest]
    gain = torch.zeros(count, device=episode.device).index_add(0, episode[rest], before - after)
    certain = gain.mean() > 2 * gain.std() / count**0.5
    if not bool(certain & (after.mean() < (1 - GAIN) * before.mean())):
        return everywhere[episode]
    return _assign(_by_factor(net, data), episode, found)[episode]


def first_halves(episode: torch.Tensor) -> torch.Tensor:
    """bool `(n,)`: which transitions are in the first half of their episode, by numbers of episodes in order."""
    _, counts = torch.unique_consecutive(episode, return_counts=True)
    within = torch.cat([torch.arange(int(n), device=episode.device) < (int(n) + 1) // 2 for n in counts])
    return within


def fit_finder(factor_dim: int, data: dict[str, torch.Tensor], agent: torch.Tensor, seed: int) -> AgentFinder:
    """What tells the agent's factor by its look, from those found, int64 `(n,)`."""
    torch.manual_seed(seed)
    finder = AgentFinder(factor_dim).to(data["now"])
    states, agent = torch.cat([data["now"], data["imagined"]]), agent.repeat(2)

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(agent.device)
        scores = finder.net(states[drawn].flatten(1, 2)).unflatten(1, (-1, states.shape[1])).squeeze(-1)
        return nn.functional.cross_entropy(scores.flatten(0, 1), agent[drawn].flatten())

    fit_ensemble(finder.net, loss, len(agent), seed)
    return finder


def _most_alike(
    data: dict[str, torch.Tensor],
    action_NW: torch.Tensor,
    episode: torch.Tensor,
    rows: torch.Tensor,
    before: torch.Tensor,
) -> torch.Tensor:
    """Of each episode the factor whose latent actions a ridge regression on the actions explains best, int64
    `(episodes,)`; the one `before` unless by `ALIKE`."""
    explained = []
    for number in range(len(before)):
        its = rows & (episode == number)
        latent = data["latent"][its].transpose(0, 1)  # (K, T, A)
        latent = latent - latent.mean(1, keepdim=True)
        action = action_NW[its] - action_NW[its].mean(0)
        gram = action.T @ action
        # What varies not at all in an episode leaves the matrix without a rank: it has at least the last term.
        ridge = RIDGE * gram.diagonal().max() + 1e-6
        weights = torch.linalg.solve(gram + ridge * torch.eye(len(gram)).to(gram), action.T @ latent)
        fitted = action @ weights
        left = (latent - fitted).square().sum((1, 2)) / latent.square().sum((1, 2)).clamp_min(1e-6)
        explained.append(1 - left)
    misses = -torch.stack(explained)
    best = first_least(misses, ALIKE)
    return torch.where(_of(misses, best) < _of(misses, before) - ALIKE, best, before)


def _by_factor(net: Adapter, data: dict[str, torch.Tensor]) -> torch.Tensor:
    """What an adapter misses of the actions if they were each factor's: float `(n, K)`."""
    factors = range(data["now"].shape[1])
    return torch.stack(
        [net.errors(data["now"][:, k], data["latent"][:, k], data["action"]) for k in factors], -1
    )


def _of(errors_NK: torch.Tensor, factor_N: torch.Tensor) -> torch.Tensor:
    return errors_NK.gather(1, factor_N.unsqueeze(1)).squeeze(1)


def _assign(errors_NK: torch.Tensor, episode: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """The factor of each episode that explains it best, int64 `(episodes,)`; the one `before` unless by `SURE`."""
    total = errors_NK.new_zeros(len(before), errors_NK.shape[1]).index_add(0, episode, errors_NK)
    best = first_least(total, SURE)
    return torch.where(_of(total, best) < _of(total, before) - SURE, best, before)
