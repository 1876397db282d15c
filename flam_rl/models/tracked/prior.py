"""The prior: latent actions that entities take by themselves, births and deaths."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy
from vector_quantize_pytorch import VectorQuantize

from ...core.layers import mlp
from .dynamics import DynamicsConfig
from .states import PRESENCE, StateConfig

BANK = 256
"""Number of births, drawn from those of the video, that imagination repeats."""


NEVER = -1e4
"""Logit of an event that never happens."""


class Chances(NamedTuple):
    """The prior's outputs.

    Attributes:
        code_BKM: logits of action codes, for present factors. death_BK: logit that a present factor is gone in the
            next frame. birth_BK: logit that an entity appears in an empty row.
    """

    code_BKM: Float[Tensor, "*B K M"]
    death_BK: Float[Tensor, "*B K"]
    birth_BK: Float[Tensor, "*B K"]


class TrackedPrior(nn.Module):
    """`p(a^i | s)` of factors that move at once: weights of action codes, which all factors share.

    The prior has codes because behaviour is often one of several options (left or right) and not their mean. A new
    entity takes the latent action of a birth in the video, which holds place, velocity and look. The paper has no
    prior.
    """

    bank_NA: Tensor
    nobody_A: Tensor

    def __init__(self, config: DynamicsConfig, state: StateConfig) -> None:
        super().__init__()
        self.state = state
        a = config.latent_action_dim
        self.net = mlp(
            state.seen_dim + config.pair_hidden + 1, config.hidden, config.action_codes + 1, layers=3
        )
        self.birth = mlp(state.dim + 2, config.hidden // 2, 1)
        self.codes = VectorQuantize(
            a,
            config.action_codes,
            decay=0.98,
            kmeans_init=True,
            threshold_ema_dead_code=1,
            commitment_weight=1.0,
        )
        self.register_buffer("bank_NA", torch.zeros(BANK, a))
        self.register_buffer("nobody_A", torch.zeros(a))

    def forward(self, factors_BKS: Float[Tensor, "*B K S"], seen_BKH: Float[Tensor, "*B K H"]) -> Chances:
        """Factors, and what each sees of others."""
        there = factors_BKS[..., PRESENCE].sum(-1, keepdim=True)
        crowd = (there / self.state.factors).unsqueeze(-2).expand(*seen_BKH.shape[:-1], 1)
        out = self.net(torch.cat([self.state.seen(factors_BKS), seen_BKH, crowd], -1))
        scene = torch.cat([factors_BKS.sum(-2) / there.clamp_min(1), there, 1 / (there + 1)], -1)
        birth = self.birth(scene).expand(out.shape[:-1])
        death = out[..., -1]
        if self.state.margin:  # the camera stays
            death = torch.cat([death[..., :-1], torch.full_like(death[..., -1:], NEVER)], -1)
        return Chances(out[..., :-1], death, birth)

    def loss(
        self,
        factors_BKS: Float[Tensor, "B K S"],
        seen_BKH: Float[Tensor, "B K H"],
        index_BK: Int[Tensor, "B K"],
        stays_BK: Bool[Tensor, "B K"],
    ) -> Tensor:
        """Cross-entropy of action codes, deaths and births, per factor and frame.

        Args:
            index_BK: codes taken. stays_BK: presence in the next frame.
        """
        chances = self(factors_BKS, seen_BKH)
        there = factors_BKS[..., PRESENCE] > 0.5
        code = cross_entropy(chances.code_BKM.flatten(0, -2), index_BK.flatten(), reduction="none")
        code = code.view(there.shape) * (there & stays_BK)
        death = binary_cross_entropy_with_logits(chances.death_BK, (~stays_BK).float(), reduction="none")
        birth = binary_cross_entropy_with_logits(chances.birth_BK, stays_BK.float(), reduction="none")
        return (code + torch.where(there, death, birth)).mean()

    @property
    def codebook(self) -> Float[Tensor, "M A"]:
        """Latent actions that the codes stand for."""
        return self.codes.codebook

    @torch.no_grad()
    def keep_births(
        self,
        births_NA: Float[Tensor, "_ A"],
        nobody_NA: Float[Tensor, "_ A"],
        generator: torch.Generator,
    ) -> None:
        """Set the bank of births, and the latent action of rows that stay empty, from those of the video."""
        if len(nobody_NA):
            self.nobody_A.copy_(nobody_NA.mean(0))
        if len(births_NA):
            drawn = torch.randint(len(births_NA), (len(self.bank_NA),), generator=generator)
            self.bank_NA.copy_(births_NA[drawn])
        else:
            self.bank_NA.copy_(self.nobody_A.expand_as(self.bank_NA))

    @torch.no_grad()
    def keep_alive(self) -> None:
        """Nobody goes, whatever the state: of a video in which nobody does, a network still says so by a small chance."""
        last = self.net[-1]
        assert isinstance(last, nn.Linear)
        last.weight[-1] = 0
        last.bias[-1] = NEVER
