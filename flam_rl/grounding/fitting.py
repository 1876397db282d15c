"""Shared by all fits to labels: transitions as factors, held-out episodes, training of an ensemble."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from ..core.layers import MEMBERS
from ..core.threads import one_core
from ..core.world import World
from ..types import LabelledTransitions

STEPS = 400
BLOCKS = 5
"""A single labelled episode is divided into as many runs of transitions, so that one of them can be held out."""


@one_core()
@torch.inference_mode()
def labelled_factors(world: World, labelled: LabelledTransitions) -> dict[str, torch.Tensor]:
    """Labelled episodes as flat transitions of factors.

    Returns:
        now, next, imagined: float `(n, K, S)`; `imagined` is the world's step from `now` under the inferred latent
            actions. latent: float `(n, K, A)`, the latent action of each factor. action `(n, *shape)`; reward float,
            termination bool and episode int64 `(n,)`. known: bool `(n, 3)`, whether action, reward and termination
            are labelled.

    Raises:
        ValueError: the world's model needs true actions.
    """
    if world.model.needs_actions:
        raise ValueError("the oracle's latent actions are the true ones; there is nothing to fit to labels")
    device = world.device
    columns: dict[str, list[torch.Tensor]] = {}
    labels = zip(
        labelled.episodes,
        labelled.actions,
        labelled.rewards,
        labelled.terminations,
        labelled.known,
        strict=True,
    )
    for index, (frames, actions, rewards, terminations, known) in enumerate(labels):
        factors = world.see(torch.as_tensor(frames, device=device)[None]).factors
        taken = world.infer_actions(factors).mean[0]
        now, latent = factors[0, :-1], world.actions_per_factor(taken)
        row = {
            "now": now,
            "next": factors[0, 1:],
            "imagined": world.step(now, taken),
            "latent": latent,
            "action": torch.tensor(actions, device=device),
            "reward": torch.tensor(rewards, device=device),
            "termination": torch.tensor(terminations, device=device),
            "episode": torch.full((len(actions),), index, device=device),
            "known": torch.tensor(known, device=device),
        }
        for key, value in row.items():
            columns.setdefault(key, []).append(value[row["known"].any(1)])
    return {key: torch.cat(parts) for key, parts in columns.items()}


def known_rows(data: dict[str, torch.Tensor], label: int) -> dict[str, torch.Tensor]:
    """The transitions with a known label: 0 the action, 1 the reward, 2 the termination."""
    rows = data["known"][:, label]
    return {key: values[rows] for key, values in data.items()}


def held_out_episodes(episode: torch.Tensor, seed: int, share: float = 0.2) -> torch.Tensor:
    """Which transitions are held out, bool `(n,)`: those of at least one episode; of a single episode, one run of
    transitions."""
    count = int(episode.max()) + 1
    if count == 1:
        count = min(BLOCKS, len(episode))
        episode = torch.arange(len(episode), device=episode.device) * count // len(episode)
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).to(episode.device)
    return torch.isin(episode, order[: max(1, round(share * count))])


@one_core()
def fit_ensemble(net: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], count: int, seed: int) -> None:
    """Minimise `loss(rows)` by AdamW, rows int64 `(members, batch)`: each member draws its own transitions."""
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
