"""The floor: copy the last frame."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Normal

from ...core.layers import unit_rms
from ..tiles.aggregator import Aggregated
from ..tiles.code_model import CodeFacts
from .rival import Continuous


class CopyLastFrame(Continuous):
    """The floor: nothing ever moves. It has no parameters; a factor is the frame's codes, each a fixed random vector."""

    WIDTH = 16
    vectors_VD: torch.Tensor

    def _prepare(self, facts: CodeFacts) -> None:
        self._make(facts, 0)

    def _make(self, facts: CodeFacts, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        vectors_VD = torch.randn(len(facts.looks_VP), self.WIDTH, generator=generator)
        self.register_buffer("vectors_VD", unit_rms(vectors_VD))

    @property
    def factors(self) -> int:
        """K: the scene."""
        return 1

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.grid[0] * self.grid[1] * self.WIDTH

    @property
    def window(self) -> int:
        """The present frame."""
        return 1

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """One factor `(B, T, 1, S)`: fixed random vectors of the codes, side by side."""
        return nn.functional.embedding(z_BTN, self.vectors_VD).flatten(-2).unsqueeze(-2)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """A standard normal: latent actions carry no information."""
        zeros = factors_BTKS.new_zeros(*factors_BTKS[:, 1:].shape[:-1], self.latent_action_dim)
        return Normal(zeros, torch.ones_like(zeros))

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """The same factors."""
        return factors_BKS

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """The codes whose vectors the factor holds."""
        vectors = factors_BKS.squeeze(-2).unflatten(-1, (-1, self.WIDTH))
        log_probs = (20 / self.WIDTH * vectors @ self.vectors_VD.T).log_softmax(-1)
        return Aggregated(log_probs, log_probs.new_ones(*log_probs.shape[:-2], 1, log_probs.shape[-2]))
