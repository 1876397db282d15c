"""Inverse and forward dynamics of things that move continuously, each shared by all factors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributions import Normal

from ...core.layers import mlp
from ...types import check_ranges
from .states import DEPTH, LOOK, NEAR, PLACE, PRESENCE, VELOCITY, StateConfig


@dataclass(frozen=True)
class DynamicsConfig:
    """Settings of inverse dynamics, forward dynamics and prior."""

    latent_action_dim: int = 4
    """A."""
    hidden: int = 128
    """Width of networks."""
    pair_hidden: int = 48
    """Width of the network that sees another factor."""
    neighbors: int = 4
    """Number of nearest other factors that a factor sees."""
    reach: float = 20.0
    """Distance of centres in pixels at which the weight of another factor reaches 0."""
    action_codes: int = 64
    """M: latent actions that the prior chooses from."""

    def __post_init__(self) -> None:
        check_ranges(self, latent_action_dim=(1, 256), hidden=(4, 4096), pair_hidden=(4, 4096))
        check_ranges(self, neighbors=(1, 64), reach=(1.0, 1e4), action_codes=(1, 4096))


class Interaction(nn.Module):
    """What a factor sees of its nearest other factors: a sum over pairs, with weights that fade with distance.

    The sum has no jumps when another factor comes into reach, and does not depend on the order of factors at equal
    distances.
    """

    def __init__(self, config: DynamicsConfig, state: StateConfig) -> None:
        super().__init__()
        self.neighbors, self.longest, self.speed = config.neighbors, state.half, state.speed
        self.reach = config.reach
        self.own = nn.Linear(state.look_dim, config.pair_hidden)
        self.other = nn.Linear(state.look_dim, config.pair_hidden)
        self.way = nn.Linear(8, config.pair_hidden)
        self.net = nn.Sequential(nn.GELU(), nn.Linear(config.pair_hidden, config.pair_hidden), nn.GELU())

    def forward(self, factors_BKS: Float[Tensor, "*B K S"]) -> Float[Tensor, "*B K H"]:
        """Factors float `(..., K, S)` to what each sees of the others, `(..., K, pair_hidden)`; zeros if no other is
        near."""
        k = factors_BKS.shape[-2]
        count = min(self.neighbors, k - 1)
        if count == 0:
            return factors_BKS.new_zeros(*factors_BKS.shape[:-1], self.way.out_features)
        place, velocity = factors_BKS[..., PLACE] * self.longest, factors_BKS[..., VELOCITY] * self.speed
        apart = place.unsqueeze(-3) - place.unsqueeze(-2)
        distance = apart.square().sum(-1).clamp_min(1e-6).sqrt()
        absent = (factors_BKS[..., PRESENCE] < 0.5) | (factors_BKS[..., DEPTH] < -0.5)  # or the camera
        lone = absent.unsqueeze(-2) | torch.eye(k, dtype=torch.bool, device=place.device)
        near, index = distance.masked_fill(lone, 1e6).topk(count, -1, largest=False)
        pick = index.unsqueeze(-1)
        apart = apart.gather(-2, pick.expand(*index.shape, 2))
        rest = (velocity.unsqueeze(-3) - velocity.unsqueeze(-2)).gather(-2, pick.expand(*index.shape, 2))
        near_1 = near.clamp(max=1e3).unsqueeze(-1)
        towards = apart / near_1
        approach = (towards * rest).sum(-1, keepdim=True)
        way = torch.cat([towards, near_1 / NEAR - 2, apart / NEAR, rest, approach], -1)
        look = factors_BKS[..., LOOK]
        other = self.other(look).unsqueeze(-3).expand(*index.shape[:-1], k, -1)
        other = other.gather(-2, pick.expand(*index.shape, other.shape[-1]))
        seen = self.net(self.way(way) + self.own(look).unsqueeze(-2) + other)
        weight = (1 - near / self.reach).clamp_min(0)
        return (seen * weight.unsqueeze(-1)).sum(-2)


ENDS = -2.0
"""The change that stands for the end of a factor, in each of its numbers: larger than any real change, so that a
latent action can represent an end."""


class InverseDynamics(nn.Module):
    """`q(a_t^i | s_t, s_{t+1}^i)`, a diagonal Gaussian (FLAM, sec. 3). For an empty row, the latent action represents
    the entity that appears."""

    def __init__(self, config: DynamicsConfig, state: StateConfig) -> None:
        super().__init__()
        self.state = state
        a, change = config.latent_action_dim, 3 + state.look_dim
        self.interaction = Interaction(config, state)
        self.move = mlp(state.seen_dim + change + config.pair_hidden, config.hidden, 2 * a, layers=3)
        self.birth = mlp(state.dim, config.hidden, 2 * a, layers=3)

    def forward(self, now_BKS: Float[Tensor, "*B K S"], next_BKS: Float[Tensor, "*B K S"]) -> Normal:
        """Factors float `(..., K, S)` of two successive frames to a Normal of shape `(..., K, A)`."""
        mean, raw = self.outputs(now_BKS, next_BKS).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw + 0.5) + 1e-2)

    def outputs(self, now_BKS: Float[Tensor, "*B K S"], next_BKS: Float[Tensor, "*B K S"]) -> Tensor:
        """Means and raw spreads (before softplus): `(..., K, 2A)`."""
        change = (next_BKS - now_BKS)[..., [2, 3, 4, *range(6, now_BKS.shape[-1])]]
        change = torch.cat([change[..., :2] * 4, change[..., 2:]], -1)
        seen = self.interaction(now_BKS)
        change = torch.where(next_BKS[..., PRESENCE, None] > 0.5, change, ENDS)
        moved = self.move(torch.cat([self.state.seen(now_BKS), change, seen], -1))
        born = self.birth(next_BKS)
        there = now_BKS[..., PRESENCE, None] > 0.5
        return torch.where(there, moved, born)


STAYS, GATE = 3, 4
"""Outputs of the network that moves factors: the logit of staying, and the gate of the look's change."""


