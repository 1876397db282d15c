"""What a policy reads of a world's factors."""

from __future__ import annotations

import gymnasium as gym
import torch
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from torch import nn


class FactorsExtractor(BaseFeaturesExtractor):
    """The policy's own factors as they are, and a sum over the others of what each is to them (Zaheer et al. 2017,
    arXiv 1703.06114), whatever the order of these.

    The sum is 0 before training (as in Bachlechner et al. 2020, arXiv 2003.04887). A policy so learns first to move its own
    entity: the looks of others are many numbers, and would drown the few that say where it is.

    Args:
        space: of the observation `factors` of FLAM-v0, `(K * S + C,)`.
        own: indices of the policy's factors.
        shape: K and S.
        hidden: width of the network that reads another factor.
        seen: width of what it tells.
    """

    def __init__(
        self,
        space: gym.spaces.Box,
        own: tuple[int, ...],
        shape: tuple[int, int],
        hidden: int = 64,
        seen: int = 32,
    ) -> None:
        factors, factor_dim = shape
        size, own_dim = factors * factor_dim, len(own) * factor_dim
        super().__init__(space, space.shape[0] - size + own_dim + seen)
        self.size, self.shape, self.own = size, shape, list(own)
        self.others = sorted(set(range(factors)) - set(own))
        self.net = nn.Sequential(nn.Linear(own_dim + factor_dim, hidden), nn.ReLU(), nn.Linear(hidden, seen))
        self.gain = nn.Parameter(torch.zeros(()))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Observations float `(B, K * S + C)` to features `(B, F)`."""
        factors_BKS = observations[:, : self.size].unflatten(1, self.shape)
        own, others = factors_BKS[:, self.own].flatten(1), factors_BKS[:, self.others]
        pairs = torch.cat([own.unsqueeze(1).expand(-1, len(self.others), -1), others], -1)
        told = self.gain * self.net(pairs).sum(1)
        return torch.cat([own, told, observations[:, self.size :]], 1)
