"""PlaySlot: factors as FLAM's, one latent action for all."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Normal

from ..aggregator import Aggregated, make_aggregator
from ..dynamics import ForwardDynamics
from ..layers import AttentionOverFactors, mlp
from ..world_model import CodeFacts, make_factorizer
from .rival import Continuous


class PlaySlot(Continuous):
    """PlaySlot (Villar-Corrales and Behnke 2025, arXiv 2502.07600): factors as FLAM's, one latent action for all.

    There slots come from SAVi, the latent action is a code plus a small continuous part, and the dynamics is a
    transformer over past slots; here everything but the latent action is FLAM's, so that it alone is compared.
    """

    def _make(self, facts: CodeFacts, width: int) -> None:
        config, dim = self.config, self.config.factorizer.factor_dim
        self.factorizer = make_factorizer(config, facts)
        self.pair = nn.Linear(3 * dim, dim)
        self.interaction = AttentionOverFactors(dim)
        self.infer = mlp(dim, width, 2 * self.latent_action_dim)
        wide = replace(config.dynamics, latent_action_dim=self.latent_action_dim, hidden=width)
        self.forward_dynamics = ForwardDynamics(wide, dim)
        self.aggregator = make_aggregator(config.aggregator, dim, facts.grid, facts.still_NV)

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        return self.factorizer(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        now, following = factors_BTKS[:, :-1], factors_BTKS[:, 1:]
        pair = self.interaction(self.pair(torch.cat([now, following, following - now], -1)))
        mean, raw = self.infer(pair.mean(-2, keepdim=True)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw + 0.5) + 1e-2)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        shared = latent_actions_BLA.expand(*factors_BKS.shape[:-1], -1)
        return self.forward_dynamics(factors_BKS, shared)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        return self.aggregator(factors_BKS)