def opened(logit: Tensor) -> Tensor:
    """A gate in 0..1 that is exactly 0 below a logit of about -2.4, so that looks do not drift over many steps."""
    return (1.2 * logit.sigmoid() - 0.1).clamp(0, 1)


class Step(NamedTuple):
    """The outputs of forward dynamics.

    Attributes:
        factors_BKS: the next factors, given that each is present.
        logit_BK: logit of being present.
        opened_BK: the gate of the look's change, 0 to 1.
    """

    factors_BKS: Float[Tensor, "*B K S"]
    logit_BK: Float[Tensor, "*B K"]
    opened_BK: Float[Tensor, "*B K"]


class ForwardDynamics(nn.Module):
    """`s_t^i, what i sees of others, a_t^i -> s_{t+1}^i`. A latent action changes velocity, look, depth and presence
    of its own factor, and nothing of other factors. For an empty row, it decides which entity appears, and where."""

    def __init__(self, config: DynamicsConfig, state: StateConfig) -> None:
        super().__init__()
        self.state = state
        self.interaction = Interaction(config, state)
        inputs = state.seen_dim + config.pair_hidden + config.latent_action_dim
        self.move = mlp(inputs, config.hidden, 5 + state.look_dim, layers=3)
        self.birth = mlp(config.latent_action_dim, config.hidden, state.dim, layers=3)
        last = self.move[-1]
        assert isinstance(last, nn.Linear)
        with torch.no_grad():  # an untrained network keeps velocities, and every factor stays
            last.weight.mul_(0.1)
            last.bias.zero_()
            last.bias[GATE] = -1.5
            last.bias[STAYS] = 3.0

    def forward(
        self, factors_BKS: Float[Tensor, "*B K S"], latent_actions_BLA: Float[Tensor, "*B L A"]
    ) -> Step:
        """Factors `(..., K, S)` and latent actions `(..., L, A)`, L is K, to the next factors."""
        return self.look_and_move(factors_BKS, self.interaction(factors_BKS), latent_actions_BLA)

    def look_and_move(
        self,
        factors_BKS: Float[Tensor, "*B K S"],
        seen: Float[Tensor, "*B K H"],
        latent_actions_BKA: Float[Tensor, "*B K A"],
    ) -> Step:
        """As `forward`, given what each factor sees of the others."""
        out = self.move(torch.cat([self.state.seen(factors_BKS), seen, latent_actions_BKA], -1))
        velocity = factors_BKS[..., VELOCITY] + out[..., :2]
        place = factors_BKS[..., PLACE] + self.moved(velocity)
        depth = factors_BKS[..., DEPTH, None]
        depth = torch.where(depth < -0.5, depth, depth + 0.1 * out[..., 2:3])
        one = torch.ones_like(depth)
        look = factors_BKS[..., LOOK] + opened(out[..., GATE, None]) * out[..., 5:]
        moved = torch.cat([place, velocity, depth, one, look], -1)
        born = self.birth(latent_actions_BKA)
        logit = torch.where(factors_BKS[..., PRESENCE] > 0.5, out[..., STAYS], born[..., PRESENCE] - 3)
        born = torch.cat([born[..., :PRESENCE], one, born[..., PRESENCE + 1 :]], -1)
        there = factors_BKS[..., PRESENCE, None] > 0.5
        return Step(torch.where(there, moved, born), logit, out[..., GATE].sigmoid())

    def moved(self, velocity_BK2: Float[Tensor, "*B K 2"]) -> Float[Tensor, "*B K 2"]:
        """The change of places: velocities over the ground and, for entities, the motion of the ground in the frame."""
        if self.state.margin:
            camera = velocity_BK2[..., -1:, :]
            entities = velocity_BK2[..., :-1, :] + camera
            velocity_BK2 = torch.cat([entities, camera], -2)
        return velocity_BK2 * (self.state.speed / self.state.half)
