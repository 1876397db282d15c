"""Records of imagined steps, and what steps them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch.distributions import Normal, kl_divergence


class Imagined(NamedTuple):
    """Where B imagined worlds are. Factors come first, so that the worlds of one factor lie together.

    Attributes:
        factors_KBS: float `(K, B, S)`.
        places_KBN: float `(K, B, N)`, the share of each token at which the factor is; N is 0 in a model that does not ask.
    """

    factors_KBS: Float[torch.Tensor, "K B S"]
    places_KBN: Float[torch.Tensor, "K B N"]

    @property
    def factors_BKS(self) -> Float[torch.Tensor, "B K S"]:
        """Factors as all other parts take them: a view."""
        return self.factors_KBS.transpose(0, 1)


class Taken(NamedTuple):
    """What led to the next state, and what it brings.

    Attributes:
        latent_actions_BLA: float `(B, L, A)`, all of the step.
        log_prior_BC: float `(B, C)`, the prior's log-probability of the action code nearest to what the
            caller wanted.
        reward_B, ended_B: float and bool `(B,)`, what entering the next state is by `events`; 0 and False
            without.
    """

    latent_actions_BLA: Float[torch.Tensor, "B L A"]
    log_prior_BC: Float[torch.Tensor, "B C"]
    reward_B: Float[torch.Tensor, " B"]
    ended_B: Bool[torch.Tensor, " B"]


@runtime_checkable
class Stepper(Protocol):
    """Steps imagined worlds, all of them at once: the caller acts for some factors, the prior for the others."""

    def begin(self, factors_BKS: torch.Tensor) -> Imagined:
        """Worlds in which the factors are these."""

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        """One step of every world.

        Args:
            latent_actions_BCA: float, what the caller wants of the controlled latent actions.
            generator: of whatever the prior decides.
        """

    def close(self) -> None:
        """Give threads back; a step that is taken later has new ones."""


@runtime_checkable
class Events(Protocol):
    """The heads of reward and end of a state."""

    def __call__(self, factors_BKS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Reward, float `(B,)`, and whether it is an end, bool `(B,)`, of entering factors `(B, K, S)`."""


class LatentDynamics:
    """What follows from inferring latent actions and stepping under them, for whatever does both."""

    infer_actions: Callable[[torch.Tensor], Normal]
    step: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

    def nats(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Float[torch.Tensor, " L"]:
        """Upper bound of the information in each latent action of these clips, its KL from a standard normal in nats: float `(L,)`."""
        return kl_divergence(self.infer_actions(factors_BTKS), Normal(0.0, 1.0)).sum(-1).mean((0, 1))

    def unroll(
        self,
        factors_BKS: Float[torch.Tensor, "B K S"],
        latent_actions_BTLA: Float[torch.Tensor, "B T L A"],
    ) -> Float[torch.Tensor, "B T1 K S"]:
        """Open loop from factors `(B, K, S)` under T latent actions: T + 1 factors, the first included."""
        factors = [factors_BKS]
        for latent_actions_BLA in latent_actions_BTLA.unbind(1):
            factors.append(self.step(factors[-1], latent_actions_BLA))
        return torch.stack(factors, 1)


def judge(events: Events | None, factors_BKS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Reward and end of entering factors by `events`; 0 and False without."""
    worlds = len(factors_BKS)
    nothing = factors_BKS.new_zeros(worlds), factors_BKS.new_zeros(worlds, dtype=torch.bool)
    return nothing if events is None else events(factors_BKS)
