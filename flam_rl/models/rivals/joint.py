"""FLAM with one latent action for all of its factors: the control."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Normal

from ...core.layers import AttentionOverFactors, mlp
from ..tiles.aggregator import Aggregated, make_aggregator
from ..tiles.code_model import CodeFacts, make_factorizer
from ..tiles.dynamics import ForwardDynamics
from .rival import Continuous


class Joint(Continuous):
    """The control, no paper's: FLAM with one joint latent action for all factors, and nothing else changed.

    The inverse model sees each factor before and after, and what the factors see of each other; it takes their mean.
    """

    def _make(self, facts: CodeFacts, width: int) -> None:
        config, dim = self.config, self.config.factorizer.factor_dim
        self.factorizer = make_factorizer(config, facts)
        self._make_inverse(dim, width)
        wide = replace(config.dynamics, latent_action_dim=self.condition_dim, hidden=width)
        self.forward_dynamics = ForwardDynamics(wide, dim)
        self.aggregator = make_aggregator(config.aggregator, dim, facts.grid, facts.still_NV)

    def _make_inverse(self, dim: int, width: int) -> None:
        """The network that infers the latent action between the factors of two frames."""
        self.pair = nn.Linear(3 * dim, dim)
        self.interaction = AttentionOverFactors(dim)
        self.infer = mlp(dim, width, 2 * self.latent_action_dim)

    @property
    def condition_dim(self) -> int:
        """Width of `condition`."""
        return self.latent_action_dim

    def condition(self, latent_actions_BLA: torch.Tensor) -> torch.Tensor:
        """What the forward dynamics sees of latent actions: `(..., A)` to `(..., condition_dim)`."""
        return latent_actions_BLA

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """As `FLAM.factorize`."""
        return self.factorizer(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """One latent action for the scene: a Normal of shape `(B, T - 1, 1, A)` from the mean over factors."""
        now, following = factors_BTKS[:, :-1], factors_BTKS[:, 1:]
        pair = self.interaction(self.pair(torch.cat([now, following, following - now], -1)))
        mean, raw = self.infer(pair.mean(-2, keepdim=True)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw + 0.5) + 1e-2)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Step every factor under the same latent action."""
        shared = self.condition(latent_actions_BLA).expand(*factors_BKS.shape[:-1], -1)
        return self.forward_dynamics(factors_BKS, shared)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """As `FLAM.aggregate`."""
        return self.aggregator(factors_BKS)
