"""Heads of reward and end, fitted to labels; they see the state that a step enters."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import nn

from ..core.adapters import NEVER
from ..core.heads import DenseHead, EventHead
from ..core.world import World
from .fitting import fit_ensemble, held_out_episodes, known_rows

FEWEST = 5
"""Least number of held-out events, or dense rewards, for the choice of what a head sees."""
RARE = 0.5
"""Rewards other than 0 are events if they occur in at most this share of transitions."""
ALIKE = 0.5
"""Greatest ratio of standard deviation to mean for rewards to count as one kind of event."""

BENDS = 6.0
"""Scale of the first layer's weights, and spread of its biases, in heads that read few numbers. An event happens at a
place; units that all bend at 0 would extend it to the border of the frame."""

AnyHead = TypeVar("AnyHead", EventHead, DenseHead)


def fit_reward_head(
    world: World, data: dict[str, torch.Tensor], usual: torch.Tensor, agents: tuple[int, ...], seed: int
) -> EventHead | DenseHead:
    """Fit the head of reward: rare and similar rewards are an event that is worth their mean, other rewards are
    predicted by value.

    Args:
        data: as `labelled_factors` gives it. usual: as for `fit_event_head`.
    """
    reward = known_rows(data, 1)["reward"].float()
    rewarded = reward[reward != 0]
    if is_event(rewarded, len(reward)):
        value = float(rewarded.mean()) if len(rewarded) else 0.0
        return fit_event_head(world, data, usual, data["reward"] != 0, value, agents, seed, label=1)
    mean, scale = float(reward.mean()), float(reward.std().clamp_min(1e-6))

    def make(sees: tuple[int, ...]) -> DenseHead:
        return DenseHead(world.factor_dim, sees, mean, scale)

    target = (data["reward"].float() - mean) / scale
    return _fit_head(
        world, make, data, usual[:0], target, torch.ones_like(target).bool(), agents, seed, label=1
    )


def is_event(rewarded: torch.Tensor, transitions: int) -> bool:
    """Whether rewards other than 0, float `(n,)`, among so many transitions are one kind of rare event."""
    if len(rewarded) > RARE * transitions:
        return False
    return len(rewarded) < 2 or bool(rewarded.std(correction=0) <= ALIKE * rewarded.mean().abs())


def fit_event_head(
    world: World,
    data: dict[str, torch.Tensor],
    usual: torch.Tensor,
    event: torch.Tensor,
    value: float,
    agents: tuple[int, ...],
    seed: int,
    label: int = 2,
) -> EventHead:
    """Fit a head to an event. It sees the first of the model's `readings` of the agents' factors; more of them, or
    all factors, only where held-out labels clearly favour that.

    Args:
        data: as `labelled_factors` gives it. usual: factors `(n, K, S)` of unlabelled video. As events are rare,
            heads that read few numbers are fitted to predict none there; otherwise they would be undefined where no
            label leads, and policies would go there. event: bool `(n,)`. label: the label that events come from, as
            `known_rows` counts.
    """

    def make(sees: tuple[int, ...]) -> EventHead:
        return EventHead(world.factor_dim, sees, value)

    return _fit_head(world, make, data, usual, event.float(), event, agents, seed, label)


def _fit_head(
    world: World,
    make: Callable[[tuple[int, ...]], AnyHead],
    data: dict[str, torch.Tensor],
    usual: torch.Tensor,
    target: torch.Tensor,
    counts: torch.Tensor,
    agents: tuple[int, ...],
    seed: int,
    label: int,
) -> AnyHead:
    """
    Args:
        make: makes a head that sees the given factors. target: float `(n,)`. counts: bool `(n,)`, the transitions
            whose held-out errors decide what the head sees.
    """
    data = known_rows(data | {"target": target, "counts": counts}, label)
    target, counts = data["target"], data["counts"]
    if not len(target):  # without any label, nothing ever happens
        silent = make(agents).to(data["next"]).requires_grad_(False)
        silent.net.weight_1.zero_()
        silent.net.bias_1.fill_(NEVER)
        return silent
    held_out = held_out_episodes(data["episode"], seed)
    fitting = ~held_out if bool((~held_out).any()) else held_out

    def fit(seen: tuple[tuple[int, ...], int], rows: torch.Tensor) -> AnyHead:
        torch.manual_seed(seed)
        head = make(seen[0]).to(data["next"])
        few = seen[1] < world.factor_dim
        if few:
            head.net.weight_0.data.mul_(BENDS * (world.factor_dim / seen[1]) ** 0.5)
            head.net.bias_0.data.normal_(std=BENDS)
        _train(head, seen[1], data, usual if few else usual[:0], target, rows, seed)
        return head

    tried: list[tuple[tuple[int, ...], int]] = [(agents, numbers) for numbers in world.model.readings]
    tried.append((tuple(range(world.factors)), world.factor_dim))
    errors = [_errors(fit(seen, fitting), data["next"][held_out], target[held_out]) for seen in tried]
    chosen = 0
    for other in range(1, len(tried)):
        if _much_better(errors[chosen], errors[other], counts[held_out]):
            chosen = other
    return fit(tried[chosen], torch.ones_like(held_out))


def _train(
    head: EventHead | DenseHead,
    numbers: int,
    data: dict[str, torch.Tensor],
    usual: torch.Tensor,
    target: torch.Tensor,
    rows: torch.Tensor,
    seed: int,
) -> None:
    """Fit a head to the transitions in the mask `rows`; it reads the first `numbers` numbers of each factor."""
    # A policy meets predicted factors in imagination and inferred factors on the task: the head is fitted to both.
    factors = torch.cat([data["next"][rows], data["imagined"][rows], usual])[:, head.sees]
    unread = torch.arange(head.factor_dim, device=factors.device) >= numbers
    factors = factors.masked_fill(unread, 0.0).flatten(1)
    target = torch.cat([target[rows].repeat(2), target.new_zeros(len(usual))])
    # Events are rare: each weighs the square root of the inverse of their share.
    weight = torch.where(target > 0.5, (1 / target.mean().clamp_min(1e-3)).sqrt(), torch.ones_like(target))

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(target.device)
        outputs = head.net(factors[drawn]).squeeze(-1)
        if isinstance(head, DenseHead):
            return nn.functional.mse_loss(outputs, target[drawn])
        return nn.functional.binary_cross_entropy_with_logits(outputs, target[drawn], weight[drawn])

    fit_ensemble(head.net, loss, len(target), seed)
    head.net.weight_0.masked_fill_(unread.repeat(len(head.sees))[:, None], 0.0)


def _errors(head: EventHead | DenseHead, factors: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    if isinstance(head, DenseHead):
        return (head.outputs(factors).mean(0) - target).square()
    return nn.functional.binary_cross_entropy(head(factors).clamp(1e-4, 1 - 1e-4), target, reduction="none")


def _much_better(narrow: torch.Tensor, wide: torch.Tensor, counts: torch.Tensor) -> bool:
    """Whether the errors `wide` have at most half the mean of `narrow`, and are smaller by two standard errors on the
    transitions that count. For events only these count: they are rare, and with few held out the choice would be
    chance."""
    gain = (narrow - wide)[counts]
    if len(gain) < FEWEST:
        return False
    certain = gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    return bool(certain & (wide.mean() < 0.5 * narrow.mean()))
