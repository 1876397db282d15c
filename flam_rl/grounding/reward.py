"""Reward and end of the states that are entered, fitted to labels."""

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
"""Held-out events, or dense rewards, from which they have a say."""
RARE = 0.5
"""Share of transitions up to which rewards are events."""
ALIKE = 0.5
"""How much rewards that are one kind of event may vary: their standard deviation by their mean."""

BENDS = 6.0
"""By how much first weights of heads that read few numbers are larger, and how far their bends lie apart: an event is at a place, and
what few bends at 0 make of it reaches to the border of the frame."""

AnyHead = TypeVar("AnyHead", EventHead, DenseHead)


def fit_reward_head(
    world: World, data: dict[str, torch.Tensor], usual: torch.Tensor, agents: tuple[int, ...], seed: int
) -> EventHead | DenseHead:
    """Rewards that are rare and alike are an event that is worth their mean; any others are predicted as they are.

    Args:
        data: of `labelled_factors`. usual: as `fit_event_head`'s.
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
    """Whether the rewards other than 0 of so many transitions, float `(n,)`, are one kind of rare event."""
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
    """A head that sees of the agents' factors the first of the model's `readings`, or more, or all factors, where held-out labels
    clearly ask for it.

    Args:
        data: of `labelled_factors`. usual: factors `(n, K, S)` of the video, without labels; events are rare, so that a head
            that reads few numbers takes these for none. Else a head says anything of where no label leads, and that is where a policy goes. event: bool `(n,)`. label: which one tells events, as `known_rows` counts.
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
        make: a head that sees these factors. target: float `(n,)`. counts: bool `(n,)`, of which held-out errors decide
            what the head sees.
    """
    data = known_rows(data | {"target": target, "counts": counts}, label)
    target, counts = data["target"], data["counts"]
    if not len(target):  # nobody said anything: nothing ever happens
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
    """Fit a head to transitions in the mask `rows`; it reads so many of the first numbers of factors."""
    # The policy meets predicted factors in imagination and inferred ones on the task: fit both.
    factors = torch.cat([data["next"][rows], data["imagined"][rows], usual])[:, head.sees]
    unread = torch.arange(head.factor_dim, device=factors.device) >= numbers
    factors = factors.masked_fill(unread, 0.0).flatten(1)
    target = torch.cat([target[rows].repeat(2), target.new_zeros(len(usual))])
    # Events are rare: each weighs by the root of how rare it is.
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
    """Whether the errors `wide` are at most half of `narrow`, and smaller by two standard errors on what counts, events
    alone: they are rare, and where few are held out the choice would be chance."""
    gain = (narrow - wide)[counts]
    if len(gain) < FEWEST:
        return False
    certain = gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    return bool(certain & (wide.mean() < 0.5 * narrow.mean()))
