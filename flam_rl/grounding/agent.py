"""Which factor is the agent's in each labelled episode: the same in all of them, or found for each."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from ..core.adapters import Adapter
from ..core.agent import SURE, AgentFinder
from ..core.layers import first_least
from .fitting import fit_ensemble

GAIN = 0.1
"""How much more of the latent actions (a share) the actions must explain when the agent's factor is found for each
episode, for that to be done."""
RIDGE = 0.1
"""Ridge penalty of the regression within an episode, in units of the largest sum of squares of an action's number."""
ALIKE = 0.05
"""How much more of its latent actions (a share) must be explained for one factor to be preferred to another within an
episode."""
MOST = 1000
"""The most transitions, spread over all, that the regression over all episodes is fitted to: it solves a matrix of so
many rows and columns."""
LEAST = 0.01
"""How much a factor's latent actions must vary for its explained share to count in full, in units of the factor that
varies most."""

Fit = Callable[[torch.Tensor, torch.Tensor], Adapter]
"""From the index of the agent's factor at each transition, int64 `(n,)`, and the transitions that count, bool `(n,)`,
to an adapter."""


def agents_by_episode(fit: Fit, data: dict[str, torch.Tensor], agent: int) -> torch.Tensor | None:
    """Which factors may be the agent's at each labelled transition, bool `(n, K)`; None if it is `agent` in all
    episodes.

    The agent's factor of an episode is the one whose latent actions are closest to a linear function of the actions.
    The function is linear because a network would fit the few hundred transitions of any factor by heart. The choice
    made on the first halves of the episodes must explain the second halves better than `agent` does. Where the agent
    repeats one action for a whole episode, several factors may be the agent's.

    Args:
        data: as `labelled_factors` gives it, transitions with a known action only.
        agent: the factor that explains the actions of all episodes best.
    """
    episode = torch.unique(data["episode"], return_inverse=True)[1]
    count, factors = int(episode.max()) + 1, data["now"].shape[1]
    everywhere = torch.full((count,), agent, device=episode.device)
    first = first_halves(episode)
    if count < 2 or factors < 2 or bool(first.all()):
        return None
    action = fit(everywhere[episode], first).encode(data["action"]).float()
    found = _most_alike(_explained(data, action, episode, first, first), everywhere)
    # For a factor that rests in the second half, any error exceeds the variance to be explained: the share is
    # negative, and counts as 0.
    held = _explained(data, action, episode, first, ~first).clamp_min(0)
    gain = _pick_factor(held, found) - _pick_factor(held, everywhere)
    certain = gain.mean() > 2 * gain.std() / count**0.5
    if not bool(certain & (gain.mean() > GAIN)):
        return None
    whole = torch.ones_like(first)
    explained = _explained(data, action, episode, whole, whole)
    return (explained >= explained.amax(-1, keepdim=True) - ALIKE)[episode]


def numbers_of_agents(data: dict[str, torch.Tensor], parts: Sequence[torch.Tensor]) -> list[list[int]]:
    """The numbers of an action that belong to each agent: those that move the same factor. Most tasks have one agent.

    Within an episode a number moves the factor whose latent actions are a linear function of it. Where no episode shows
    that, as where a latent action also depends on the factor's heading, one factor in all episodes may still tell the
    number. A number that moves no factor, or hardly moves one, belongs to the first agent.

    Args:
        data: as for `agents_by_episode`. parts: each number of the actions as `Adapter.encode` gives it, float `(n,
            width)`.
    """
    episode = torch.unique(data["episode"], return_inverse=True)[1]
    first = first_halves(episode)
    moved = []
    for part in parts if len(parts) > 1 and not bool(first.all()) else ():
        held = _explained(data, part, episode, first, ~first)
        own = torch.where(held.amax(-1) > GAIN, first_least(-held), -1)
        if (own >= 0).float().mean() < 0.5:
            own = torch.full_like(own, _told_by(data["latent"], part, first))
        moved.append(own)
    found: list[list[int]] = []
    for number, own in enumerate(moved):
        if (own >= 0).float().mean() < 0.5:
            continue
        for numbers in found:
            both = (own >= 0) & (moved[numbers[0]] >= 0)
            if bool(both.any()) and bool((own == moved[numbers[0]])[both].float().mean() > 0.5):
                numbers.append(number)
                break
        else:
            found.append([number])
    if len(found) < 2:
        return [list(range(len(parts)))]
    rest = set(range(len(parts))) - {number for numbers in found for number in numbers}
    return [sorted([*found[0], *rest]), *found[1:]]


