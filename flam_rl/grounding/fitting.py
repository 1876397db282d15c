"""Fit what labels add to a world: the adapter's networks, reward and termination heads."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ..core.heads import MEMBERS, EventHead
from ..core.threads import one_core
from ..core.world import World
from ..types import LabelledTransitions

STEPS = 400
FEWEST_EVENTS = 5
"""Held-out events from which they have a say."""


@one_core()
@torch.inference_mode()
def labelled_factors(world: World, labelled: LabelledTransitions) -> dict[str, torch.Tensor]:
    """Labelled episodes as flat transitions of factors.

    Returns:
        now, next, imagined: float `(n, K, S)`, the last what the world makes of `now` under the inferred
        latent actions; latent: float `(n, K, A)`, of each factor; action int64, reward float, termination bool and
        episode int64 `(n,)`.

    Raises:
        ValueError: the world's model is told the true actions.
    """
    if world.model.needs_actions:
        raise ValueError("the oracle's latent actions are the true ones; there is nothing to fit to labels")
    device = world.device
    columns: dict[str, list[torch.Tensor]] = {}
    labels = zip(labelled.episodes, labelled.actions, labelled.rewards, labelled.terminations, strict=True)
    for index, (frames, actions, rewards, terminations) in enumerate(labels):
        factors = world.see(torch.as_tensor(frames, device=device)[None]).factors
        taken = world.infer_actions(factors).mean[0]
        now, latent = factors[0, :-1], world.of_factors(taken)
        row = {
            "now": now,
            "next": factors[0, 1:],
            "imagined": world.step(now, taken),
            "latent": latent,
            "action": torch.tensor(actions, device=device),
            "reward": torch.tensor(rewards, device=device),
            "termination": torch.tensor(terminations, device=device),
            "episode": torch.full((len(actions),), index, device=device),
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(value)
    return {key: torch.cat(parts) for key, parts in columns.items()}


def held_out_episodes(episode: torch.Tensor, seed: int, share: float = 0.2) -> torch.Tensor:
    """bool `(n,)`: which transitions are of the held-out episodes, at least one episode."""
    count = int(episode.max()) + 1
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(episode.device)
    return torch.isin(episode, order[: max(1, round(share * count))])


@one_core()
def fit_ensemble(net: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], count: int, seed: int) -> None:
    """AdamW on `loss(rows)`, rows int64 `(members, batch)`: each member draws transitions of its own."""
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 5e-3, weight_decay=1e-2)
    with torch.enable_grad():
        net.requires_grad_(True)
        for step in range(STEPS):
            optimizer.param_groups[0]["lr"] = 5e-3 * 0.5 * (1 + math.cos(math.pi * step / STEPS))
            rows = torch.randint(count, (MEMBERS, min(256, count)), generator=generator)
            optimizer.zero_grad(set_to_none=True)
            loss(rows).backward()
            optimizer.step()
    net.requires_grad_(False)


def fit_event_head(
    world: World,
    data: dict[str, torch.Tensor],
    event: torch.Tensor,
    value: float,
    agent_factor: int,
    seed: int,
) -> EventHead:
    """A head that sees the agent's factor, or all of them where held-out labels clearly ask for it.

    Args:
        data: of `labelled_factors`. event: bool `(n,)`.
    """
    held_out = held_out_episodes(data["episode"], seed)
    fitting = ~held_out if bool((~held_out).any()) else held_out
    heads, errors = [], []
    for sees in ((agent_factor,), tuple(range(world.factors))):
        torch.manual_seed(seed)
        head = EventHead(world.factor_dim, sees, value).to(data["next"])
        _fit_head(head, data, event, fitting, seed)
        heads.append(head)
        errors.append(_head_errors(head, data, event, held_out))
    chosen = heads[_much_better(errors[0], errors[1], event[held_out])]
    _fit_head(chosen, data, event, torch.ones_like(held_out), seed)
    return chosen


def _fit_head(
    head: EventHead, data: dict[str, torch.Tensor], event: torch.Tensor, rows: torch.Tensor, seed: int
) -> None:
    # The policy meets predicted factors in imagination and inferred ones on the task: fit both.
    factors = torch.cat([data["next"][rows], data["imagined"][rows]])[:, head.sees].flatten(1)
    target = event[rows].repeat(2).float()
    # Events are rare: each weighs by the root of how rare it is.
    weight = torch.where(target > 0.5, (1 / target.mean().clamp_min(1e-3)).sqrt(), torch.ones_like(target))

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(target.device)
        logits = head.net(factors[drawn]).squeeze(-1)
        return nn.functional.binary_cross_entropy_with_logits(logits, target[drawn], weight[drawn])

    fit_ensemble(head.net, loss, len(target), seed)


def _head_errors(
    head: EventHead, data: dict[str, torch.Tensor], event: torch.Tensor, rows: torch.Tensor
) -> torch.Tensor:
    probability = head(data["next"][rows]).clamp(1e-4, 1 - 1e-4)
    return nn.functional.binary_cross_entropy(probability, event[rows].float(), reduction="none")


def _much_better(narrow: torch.Tensor, wide: torch.Tensor, event: torch.Tensor) -> bool:
    """Whether the errors `wide` are at most half of `narrow`, and smaller by two standard errors on events alone:
    they are rare, and where few are held out the choice would be chance."""
    gain = (narrow - wide)[event]
    if len(gain) < FEWEST_EVENTS:
        return False
    certain = gain.mean() > 2 * gain.std() / len(gain) ** 0.5
    return bool(certain & (wide.mean() < 0.5 * narrow.mean()))
