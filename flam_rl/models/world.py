"""A world: a trained FLAM with its tokenizer, its start states and what labels added."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import MixtureSameFamily, Normal

from .aggregator import Aggregated
from .flam import FLAM
from .heads import Labels
from .tokenizer import Tokenizer

PLAUSIBLE = 0.02
"""Action codes to which the prior gives less are never taken in imagination."""


@dataclass(frozen=True)
class WorldInfo:
    """What a world's config.json says of it beyond its networks.

    Attributes:
        task: gymnasium id of the real task that the video shows; empty if there is none.
        task_kwargs: its arguments.
        horizon: steps of an imagined episode by default.
        training: the resolved configs that it was trained with.
        metrics: what evaluation on held-out video measured.
    """

    task: str = ""
    task_kwargs: dict[str, Any] = field(default_factory=dict)
    horizon: int = 64
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)


class World(nn.Module):
    """The public verbs. Everything is batched; nothing here needs gradients.

    Args:
        starts_STN: codes of held-out clips, an integer type `(S, T, N)`; imagination starts from them.
    """

    starts_STN: torch.Tensor

    def __init__(
        self,
        tokenizer: Tokenizer,
        flam: FLAM,
        starts_STN: torch.Tensor,
        info: WorldInfo,
        labels: Labels | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.flam, self.info, self.labels = tokenizer, flam, info, labels
        self.register_buffer("starts_STN", starts_STN, persistent=False)
        self.eval().requires_grad_(False)

    @property
    def device(self) -> torch.device:
        """Where the world's tensors live."""
        return self.starts_STN.device

    @property
    def factors(self) -> int:
        """K."""
        return self.flam.config.factorizer.factors

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.flam.config.factorizer.factor_dim

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.flam.config.dynamics.latent_action_dim

    @property
    def window(self) -> int:
        """Frames that the factorizer looks back, the present one included."""
        config = self.flam.config.factorizer
        return config.window if config.temporal_attention else 1

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)`."""
        return self.tokenizer.encode(frames)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(..., N)` to frames float `(..., H, W, 3)` in 0..1."""
        return self.tokenizer.decode(z)

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes `(B, T, N)` of successive frames to factors `(B, T, K, S)`."""
        return self.flam.factorize(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """Latent actions between successive factors: a Normal of shape `(B, T - 1, K, A)`."""
        return self.flam.infer_actions(factors_BTKS)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BKA: Float[torch.Tensor, "*B K A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Next factors `(B, K, S)` under latent actions `(B, K, A)`."""
        return self.flam.step(factors_BKS, latent_actions_BKA)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Code log-probabilities `(B, N, V)` and factor masks `(B, K, N)`."""
        return self.flam.aggregate(factors_BKS)

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> MixtureSameFamily:
        """What factors would do by themselves: a mixture over latent actions, batch `(B, K)`, event `(A,)`."""
        return self.flam.prior(factors_BKS)

    def draw(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Decoded frames float `(B, H, W, 3)` in 0..1 of factors, the most likely code at each token."""
        return self.decode(self.aggregate(factors_BKS).log_probs_BNV.argmax(-1))

    def imagine_step(
        self,
        factors_BKS: Float[torch.Tensor, "B K S"],
        controlled: Sequence[int] = (),
        latent_actions_BCA: Float[torch.Tensor, "B C A"] | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Float[torch.Tensor, "B K S"], Float[torch.Tensor, "B K A"], Float[torch.Tensor, "B C"]]:
        """One step in which the caller acts for some factors and the prior for the others.

        The controlled factors move first, the others after them, one by one in a random order, each seeing
        where those before it went. A caller's latent action is snapped to the nearest action code that the
        prior finds plausible: a learned world is only as good as the actions that it has seen.

        Args:
            controlled: indices of C factors.
            latent_actions_BCA: float, what the caller wants of them.

        Returns:
            next factors `(B, K, S)`, latent actions taken `(B, K, A)`, and the prior's log-probability of
            the action code nearest to what was wanted, `(B, C)`.
        """
        dynamics, prior = self.flam.forward_dynamics, self.flam.latent_action_prior
        look_BKS = dynamics.look(factors_BKS)
        places_BKN = self.flam.aggregator.places(factors_BKS)
        following, next_places_BKN = torch.zeros_like(factors_BKS), torch.zeros_like(places_BKN)
        taken = factors_BKS.new_zeros(*factors_BKS.shape[:-1], self.latent_action_dim)
        moved = torch.zeros(self.factors, dtype=torch.bool, device=factors_BKS.device)
        order = torch.randperm(self.factors, generator=generator, device=factors_BKS.device).tolist()
        uncontrolled = [factor for factor in order if factor not in controlled]
        likelihood = []
        for turn, factor in enumerate([*controlled, *uncontrolled]):
            asked = factors_BKS[:, factor : factor + 1]
            others = torch.arange(self.factors, device=factors_BKS.device)[None] != factor
            logits = prior.logits(asked, others, places_BKN, next_places_BKN, moved[None])
            log_probs = logits[:, 0].log_softmax(-1)
            if turn < len(controlled):
                assert latent_actions_BCA is not None
                code, nearest = self._snap(log_probs, latent_actions_BCA[:, turn])
                likelihood.append(nearest)
            else:
                probs = log_probs.exp()
                plausible = probs * (probs >= PLAUSIBLE)
                code = torch.multinomial(plausible, 1, generator=generator).squeeze(-1)
            taken[:, factor] = prior.codebook[code]
            following[:, factor] = dynamics.move(asked[:, 0], look_BKS[:, factor], taken[:, factor])
            next_places_BKN[:, factor] = self.flam.aggregator.places(following[:, factor, None])[:, 0]
            moved[factor] = True
        nothing = factors_BKS.new_zeros(len(factors_BKS), 0)
        return following, taken, torch.stack(likelihood, -1) if likelihood else nothing

    def snap(self, factors_BKS: torch.Tensor, factor: int, latent_actions_BA: torch.Tensor) -> torch.Tensor:
        """The latent action `(B, A)` that `imagine_step` takes when this one is wanted of `factor`, moving first."""
        prior = self.flam.latent_action_prior
        log_probs = self.flam.prior_logits(factors_BKS)[:, factor].log_softmax(-1)
        return prior.codebook[self._snap(log_probs, latent_actions_BA)[0]]

    def _snap(
        self, log_probs_BM: torch.Tensor, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        distance = (latent_actions_BA.unsqueeze(-2) - self.flam.latent_action_prior.codebook).square().sum(-1)
        nearest = log_probs_BM.gather(-1, distance.argmin(-1, keepdim=True)).squeeze(-1)
        implausible = log_probs_BM.exp() < PLAUSIBLE
        return distance.masked_fill(implausible, float("inf")).argmin(-1), nearest

    def start(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Factors `(count, K, S)` at the end of clips drawn from the held-out ones."""
        drawn = torch.randint(len(self.starts_STN), (count,), generator=generator, device=self.device)
        clips = self.starts_STN[drawn]
        return self.factorize(clips.long())[:, -1]