def _told_by(latent_NKA: torch.Tensor, part_NW: torch.Tensor, first: torch.Tensor) -> int:
    """The factor whose latent actions tell a number best; -1 where none does so for certain in the second halves of episodes."""
    fitted, tested = (rows.nonzero()[:, 0] for rows in (first, ~first))
    fitted = fitted[torch.linspace(0, len(fitted) - 1, min(MOST, len(fitted))).long().to(fitted.device)]
    target = part_NW - part_NW[fitted].mean(0)
    missed, shares = target[tested].square().sum(-1), []
    for latent_NA in latent_NKA.unbind(1):
        spread = latent_NA[fitted].std(correction=0).clamp_min(1e-6)
        seen, asked = latent_NA[fitted] / spread, latent_NA[tested] / spread
        between = torch.cdist(seen, seen).square()
        width = between.median().clamp_min(1e-6)
        ridge = RIDGE * torch.eye(len(fitted)).to(between)
        weights = torch.linalg.solve((-between / width).exp() + ridge, target[fitted])
        told = (-torch.cdist(asked, seen).square() / width).exp() @ weights
        gain = missed - (target[tested] - told).square().sum(-1)
        certain = gain.mean() > 2 * gain.std() / len(gain) ** 0.5
        share = gain.sum() / missed.sum().clamp_min(1e-6)
        shares.append(torch.where(certain & (share > GAIN), share, 0.0))
    best = torch.stack(shares)
    return int(first_least(-best, ALIKE)) if bool(best.amax() > 0) else -1


def first_halves(episode: torch.Tensor) -> torch.Tensor:
    """Which transitions lie in the first half of their episode, bool `(n,)`. The transitions of an episode must be
    adjacent."""
    _, counts = torch.unique_consecutive(episode, return_counts=True)
    within = torch.cat([torch.arange(int(n), device=episode.device) < (int(n) + 1) // 2 for n in counts])
    return within


def fit_finder(
    factor_dim: int, data: dict[str, torch.Tensor], candidates_NK: torch.Tensor, seed: int
) -> tuple[AgentFinder, torch.Tensor]:
    """A finder of the agent's factor by its look, and the index of the agent's factor at each transition, int64
    `(n,)`: among several candidates, the one that looks most like the agent.

    Args:
        candidates_NK: bool `(n, K)`, as `agents_by_episode` gives it.
    """
    torch.manual_seed(seed)
    finder = AgentFinder(factor_dim).to(data["now"])
    sure = candidates_NK.sum(-1) == 1
    if not bool(sure.any()):
        sure = torch.ones_like(sure)
    states = torch.cat([data["now"][sure], data["imagined"][sure]])
    agent = candidates_NK[sure].int().argmax(-1).repeat(2)

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(agent.device)
        scores = finder.net(states[drawn].flatten(1, 2)).unflatten(1, (-1, states.shape[1])).squeeze(-1)
        return nn.functional.cross_entropy(scores.flatten(0, 1), agent[drawn].flatten())

    fit_ensemble(finder.net, loss, len(agent), seed)
    episode = torch.unique(data["episode"], return_inverse=True)[1]
    looks = finder.looks(data["now"])
    whole = looks.new_zeros(int(episode.max()) + 1, looks.shape[1]).index_add(0, episode, looks)
    return finder, first_least(-whole[episode].masked_fill(~candidates_NK, -torch.inf), SURE)


def _explained(
    data: dict[str, torch.Tensor],
    action_NW: torch.Tensor,
    episode: torch.Tensor,
    rows: torch.Tensor,
    tested: torch.Tensor,
) -> torch.Tensor:
    """The share of each factor's latent actions that a ridge regression on the actions explains: float `(episodes, K)`.

    Args:
        rows, tested: bool `(n,)`, the transitions that are fitted to, and those that the share is measured on.
    """
    explained = []
    for number in range(int(episode.max()) + 1):
        its, those = rows & (episode == number), tested & (episode == number)
        latent, action = data["latent"].transpose(0, 1), action_NW  # (K, T, A), (T, W)
        middle, usual = latent[:, its].mean(1, keepdim=True), action[its].mean(0)
        seen = action[its] - usual
        gram = seen.T @ seen
        # A number that is constant in an episode would leave the matrix singular without the last term.
        ridge = RIDGE * gram.diagonal().max() + 1e-6
        weights = torch.linalg.solve(
            gram + ridge * torch.eye(len(gram)).to(gram), seen.T @ (latent[:, its] - middle)
        )
        target = latent[:, those] - middle
        left = (target - (action[those] - usual) @ weights).square().sum((1, 2))
        varied = target.square().sum((1, 2))
        # The latent actions of an absent factor do not vary; its share is 0.
        explained.append((varied - left) / varied.clamp_min(LEAST * varied.max().clamp_min(1e-6)))
    return torch.stack(explained)


def _most_alike(explained: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """For each episode the factor with the largest explained share, int64 `(episodes,)`; the factor `before` unless
    another is better by more than `ALIKE`."""
    best = first_least(-explained, ALIKE)
    return torch.where(_pick_factor(explained, best) > _pick_factor(explained, before) + ALIKE, best, before)


def _pick_factor(shares_EK: torch.Tensor, factor_E: torch.Tensor) -> torch.Tensor:
    return shares_EK.gather(1, factor_E.unsqueeze(1)).squeeze(1)
