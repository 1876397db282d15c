"""FLAM: the parts of the world model composed, its verbs and its training loss."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from ..types import LossAndMetrics
from .aggregator import Aggregated, AggregatorConfig, make_aggregator
from .dynamics import DynamicsConfig, ForwardDynamics, InverseDynamics, LatentActionPrior
from .factorizer import Factorizer, FactorizerConfig


@dataclass(frozen=True)
class FLAMConfig:
    factorizer: FactorizerConfig = field(default_factory=FactorizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    objective: Literal["codes", "features"] = "codes"
    """`codes`: cross-entropy of code indices. `features`: the paper's squared error of code vectors."""
    rarity_power: float = 0.7
    """Codes weigh frequency^-rarity_power in the loss: moving things are few and small."""
    pull: float = 1.0
    """Weight of predicted factors staying near what the factorizer makes of the true next frame."""
    commitment: float = 0.1
    """Weight of latent actions staying near their action code."""
    drawing: float = 0.03
    """Price of each share of a token that a factor draws: what the background can draw is not a factor's."""


class FLAM(nn.Module):
    """Factored latent action world model (arXiv 2602.16229) over the codes of a frozen tokenizer.

    Args:
        looks_VP: float in 0..1, the mean pixels of each code.
        codebook_VD: the code vectors.
        keys_VE, queries_KE: where slot attention starts from, of `binding.coherent_keys`.
        frequency_V, activity_V, background_NV: of `binding.code_statistics`.
        grid: rows and columns of tokens.
    """

    weight_V: torch.Tensor
    codebook_VD: torch.Tensor

    def __init__(
        self,
        config: FLAMConfig,
        looks_VP: torch.Tensor,
        codebook_VD: torch.Tensor,
        keys_VE: torch.Tensor,
        queries_KE: torch.Tensor,
        frequency_V: torch.Tensor,
        activity_V: torch.Tensor,
        background_NV: torch.Tensor,
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        self.config, self.grid = config, grid
        dim = config.factorizer.factor_dim
        self.factorizer = Factorizer(config.factorizer, looks_VP, keys_VE, queries_KE, activity_V, grid)
        self.inverse_dynamics = InverseDynamics(config.dynamics, dim)
        self.forward_dynamics = ForwardDynamics(config.dynamics, dim)
        self.latent_action_prior = LatentActionPrior(config.dynamics, dim, grid)
        self.aggregator = make_aggregator(config.aggregator, dim, grid, background_NV)
        weight_V = frequency_V.clamp_min(1e-6) ** -config.rarity_power
        self.register_buffer("weight_V", weight_V / (weight_V * frequency_V).sum())
        self.register_buffer("codebook_VD", codebook_VD)

    @classmethod
    def empty(cls, config: FLAMConfig, grid: tuple[int, int], codes: int, pixels: int, code_dim: int) -> FLAM:
        """One of the right shapes, to load weights into."""
        queries = config.factorizer.factors + 1
        return cls(
            config,
            looks_VP=torch.ones(codes, pixels),
            codebook_VD=torch.ones(codes, code_dim),
            keys_VE=torch.ones(codes, queries),
            queries_KE=torch.ones(queries, queries),
            frequency_V=torch.ones(codes),
            activity_V=torch.ones(codes),
            background_NV=torch.ones(grid[0] * grid[1], codes),
            grid=grid,
        )

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes int64 `(B, T, N)` of successive frames to factors `(B, T, K, S)` of unit RMS."""
        return self.factorizer(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """Latent actions between successive factors: a Normal of shape `(B, T - 1, K, A)`."""
        return self.inverse_dynamics(factors_BTKS[:, :-1], factors_BTKS[:, 1:])

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BKA: Float[torch.Tensor, "*B K A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Next factors `(B, K, S)` under latent actions `(B, K, A)`."""
        return self.forward_dynamics(factors_BKS, latent_actions_BKA)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Code log-probabilities `(..., N, V)` and factor masks `(..., K, N)` of factors `(..., K, S)`."""
        return self.aggregator(factors_BKS)

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> MixtureSameFamily:
        """`p(a^i | s)` before anything moved: a mixture with batch shape `(B, K)` and event shape `(A,)`."""
        prior = self.latent_action_prior
        logits = self.prior_logits(factors_BKS)
        components = Normal(
            prior.codebook.expand(*logits.shape, -1), prior.spread_A.expand(*logits.shape, -1)
        )
        return MixtureSameFamily(Categorical(logits=logits), Independent(components, 1))

    def unroll(
        self,
        factors_BKS: Float[torch.Tensor, "B K S"],
        latent_actions_BTKA: Float[torch.Tensor, "B T K A"],
    ) -> Float[torch.Tensor, "B T1 K S"]:
        """Open loop from factors `(B, K, S)` under T latent actions: T + 1 factors, the first included."""
        factors = [factors_BKS]
        for latent_actions_BKA in latent_actions_BTKA.unbind(1):
            factors.append(self.step(factors[-1], latent_actions_BKA))
        return torch.stack(factors, 1)

    def loss(self, z_BTN: Int[torch.Tensor, "B T N"], beta: float) -> LossAndMetrics:
        """Prediction, reconstruction, KL (FLAM, sec. 3) and what holds an imagined world together.

        Latent actions are sampled from the posterior in one half of the clips and its mean's action code
        in the other, so that the world can be stepped by either.

        Args:
            z_BTN: codes int64 of clips, T at least 2.
            beta: weight of the KL from the standard normal.
        """
        factors_BTKS = self.factorize(z_BTN)
        posterior = self.infer_actions(factors_BTKS)
        prior = self.latent_action_prior
        flat, index, commitment = prior.codes(posterior.mean.flatten(0, -2))
        snapped_B = torch.rand(len(z_BTN), device=z_BTN.device) < 0.5
        latent_actions_BTKA = torch.where(
            snapped_B[:, None, None, None], flat.view(posterior.mean.shape), posterior.rsample()
        )
        unrolled_BTKS = self.unroll(factors_BTKS[:, 0], latent_actions_BTKA)
        predicted_BTKS, target_BTKS = unrolled_BTKS[:, 1:], factors_BTKS[:, 1:]
        prediction, _ = self._frame_loss(predicted_BTKS, z_BTN[:, 1:])
        reconstruction, masks_BTKN = self._frame_loss(factors_BTKS, z_BTN)
        drawn_K = masks_BTKN.sum(-1).mean((0, 1))
        kl_K = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1).mean((0, 1))
        pull = (predicted_BTKS - target_BTKS.detach()).square().mean()
        pull = pull + 0.1 * (predicted_BTKS.detach() - target_BTKS).square().mean()
        if self.training:
            with torch.no_grad():
                error = posterior.mean.flatten(0, -2) - prior.codebook[index]
                spread = (error.square().mean(0) + posterior.variance.flatten(0, -2).mean(0)).sqrt()
                prior.spread_A.lerp_(spread, 0.01)
        loss = (
            prediction
            + reconstruction
            + beta * kl_K.sum()
            + self.config.pull * pull
            + self.config.commitment * commitment.sum()
            + self.config.drawing * drawn_K.sum() / z_BTN.shape[-1]
        )
        metrics = {
            "loss": loss,
            "prediction": prediction,
            "reconstruction": reconstruction,
            "kl": kl_K,
            "pull": pull,
            "commitment": commitment.sum(),
            "tokens_drawn": drawn_K,
        }
        return loss, {key: value.detach() for key, value in metrics.items()}

    def prior_logits(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Float[torch.Tensor, "*B K M"]:
        """Logits of each factor's action codes before anything moved."""
        others_KK = ~torch.eye(factors_BKS.shape[-2], dtype=torch.bool, device=factors_BKS.device)
        return self.latent_action_prior.logits(factors_BKS, others_KK, self.aggregator.places(factors_BKS))

    def prior_loss(
        self,
        now_BKS: Float[torch.Tensor, "B K S"],
        places_BKN: Float[torch.Tensor, "B K N"],
        next_places_BKN: Float[torch.Tensor, "B K N"],
        index_BK: Int[torch.Tensor, "B K"],
    ) -> torch.Tensor:
        """Cross-entropy of the action codes taken, each factor seeing those before it in a random order."""
        turn_BK = torch.rand(now_BKS.shape[:-1], device=now_BKS.device)
        moved_BKK = turn_BK.unsqueeze(-1) > turn_BK.unsqueeze(-2)
        others_KK = ~torch.eye(now_BKS.shape[-2], dtype=torch.bool, device=now_BKS.device)
        logits = self.latent_action_prior.logits(now_BKS, others_KK, places_BKN, next_places_BKN, moved_BKK)
        return nn.functional.cross_entropy(logits.flatten(0, -2), index_BK.flatten())

    def _frame_loss(
        self, factors_BTKS: torch.Tensor, z_BTN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of drawing codes `(B, T, N)`, and the masks `(B, T, K, N)` that they were drawn by."""
        log_probs, masks = self.aggregate(factors_BTKS)
        weight = self.weight_V[z_BTN]
        if self.config.objective == "features":
            error = (log_probs.exp() @ self.codebook_VD - self.codebook_VD[z_BTN]).square().mean(-1)
            return (weight * error).mean(), masks
        return -(weight * log_probs.gather(-1, z_BTN.unsqueeze(-1)).squeeze(-1)).mean(), masks
