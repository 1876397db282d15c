"""ActionAdapter: latent action of the agent's factor <-> real action, from a label budget."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import nn

from ..core.heads import Adapter, Labels
from ..core.world import World
from ..files import written_whole
from ..types import LabelledTransitions
from .fitting import fit_ensemble, fit_event_head, held_out_episodes, labelled_factors

STILL = 0.01
"""Mean square change of a factor, of unit RMS, below which nothing happened to it."""


@dataclass(frozen=True)
class ActionAdapter:
    """Which factor is the agent's, and what its latent actions are in real ones.

    Attributes:
        agent_factor: index of the factor whose latent action tells the labelled action best.
        net: the networks, with the factor as context.
        accuracy: share of held-out labelled actions that each factor's network gets right, `(K,)`.
        budget: how many labelled transitions were read.
    """

    agent_factor: int
    net: Adapter
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
            ValueError: `labelled` holds more transitions than `budget`.
        """
        if len(labelled) > budget:
            raise ValueError(f"{len(labelled)} labelled transitions given, but the budget is {budget}")
        data = labelled_factors(world, labelled)
        count = labelled.action_count
        held_out = held_out_episodes(data["episode"], seed)
        fitting = ~held_out if bool((~held_out).any()) else held_out
        accuracy = []
        for factor in range(world.factors):
            net = _fit(world, data, factor, count, fitting, seed)
            right = (
                net.real(data["now"][held_out, factor], data["latent"][held_out, factor])
                == data["action"][held_out]
            )
            accuracy.append(float(right.float().mean()))
        agent = max(range(world.factors), key=accuracy.__getitem__)
        net = _fit(world, data, agent, count, torch.ones_like(held_out), seed)
        return cls(agent, net, tuple(accuracy), len(labelled))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to one safetensors file, in place only when whole."""
        path = Path(path)
        about = {
            "agent_factor": str(self.agent_factor),
            "actions": str(self.net.actions),
            "accuracy": ",".join(map(str, self.accuracy)),
            "budget": str(self.budget),
        }
        state = {k: v.detach().cpu().contiguous() for k, v in self.net.state_dict().items()}
        with written_whole(path) as scratch:
            scratch.write_bytes(save(state, about))

    @classmethod
    def load(cls, path: str | os.PathLike[str], world: World) -> ActionAdapter:
        """Read what `save` wrote.

        Raises:
            ValueError: the file is missing, truncated, or does not fit `world`.
        """
        try:
            with safe_open(path, "pt") as file:
                about = file.metadata()
                state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            net = Adapter(world.factor_dim, world.latent_action_dim, int(about["actions"])).float()
            net.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not an adapter for this world ({error})") from error
        accuracy = tuple(map(float, about["accuracy"].split(",")))
        return cls(int(about["agent_factor"]), net.requires_grad_(False), accuracy, int(about["budget"]))


def fit_labels(
    world: World, labelled: LabelledTransitions, budget: int = 1000, seed: int = 0
) -> tuple[Labels, ActionAdapter]:
    """Everything that labels add to a world: `world.labels = fit_labels(world, labelled)[0]`."""
    adapter = ActionAdapter.fit(world, labelled, budget, seed)
    data = labelled_factors(world, labelled)
    rewarded = data["reward"] != 0
    value = float(data["reward"][rewarded].mean()) if bool(rewarded.any()) else 0.0
    reward = fit_event_head(world, data, rewarded, value, adapter.agent_factor, seed)
    termination = fit_event_head(world, data, data["termination"], 1.0, adapter.agent_factor, seed)
    return Labels(adapter.agent_factor, adapter.net, reward, termination, adapter.budget), adapter


def told(now_BS: torch.Tensor, next_BS: torch.Tensor, action_B: torch.Tensor, actions: int) -> torch.Tensor:
    """Which transitions tell what a latent action is in real ones: bool `(B,)`.

    Walking into a wall and staying change nothing alike. Of the transitions that changed nothing, only those
    tell whose action most surely does nothing; else a latent action of staying decodes to one of walking.
    """
    still = (next_BS - now_BS).square().mean(-1) < STILL
    often = torch.bincount(action_B, minlength=actions)
    idle = (torch.bincount(action_B[still], minlength=actions) / (often + 5)).argmax()
    return ~still | (action_B == idle)


def _fit(
    world: World, data: dict[str, torch.Tensor], factor: int, actions: int, rows: torch.Tensor, seed: int
) -> Adapter:
    torch.manual_seed(seed)
    net = Adapter(world.factor_dim, world.latent_action_dim, actions).to(data["now"])
    rows = rows & told(data["now"][:, factor], data["next"][:, factor], data["action"], actions)
    now, action = data["now"][rows, factor], data["action"][rows]
    latent = data["latent"][rows, factor]
    # In imagination latent actions are snapped to codes, so the adapter must know those as well.
    snapped = world.snap(data["now"][rows], factor, data["latent"][rows, factor])
    now, action, latent = now.repeat(2, 1), action.repeat(2), torch.cat([latent, snapped])
    chosen = nn.functional.one_hot(action, actions).to(now)

    def loss(drawn: torch.Tensor) -> torch.Tensor:
        drawn = drawn.to(now.device)
        logits = net.to_real(torch.cat([now[drawn], latent[drawn]], -1))
        guessed = net.to_latent(torch.cat([now[drawn], chosen[drawn]], -1))
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), action[drawn].flatten()
        ) + nn.functional.mse_loss(guessed, latent[drawn])

    fit_ensemble(net, loss, len(now), seed)
    return net
