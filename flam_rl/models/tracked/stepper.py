"""Imagination on tracked layers: worlds stepped in bulk, the caller acts for some factors, the prior for the others."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ..tiles.dynamics import plausible, snap
from ...core.stepping import Imagined, Taken
from .flam import TrackedFLAM
from .states import PRESENCE


class TrackedImagination:
    """Steps imagined worlds, all at once. Factors move at the same time; who comes and who goes the prior draws.

    A caller's latent action is snapped to the nearest action code that the prior finds plausible.

    Args:
        controlled: indices of the C factors that the caller acts for; a row that is empty ignores it.
    """

    def __init__(self, flam: TrackedFLAM, controlled: Sequence[int] = ()) -> None:
        self.flam, self.controlled = flam, list(controlled)

    def begin(self, factors_BKS: Float[Tensor, "B K S"]) -> Imagined:
        """Worlds in which the factors are these."""
        factors_KBS = factors_BKS.transpose(0, 1).contiguous()
        return Imagined(factors_KBS, factors_KBS[..., :0])

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: Float[Tensor, "B C A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        """One step of every world.

        Args:
            latent_actions_BCA: float, what the caller wants of the controlled factors.
            generator: of what the prior draws.
        """
        factors = now.factors_BKS
        worlds, count, _ = factors.shape
        prior, dynamics = self.flam.latent_action_prior, self.flam.forward_dynamics
        chance = torch.rand(3, worlds, count, generator=generator, device=factors.device)
        seen = dynamics.interaction(factors)
        chances = prior(factors, seen)
        log_probs = chances.code_BKM.log_softmax(-1)
        probs = log_probs.exp()
        mass = (probs * plausible(probs)).cumsum(-1)
        code = (mass <= chance[0, ..., None] * mass[..., -1:]).sum(-1)
        there = factors[..., PRESENCE] > 0.5
        codes = prior.codebook[code]
        born = prior.bank_NA[(chance[2] * len(prior.bank_NA)).long().clamp(max=len(prior.bank_NA) - 1)]
        lives = torch.where(
            there, chance[1] >= chances.death_BK.sigmoid(), chance[1] < chances.birth_BK.sigmoid()
        )
        arrives = torch.where(lives[..., None], born, prior.nobody_A)
        taken = torch.where(there[..., None], codes, arrives)
        log_prior = factors.new_zeros(worlds, 0)
        if self.controlled:
            assert latent_actions_BCA is not None
            wanted = latent_actions_BCA
            index, log_prior = snap(log_probs[:, self.controlled], wanted, prior.codebook)
            through = wanted - wanted.detach() if wanted.requires_grad else 0.0
            acted = prior.codebook[index] + through
            taken = taken.clone()
            taken[:, self.controlled] = torch.where(
                there[:, self.controlled, None], acted, taken[:, self.controlled]
            )
        following, logit, _ = dynamics.look_and_move(factors, seen, taken)
        lives = lives & (there | (logit > 0))
        following = self.flam.within(following) * lives[..., None]
        nothing = factors.new_zeros(worlds)
        return self.begin(following), Taken(taken, log_prior, nothing, nothing > 0)
