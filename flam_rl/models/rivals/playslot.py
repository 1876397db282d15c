"""PlaySlot: factors as FLAM's, one latent action for all."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
)
from vector_quantize_pytorch import VectorQuantize

from ...core.layers import TransformerBlock, nearest_code
from ..tiles.code_model import Acted
from .joint import Joint
from .rival import CODE_SPREAD

PROTOTYPES = 8
"""Action prototypes, as many as Genie has codes."""


class PlaySlot(Joint):
    """PlaySlot (Villar-Corrales and Behnke 2025, arXiv 2502.07600): factors as FLAM's, one latent action for all.

    Its inverse model for one action per scene, as the authors' code has it: a transformer reads a frame's factors into
    one action token, the latent action is drawn around the difference of two frames' tokens, and the dynamics sees it
    as the nearest of a few prototypes and the variability that is left; no KL. There slots come from SAVi, trained
    before and then frozen, and the dynamics is a transformer over past slots; here both, and the loss, are FLAM's, so
    that the latent action alone is compared. The prior, which there draws all prototypes alike, is of how often each
    was taken.
    """

    frequency_M: torch.Tensor
    spread_A: torch.Tensor

    def _make_inverse(self, dim: int, width: int) -> None:
        self.action_token = nn.Parameter(torch.zeros(dim))
        self.read = nn.Sequential(TransformerBlock(dim, width), TransformerBlock(dim, width))
        self.direction = nn.Linear(dim, self.latent_action_dim, bias=False)
        self.uncertainty = nn.Linear(dim, self.latent_action_dim)
        self.quantizer = VectorQuantize(
            self.latent_action_dim,
            PROTOTYPES,
            decay=0.98,
            kmeans_init=True,
            threshold_ema_dead_code=1,
            commitment_weight=1.0,
        )
        self.register_buffer("frequency_M", torch.full((PROTOTYPES,), 1 / PROTOTYPES))
        self.register_buffer("spread_A", torch.ones(self.latent_action_dim))

    @property
    def condition_dim(self) -> int:
        """Width of a prototype and a variability."""
        return 2 * self.latent_action_dim

    def prototype_of(self, latent_actions: torch.Tensor) -> torch.Tensor:
        """The nearest prototype: `(..., A)` to int64 `(...)`."""
        return nearest_code(latent_actions, self.quantizer.codebook)

    def condition(self, latent_actions_BLA: torch.Tensor) -> torch.Tensor:
        """The nearest prototype and the difference from it, `(..., 2A)`; gradients pass the prototype straight through."""
        prototype = self.quantizer.codebook[self.prototype_of(latent_actions_BLA)].detach()
        variability = latent_actions_BLA - prototype
        straight_through = prototype + latent_actions_BLA - latent_actions_BLA.detach()
        return torch.cat([straight_through, variability], -1)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """A Normal of shape `(B, T - 1, 1, A)` around the difference between the action tokens of two frames."""
        token = self.action_token.expand(*factors_BTKS.shape[:-2], 1, -1)
        token = self.read(torch.cat([token, factors_BTKS], -2))[..., :1, :]
        mean = self.direction(token[:, 1:] - token[:, :-1])
        variance = self.uncertainty(token).abs()
        mean = 3 * (mean / 3).tanh()  # FLAM-v0's box
        return Normal(mean, (variance[:, 1:] + variance[:, :-1] + 1e-4).sqrt())

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        """As `Continuous.act`, with the cost of commitment to prototypes and without a KL cost."""
        acted = super().act(factors_BTKS, 0.0)
        _, _, commitment = self.quantizer(acted.latent_actions_BTLA.flatten(0, -2))
        return acted._replace(
            cost=self.config.commitment * commitment.sum(),
            metrics=acted.metrics | {"commitment": commitment.sum()},
        )

    def count(self, latent_actions: torch.Tensor) -> None:
        """Make the prior that of these latent actions `(..., A)`; no prototype is impossible."""
        latent_actions = latent_actions.flatten(0, -2)
        nearest = self.prototype_of(latent_actions)
        taken = nearest.bincount(minlength=PROTOTYPES) + 1.0
        self.frequency_M.copy_(taken / taken.sum())
        variability = latent_actions - self.quantizer.codebook[nearest]
        self.spread_A.copy_((variability.square().mean(0) + CODE_SPREAD**2).sqrt())

    def prior(self, factors_BKS: torch.Tensor) -> Distribution:
        """A mixture around the prototypes, weighted by how often the video takes each."""
        weights = self.frequency_M.expand(*factors_BKS.shape[:-2], 1, -1)
        around = Normal(self.quantizer.codebook.expand(*weights.shape, -1), self.spread_A)
        return MixtureSameFamily(Categorical(weights), Independent(around, 1))

    def sample_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """As `Rival.sample_actions`: a prototype by its frequency, and a normal difference from it."""
        taken = torch.multinomial(self.frequency_M, len(factors_BKS), True, generator=generator)
        noise = super().sample_actions(factors_BKS, generator)
        return self.quantizer.codebook[taken].unsqueeze(1) + self.spread_A * noise
