"""FLAM: the parts of the world model composed."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

from ...core.codes import snap
from ...core.layers import nearest_code
from ...core.stepping import Events
from .aggregator import Aggregated, make_aggregator
from .code_model import Acted, CodeFacts, CodeModel, make_factorizer
from .dynamics import ForwardDynamics, InverseDynamics, LatentActionPrior
from .stepper import Imagination


class FLAM(CodeModel):
    """Factored latent action world model (arXiv 2602.16229): a latent action for each factor."""

    WORTH_COMPILING = True

    def _prepare(self, facts: CodeFacts) -> None:
        config, dim = self.config, self.config.factorizer.factor_dim
        self.factorizer = make_factorizer(config, facts)
        self.inverse_dynamics = InverseDynamics(config.dynamics, dim)
        self.forward_dynamics = ForwardDynamics(config.dynamics, dim)
        self.latent_action_prior = LatentActionPrior(config.dynamics, dim, facts.grid)
        self.aggregator = make_aggregator(config.aggregator, dim, facts.grid, facts.still_NV)

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes `(B, T, N)` of successive frames to factors `(B, T, K, S)`."""
        return self.factorizer(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """A Normal of shape `(B, T - 1, K, A)`: one latent action for each factor."""
        return self.inverse_dynamics(factors_BTKS[:, :-1], factors_BTKS[:, 1:])

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B K A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Next factors, each moved by its own latent action."""
        return self.forward_dynamics(factors_BKS, latent_actions_BLA)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Code log-probabilities `(B, N, V)` and factor masks `(B, K, N)`."""
        return self.aggregator(factors_BKS)

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> MixtureSameFamily:
        """`p(a^i | s)` before anything moved."""
        prior = self.latent_action_prior
        logits = self.prior_logits(factors_BKS)
        components = Normal(
            prior.codebook.expand(*logits.shape, -1), prior.spread_A.expand(*logits.shape, -1)
        )
        return MixtureSameFamily(Categorical(logits=logits), Independent(components, 1))

    def snap(
        self, factors_BKS: Float[torch.Tensor, "B K S"], index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Model.snap`."""
        codebook = self.latent_action_prior.codebook
        log_probs = self.prior_logits(factors_BKS)[:, index].log_softmax(-1)
        code, log_prior = snap(log_probs, latent_actions_BA, codebook)
        return codebook[code], log_prior

    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> Imagination:
        """As `Model.stepper`."""
        return Imagination(self, controlled, dtype, compile, events)

    @property
    def action_codes(self) -> torch.Tensor:
        """As `Model.action_codes`, `(M, A)`."""
        return self.latent_action_prior.codebook

    def nearest_codes(self, latent_actions: torch.Tensor) -> torch.Tensor:
        """As `Model.nearest_codes`."""
        codebook = self.latent_action_prior.codebook
        return codebook[nearest_code(latent_actions, codebook)]

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        """KL of the posterior from a standard normal (FLAM, sec. 3), and what ties it to the action codes.

        Latent actions are sampled from the posterior in one half of the clips and its mean's action code
        in the other, so that the world can be stepped by either.
        """
        posterior = self.infer_actions(factors_BTKS)
        prior = self.latent_action_prior
        flat, index, commitment = prior.codes(posterior.mean.flatten(0, -2))
        snapped_B = torch.rand(len(factors_BTKS), device=factors_BTKS.device) < 0.5
        latent_actions_BTKA = torch.where(
            snapped_B[:, None, None, None], flat.view(posterior.mean.shape), posterior.rsample()
        )
        kl_K = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1).mean((0, 1))
        if self.training:
            with torch.no_grad():
                error = posterior.mean.flatten(0, -2) - prior.codebook[index]
                spread = (error.square().mean(0) + posterior.variance.flatten(0, -2).mean(0)).sqrt()
                prior.spread_A.lerp_(spread, 0.01)
        cost = beta * kl_K.sum() + self.config.commitment * commitment.sum()
        return Acted(latent_actions_BTKA, cost, {"kl": kl_K, "commitment": commitment.sum()})

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
