"""Imagination: a FLAM stepped in bulk, in which the caller acts for some factors and the prior for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import nn

from .flam import FLAM
from .layers import unit_rms

PLAUSIBLE = 0.02
"""Action codes to which the prior gives less are never taken in imagination."""


class Imagined(NamedTuple):
    """Where B imagined worlds are. Factors come first, so that the worlds of one factor lie together.

    Attributes:
        factors_KBS: float `(K, B, S)` of unit RMS.
        places_KBN: float `(K, B, N)`, the share of each token at which the factor is.
    """

    factors_KBS: Float[torch.Tensor, "K B S"]
    places_KBN: Float[torch.Tensor, "K B N"]

    @property
    def factors_BKS(self) -> Float[torch.Tensor, "B K S"]:
        """Factors as all other parts take them: a view."""
        return self.factors_KBS.transpose(0, 1)


class Taken(NamedTuple):
    """What led to the next state.

    Attributes:
        latent_actions_BKA: float `(B, K, A)`, of every factor.
        log_prior_BC: float `(B, C)`, the prior's log-probability of the action code nearest to what the
            caller wanted.
    """

    latent_actions_BKA: Float[torch.Tensor, "B K A"]
    log_prior_BC: Float[torch.Tensor, "B C"]


class Imagination:
    """Steps imagined worlds, all of them at once, with the weights that `flam` has now.

    The controlled factors move first, the others after them, one by one in a random order, each seeing where
    those before it went. A caller's latent action is snapped to the nearest action code that the prior finds
    plausible: a learned world is only as good as the actions that it has seen. Gradients flow from the next
    factors to those before and, straight through the snapping (Bengio et al. 2013, arXiv 1308.3432), to
    the caller's latent actions.

    What the plain modules compute one by one is fused here: linear maps that follow each other are one, those
    that read the same factor are one product, and what depends on no other factor is done for all at once.

    Args:
        controlled: indices of the C factors that the caller acts for.
        dtype: of the products; factors stay float32.
        compile: whether the step is compiled by `torch.compile` when it is first taken.
    """

    def __init__(
        self,
        flam: FLAM,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
    ) -> None:
        self.flam, self.controlled, self.dtype, self.compile = flam, list(controlled), dtype, compile
        self._advance = torch.compile(self._step, dynamic=False) if compile else self._step
        prior, dynamics = flam.latent_action_prior, flam.forward_dynamics
        with torch.no_grad():
            self._places = flam.aggregator.frozen_places(dtype)
            self._view = _Linear(*prior.view_map(), dtype)
            look, choose, move = prior.look_at[0], prior.net[0], dynamics.net[0]
            size = flam.config.factorizer.factor_dim
            # The first layers of three networks that read the factor itself.
            self._read = _Linear(
                torch.cat([look.weight, choose.weight[:, :size], move.weight[:, :size]]),
                torch.cat([look.bias, choose.bias, move.bias]),
                dtype,
            )
            self._widths = [look.out_features, choose.out_features, move.out_features]
            self._felt = choose.weight[:, size:].to(dtype)
            self._choose = [
                _Linear(layer.weight, layer.bias, dtype) for layer in (prior.net[2], prior.net[4])
            ]
            self._seen = move.weight[:, size : 2 * size].to(dtype)
            self._act = move.weight[:, 2 * size :].to(dtype)
            self._move = [
                _Linear(layer.weight, layer.bias, dtype) for layer in (dynamics.net[2], dynamics.net[4])
            ]
            self._codebook = prior.codebook.clone()
            self._acted = self._codebook.to(dtype) @ self._act.T  # (M, hidden): an action code is a lookup

    def __reduce__(self) -> tuple:
        return Imagination, (self.flam, self.controlled, self.dtype, self.compile)

    def begin(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Imagined:
        """Worlds in which the factors are these."""
        factors_KBS = factors_BKS.transpose(0, 1).contiguous()
        return Imagined(factors_KBS, self._places(factors_KBS))

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: Float[torch.Tensor, "B C A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        """One step of every world.

        Args:
            latent_actions_BCA: float, what the caller wants of the controlled factors.
            generator: of the order in which uncontrolled factors move, and of their actions.
        """
        count, worlds, _ = now.factors_KBS.shape
        device = now.factors_KBS.device
        uncontrolled = [factor for factor in range(count) if factor not in self.controlled]
        order = torch.randperm(len(uncontrolled), generator=generator, device=device)
        order = torch.cat([_index(self.controlled, device), _index(uncontrolled, device)[order]])
        chance = torch.rand(count, worlds, 1, generator=generator, device=device)
        return self._advance(now, latent_actions_BCA, order, chance)

    def _step(
        self,
        now: Imagined,
        latent_actions_BCA: torch.Tensor | None,
        order_K: torch.Tensor,
        chance_KB1: torch.Tensor,
    ) -> tuple[Imagined, Taken]:
        """`step` with its randomness drawn: factor `order_K[t]` moves at turn t, and where the prior acts it
        takes the first action code at which the cumulative probability exceeds `chance_KB1[t]`."""
        factors, places = now
        looked = self.flam.forward_dynamics.look(factors.transpose(0, 1)).transpose(0, 1)
        look, choose, move = self._read(factors.to(self.dtype)).split(self._widths, -1)
        move = move + nn.functional.linear(looked.to(self.dtype), self._seen)
        view = self._view(nn.functional.gelu(look))
        view = view.unflatten(-1, (-1, places.shape[-1])).softmax(-1)
        factors, places, choose, move, view = (
            part.index_select(0, order_K) for part in (factors, places, choose, move, view)
        )

        staying, came, left = places.sum(0), torch.zeros_like(places[0]), torch.zeros_like(places[0])
        following: list[Imagined] = []
        taken: list[torch.Tensor] = []
        likelihood: list[torch.Tensor] = []
        for turn in range(len(factors)):
            staying = staying - places[turn]
            others = torch.stack([staying, came, left], -2).to(self.dtype)
            felt = (others @ view[turn].transpose(-1, -2)).flatten(-2)
            hidden = nn.functional.gelu(choose[turn] + nn.functional.linear(felt, self._felt))
            hidden = nn.functional.gelu(self._choose[0](hidden))
            log_probs = self._choose[1](hidden).float().log_softmax(-1)
            if turn < len(self.controlled):
                assert latent_actions_BCA is not None
                wanted = latent_actions_BCA[:, turn]
                code, log_prior = snap(log_probs, wanted, self._codebook)
                likelihood.append(log_prior)
                action = self._codebook[code]
                acted = self._acted[code]
                if wanted.requires_grad:
                    action = action + (wanted - wanted.detach())
                    acted = acted + nn.functional.linear((wanted - wanted.detach()).to(self.dtype), self._act)
            else:
                probs = log_probs.exp()
                mass = (probs * (probs >= PLAUSIBLE)).cumsum(-1)
                code = (mass <= chance_KB1[turn] * mass[:, -1:]).sum(-1)
                action, acted = self._codebook[code], self._acted[code]
            taken.append(action)
            hidden = nn.functional.gelu(move[turn] + acted)
            hidden = nn.functional.gelu(self._move[0](hidden))
            moved = unit_rms(factors[turn] + self._move[1](hidden).float())
            following.append(Imagined(moved, self._places(moved)))
            came, left = came + following[-1].places_KBN, left + places[turn]

        back = order_K.argsort()
        state = Imagined(*(torch.stack(part).index_select(0, back) for part in zip(*following, strict=True)))
        nothing = chance_KB1.new_zeros(chance_KB1.shape[1], 0)
        return state, Taken(
            torch.stack(taken).index_select(0, back).transpose(0, 1),
            torch.stack(likelihood, -1) if likelihood else nothing,
        )


def _index(factors: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(factors, dtype=torch.int64, device=device)


class _Linear:
    """A linear map with frozen weights."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor, dtype: torch.dtype) -> None:
        self.weight, self.bias = weight.detach().to(dtype).contiguous(), bias.detach().to(dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight, self.bias)


def snap(
    log_probs_BM: torch.Tensor, latent_actions_BA: torch.Tensor, codebook_MA: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """The plausible action code nearest to a wanted latent action, int64 `(B,)`, and the log-probability `(B,)`
    of the nearest of all."""
    distance = (latent_actions_BA.detach().unsqueeze(-2) - codebook_MA).square().sum(-1)
    nearest = log_probs_BM.gather(-1, distance.argmin(-1, keepdim=True)).squeeze(-1)
    implausible = log_probs_BM.exp() < PLAUSIBLE
    return distance.masked_fill(implausible, float("inf")).argmin(-1), nearest
