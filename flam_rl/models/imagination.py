"""Imagination: a FLAM stepped in bulk, in which the caller acts for some factors and the prior for the others."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import nn

from .flam import FLAM
from .layers import linears, unit_rms

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
        size = flam.config.factorizer.factor_dim
        look, *_ = linears(prior.look_at)
        choose, *choose_rest = linears(prior.net)
        move, *move_rest = linears(dynamics.net)
        with torch.no_grad():
            # The first layers of three networks read the factor itself: one product.
            self._read = _Frozen(
                torch.cat([look.weight, choose.weight[:, :size], move.weight[:, :size]]),
                torch.cat([look.bias, choose.bias, move.bias]),
                dtype,
            )
            self._widths = [look.out_features, choose.out_features, move.out_features]
            self._view = _Frozen(*prior.view_map(), dtype)
            self._choose = [
                _Frozen(choose.weight[:, size:], None, dtype),
                *(_Frozen(layer.weight, layer.bias, dtype) for layer in choose_rest),
            ]
            self._see = _Frozen(move.weight[:, size : 2 * size], None, dtype)
            self._act = _Frozen(move.weight[:, 2 * size :], None, dtype)
            self._move = [_Frozen(layer.weight, layer.bias, dtype) for layer in move_rest]
            self._codebook = prior.codebook.clone()
            self._acted = self._act(self._codebook.to(dtype))  # (M, hidden): an action code is a lookup
            self._places = flam.aggregator.frozen_places(dtype)

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
        order = torch.rand(len(uncontrolled), generator=generator, device=device).argsort()
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
        factors, places = (part.index_select(0, order_K) for part in now)
        choose, view, move = self._prepare(factors)
        staying, came, left = places.sum(0), torch.zeros_like(places[0]), torch.zeros_like(places[0])
        following: list[Imagined] = []
        taken: list[torch.Tensor] = []
        likelihood: list[torch.Tensor] = []
        for turn in range(len(factors)):
            staying = staying - places[turn]
            log_probs = self._log_probs(choose[turn], view[turn], staying, came, left)
            if turn < len(self.controlled):
                assert latent_actions_BCA is not None
                wanted = latent_actions_BCA[:, turn]
                code, log_prior = snap(log_probs, wanted, self._codebook)
                likelihood.append(log_prior)
                through = wanted - wanted.detach() if wanted.requires_grad else None
            else:
                code, through = _draw(log_probs, chance_KB1[turn]), None
            action, moved = self._moved(factors[turn], move[turn], code, through)
            taken.append(action)
            following.append(Imagined(moved, self._places(moved)))
            came, left = came + following[-1].places_KBN, left + places[turn]

        back = order_K.argsort()
        state = Imagined(*(torch.stack(part).index_select(0, back) for part in zip(*following, strict=True)))
        nothing = chance_KB1.new_zeros(chance_KB1.shape[1], 0)
        return state, Taken(
            torch.stack(taken).index_select(0, back).transpose(0, 1),
            torch.stack(likelihood, -1) if likelihood else nothing,
        )

    def _prepare(self, factors_KBS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """What every factor's move needs of itself, computed for all at once: hidden units of the prior
        `(K, B, hidden)`, where it looks `(K, B, looks, N)`, hidden units of the dynamics `(K, B, hidden)`."""
        seen = self._see(self.flam.forward_dynamics.interaction.factors_first(factors_KBS).to(self.dtype))
        look, choose, move = self._read(factors_KBS.to(self.dtype)).split(self._widths, -1)
        view = self._view(nn.functional.gelu(look)).unflatten(-1, (self.flam.latent_action_prior.looks, -1))
        return choose, view.softmax(-1), move + seen

    def _log_probs(
        self,
        choose_BH: torch.Tensor,
        view_BLN: torch.Tensor,
        staying_BN: torch.Tensor,
        came_BN: torch.Tensor,
        left_BN: torch.Tensor,
    ) -> torch.Tensor:
        """The prior of one factor, `(B, M)`: how much others take of the places that it looks at."""
        others = torch.stack([staying_BN, came_BN, left_BN], -2).to(self.dtype)
        felt = (others @ view_BLN.transpose(-1, -2)).flatten(-2)
        first, middle, last = self._choose
        hidden = nn.functional.gelu(choose_BH + first(felt))
        return last(nn.functional.gelu(middle(hidden))).float().log_softmax(-1)

    def _moved(
        self,
        factor_BS: torch.Tensor,
        move_BH: torch.Tensor,
        code_B: torch.Tensor,
        through_BA: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The latent action of an action code, and the next factor `(B, S)`; `through_BA` are zeros that carry
        the gradient of what the caller wanted."""
        action, acted = self._codebook[code_B], self._acted[code_B]
        if through_BA is not None:
            action, acted = action + through_BA, acted + self._act(through_BA.to(self.dtype))
        middle, last = self._move
        hidden = nn.functional.gelu(middle(nn.functional.gelu(move_BH + acted)))
        return action, unit_rms(factor_BS + last(hidden).float())


def _index(factors: list[int], device: torch.device) -> torch.Tensor:
    return torch.tensor(factors, dtype=torch.int64, device=device)


def _draw(log_probs_BM: torch.Tensor, chance_B1: torch.Tensor) -> torch.Tensor:
    """The first plausible action code at which the cumulative probability exceeds `chance_B1`: int64 `(B,)`."""
    probs = log_probs_BM.exp()
    mass = (probs * (probs >= PLAUSIBLE)).cumsum(-1)
    return (mass <= chance_B1 * mass[:, -1:]).sum(-1)


class _Frozen:
    """A linear map with frozen weights."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)

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
