"""FLAM whose factors are tracked entities: the parts composed, and the loss of its dynamics."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss

from ...types import LossAndMetrics
from .dynamics import DynamicsConfig, ForwardDynamics, InverseDynamics
from .look_codes import LookCodes, draw_factors
from .states import DEPTH, LOOK, PLACE, PRESENCE, VELOCITY, StateConfig
from .tracker import TrackerConfig


@dataclass(frozen=True)
class LossConfig:
    """What an error costs: its square over twice the square of these, linear from `outlier` of them on; in nats."""

    place: float = 0.1
    """Pixels."""
    velocity: float = 0.1
    """Pixels a frame."""
    look: float = 0.5
    """Spreads of look codes."""
    depth: float = 0.2
    outlier: float = 3.0
    presence: float = 1.0
    """Weight of presence, whose cost is in nats as it is."""
    beta: float = 1.0
    """Weight of the KL of latent actions from a standard normal."""
    free: float = 0.1
    """Nats of each number of a latent action that cost nothing."""


@dataclass(frozen=True)
class TrackedConfig:
    state: StateConfig = field(default_factory=StateConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    loss: LossConfig = field(default_factory=LossConfig)


class TrackedFLAM(nn.Module):
    """Factored latent action world model (arXiv 2602.16229) on tracked layers: a factor for each entity."""

    def __init__(self, config: TrackedConfig) -> None:
        super().__init__()
        self.config = config
        self.codes = LookCodes(config.state)
        self.inverse_dynamics = InverseDynamics(config.dynamics, config.state)
        self.forward_dynamics = ForwardDynamics(config.dynamics, config.state)

    def infer_actions(self, factors_BTKS: Float[Tensor, "B T K S"]) -> Normal:
        """Latent actions between successive frames, a Normal of shape `(B, T - 1, K, A)`."""
        return self.inverse_dynamics(factors_BTKS[:, :-1], factors_BTKS[:, 1:])

    def step(
        self, factors_BKS: Float[Tensor, "*B K S"], latent_actions_BKA: Float[Tensor, "*B K A"]
    ) -> Float[Tensor, "*B K S"]:
        """The next factors; those that more likely than not are gone are 0."""
        following, logit = self.forward_dynamics(factors_BKS, latent_actions_BKA)
        return following * (logit > 0)[..., None]

    def unroll(
        self, factors_BKS: Float[Tensor, "B K S"], latent_actions_BTKA: Float[Tensor, "B T K A"]
    ) -> Float[Tensor, "B T K S"]:
        """Factors after each of T latent actions."""
        following = []
        for latent_actions_BKA in latent_actions_BTKA.unbind(1):
            factors_BKS = self.step(factors_BKS, latent_actions_BKA)
            following.append(factors_BKS)
        return torch.stack(following, 1)

    def draw(
        self, factors_BKS: Float[Tensor, "B K S"], context_B3HW: Float[Tensor, "B 3 H W"]
    ) -> Float[Tensor, "B 3 H W"]:
        """Frames in 0..1."""
        _, scene = draw_factors(self.codes, self.config.state, factors_BKS, context_B3HW)
        return scene.frame_B3HW.clamp(0, 1)

    def loss(self, factors_BTKS: Float[Tensor, "B T K S"], beta: float = 1.0) -> LossAndMetrics:
        """Of open-loop predictions over clips from their first frame, and of what their latent actions tell.

        Who is there is told while unrolling: its own loss says how well that is predicted.
        """
        config = self.config.loss
        posterior = self.infer_actions(factors_BTKS)
        latent_actions_BTKA = posterior.rsample()
        there_BTK = factors_BTKS[..., PRESENCE] > 0.5
        state, predicted, logits = factors_BTKS[:, 0], [], []
        for t in range(factors_BTKS.shape[1] - 1):
            following, logit = self.forward_dynamics(state, latent_actions_BTKA[:, t])
            state = following * there_BTK[:, t + 1, :, None]
            predicted.append(state)
            logits.append(logit)
        errors = self._errors(torch.stack(predicted, 1), factors_BTKS[:, 1:], there_BTK[:, 1:])
        presence = binary_cross_entropy_with_logits(torch.stack(logits, 1), there_BTK[:, 1:].float())
        kl = kl_divergence(posterior, Normal(0.0, 1.0))
        acts = there_BTK[:, 1:] | there_BTK[:, :-1]
        kl_A = (kl * acts[..., None]).sum((0, 1, 2)) / acts.sum().clamp_min(1)
        cost = kl_A.clamp_min(config.free).sum()
        loss = sum(errors.values()) + config.presence * presence * acts.numel() / acts.sum().clamp_min(1)
        loss = loss + beta * config.beta * cost
        metrics = {"loss": loss, "nats": kl_A.sum(), "presence": presence, **errors}
        return loss, {key: value.detach() for key, value in metrics.items()}

    def _errors(
        self,
        predicted: Float[Tensor, "B T K S"],
        target: Float[Tensor, "B T K S"],
        there: Bool[Tensor, "B T K"],
    ) -> dict[str, Tensor]:
        """Nats of each part of factors, a factor and step."""
        config, state = self.config.loss, self.config.state
        count = there.sum().clamp_min(1)
        parts = {
            "place": (PLACE, state.half / config.place),
            "velocity": (VELOCITY, state.speed / config.velocity),
            "depth": (slice(DEPTH, DEPTH + 1), 1 / config.depth),
            "look": (LOOK, 1 / config.look),
        }
        return {
            name: huber_loss(
                predicted[..., part] * scale * there[..., None],
                target[..., part] * scale * there[..., None],
                reduction="sum",
                delta=config.outlier,
            )
            / count
            for name, (part, scale) in parts.items()
        }
