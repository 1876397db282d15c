"""FLAM with tracked entities as factors: its parts together, and the loss of its dynamics."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence
from torch.nn.functional import binary_cross_entropy_with_logits, huber_loss

from ...core.codes import snap
from ...core.layers import nearest_code
from ...types import LossAndMetrics, check_ranges
from .context_codes import MOST_NUMBERS
from .dynamics import DynamicsConfig, ForwardDynamics, InverseDynamics
from .look_codes import LookCodes, picture
from .prior import Chances, TrackedPrior
from .states import DEPTH, LOOK, PLACE, PRESENCE, VELOCITY, StateConfig
from .tracker import TrackerConfig

KNOWN = 16
"""Looks of the video that are kept to be found in frames where nothing has moved yet, if the background is not known."""


@dataclass(frozen=True)
class LossConfig:
    """Scales of the errors in the loss. An error costs its square over twice the square of its scale, in nats, and
    grows linearly beyond `outlier` scales."""

    place: float = 0.1
    """Pixels."""
    velocity: float = 0.1
    """Pixels a frame."""
    look: float = 0.5
    """Spreads of look codes."""
    depth: float = 0.2
    outlier: float = 3.0
    camera: float = 4.0
    """Weight of the camera's errors, with which the whole picture moves."""
    presence: float = 1.0
    """Weight of presence, whose cost is in nats as it is."""
    beta: float = 1.0
    """Weight of the KL of latent actions from a standard normal."""
    free: float = 0.1
    """Nats per number of a latent action that are free."""
    change: float = 0.2
    """Nats that a look costs when it changes."""
    unknown: float = 0.1
    """Share of clips that start without known velocities, like the beginning of a film."""
    snapped: float = 0.5
    """Share of clips whose latent actions are replaced by their nearest action codes, so that the world can be
    stepped by codes."""


@dataclass(frozen=True)
class TrackedConfig:
    """Settings of a tracked FLAM.

    Attributes:
        shared_ground: whether the whole video has one background, which the model stores; else the background is
            found from the given frames.
        context_code_dim: numbers of the code that tells a policy which background a scene has.
    """

    state: StateConfig = field(default_factory=StateConfig)
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    shared_ground: bool = False
    context_code_dim: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, context_code_dim=(0, MOST_NUMBERS))


class TrackedFLAM(nn.Module):
    """Factored latent action world model (arXiv 2602.16229) on tracked layers: a factor for each entity."""

    ground_3HW: Tensor
    known_ML: Tensor
    lowest_S: Tensor
    highest_S: Tensor
    spread_A: Tensor
    coded: bool = True
    """Whether the prior chooses latent actions from action codes."""

    def __init__(self, config: TrackedConfig) -> None:
        super().__init__()
        state = config.state
        self.config = config
        self.register_buffer("ground_3HW", torch.zeros(3, state.height, state.width))
        self.register_buffer(
            "known_ML",
            torch.zeros(0 if config.shared_ground else KNOWN, state.look_dim),
            persistent=not config.shared_ground,
        )
        self.register_buffer("lowest_S", torch.full((state.dim,), -3.0))
        self.register_buffer("highest_S", torch.full((state.dim,), 3.0))
        self.register_buffer("spread_A", torch.ones(config.dynamics.latent_action_dim))
        self.codes = LookCodes(config.state)
        self.inverse_dynamics = InverseDynamics(config.dynamics, config.state)
        self.forward_dynamics = ForwardDynamics(config.dynamics, config.state)
        self.latent_action_prior = TrackedPrior(config.dynamics, config.state)

    @property
    def factors(self) -> int:
        """K."""
        return self.config.state.factors

    @property
    @torch.no_grad()
    def known_looks(self) -> Float[Tensor, "M 4 P P"]:
        """What entities of the video look like."""
        return self.codes.decode(self.known_ML)

    def infer_actions(self, factors_BTKS: Float[Tensor, "B T K S"]) -> Normal:
        """Latent actions between successive frames, a Normal of shape `(B, T - 1, K, A)`."""
        return self.inverse_dynamics(factors_BTKS[:, :-1], factors_BTKS[:, 1:])

    def step(
        self, factors_BKS: Float[Tensor, "*B K S"], latent_actions_BLA: Float[Tensor, "*B L A"]
    ) -> Float[Tensor, "*B K S"]:
        """The next factors; those that more likely than not are gone are 0."""
        following, logit, _ = self.forward_dynamics(factors_BKS, latent_actions_BLA)
        return self.within(following) * (logit > 0)[..., None]

    def within(self, factors_BKS: Float[Tensor, "*B K S"]) -> Float[Tensor, "*B K S"]:
        """Factors clipped to slightly more than the range of each number in the video."""
        return torch.maximum(torch.minimum(factors_BKS, self.highest_S), self.lowest_S)

    def chances(self, factors_BKS: Float[Tensor, "*B K S"]) -> Chances:
        """The prior's logits of action codes, of deaths and of births."""
        return self.latent_action_prior(factors_BKS, self.forward_dynamics.interaction(factors_BKS))

    def prior(self, factors_BKS: Float[Tensor, "*B K S"]) -> MixtureSameFamily:
        """`p(a^i | s)` of factors that are present and stay."""
        logits = self.chances(factors_BKS).code_BKM
        codes = self.latent_action_prior.codebook.expand(*logits.shape, -1)
        components = Normal(codes, self.spread_A.expand(*logits.shape, -1))
        return MixtureSameFamily(Categorical(logits=logits), Independent(components, 1))

    def snap(
        self, factors_BKS: Float[Tensor, "B K S"], index: int, latent_actions_BA: Float[Tensor, "B A"]
    ) -> tuple[Tensor, Tensor]:
        """The plausible action code `(B, A)` nearest to the wanted latent action of factor `index`, and the
        log-probability `(B,)` of the nearest code, plausible or not."""
        codebook = self.latent_action_prior.codebook
        log_probs = self.chances(factors_BKS).code_BKM[:, index].log_softmax(-1)
        code, log_prior = snap(log_probs, latent_actions_BA, codebook)
        return codebook[code], log_prior

    def nearest_codes(self, latent_actions: Float[Tensor, "*B A"]) -> Float[Tensor, "*B A"]:
        """The action code nearest to each latent action."""
        codebook = self.latent_action_prior.codebook
        return codebook[nearest_code(latent_actions, codebook)]

    def draw(
        self, factors_BKS: Float[Tensor, "B K S"], context_B3YX: Float[Tensor, "B 3 Y X"]
    ) -> Float[Tensor, "B 3 H W"]:
        """Frames in 0..1; the context is larger than those where the camera moves."""
        return picture(self.codes, self.config.state, factors_BKS, context_B3YX).clamp(0, 1)

    def loss(self, factors_BTKS: Float[Tensor, "B T K S"], beta: float = 1.0) -> LossAndMetrics:
        """Loss of open-loop predictions over clips from their first frame, and of the information in latent actions.

        True presence is used while unrolling; how well it is predicted has a term of its own.
        """
        config = self.config.loss
        factors_BTKS = self._forgetting(factors_BTKS)
        posterior = self.infer_actions(factors_BTKS)
        there_BTK = factors_BTKS[..., PRESENCE] > 0.5
        moves_BTK = there_BTK[:, :-1] & there_BTK[:, 1:]
        if self.coded:
            flat, _, commitment = self.latent_action_prior.codes(posterior.mean[moves_BTK][None])
            snapped = posterior.mean.masked_scatter(moves_BTK[..., None], flat)
            by_code_B = torch.rand(len(factors_BTKS), device=factors_BTKS.device) < config.snapped
            latent_actions_BTLA = torch.where(by_code_B[:, None, None, None], snapped, posterior.rsample())
        else:
            latent_actions_BTLA, commitment = posterior.rsample(), factors_BTKS.new_zeros(())
        state, predicted, logits, gates = factors_BTKS[:, 0], [], [], []
        for t in range(factors_BTKS.shape[1] - 1):
            following, logit, gate = self.forward_dynamics(state, latent_actions_BTLA[:, t])
            state = following * there_BTK[:, t + 1, :, None]
            predicted.append(state)
            logits.append(logit)
            gates.append(gate)
        errors = self._errors(torch.stack(predicted, 1), factors_BTKS[:, 1:], there_BTK[:, 1:])
        presence = binary_cross_entropy_with_logits(torch.stack(logits, 1), there_BTK[:, 1:].float())
        kl = kl_divergence(posterior, Normal(0.0, 1.0))
        acts = there_BTK[:, 1:] | there_BTK[:, :-1]
        count, acting = acts.sum().clamp_min(1), self.acting(acts)
        kl_A = (kl * acting[..., None]).sum((0, 1, 2)) / acting.sum().clamp_min(1)
        cost = kl_A.clamp_min(config.free).sum() * acting.sum() / count
        loss = sum(errors.values()) + config.presence * presence * acts.numel() / count
        change = (torch.stack(gates, 1) * moves_BTK).sum() / moves_BTK.sum().clamp_min(1)
        loss = loss + beta * config.beta * cost + config.change * change + commitment.sum()
        metrics = {"loss": loss, "nats": kl_A.sum(), "presence": presence, "change": change, **errors}
        return loss, {key: value.detach() for key, value in metrics.items()}

    def acting(self, factors: Bool[Tensor, "*B K"]) -> Bool[Tensor, "*B L"]:
        """Whether each latent action acts, from whether each factor does."""
        return factors

    def _forgetting(self, factors_BTKS: Tensor) -> Tensor:
        """Clips, some of them with the velocities of the first frame removed."""
        unknown = torch.rand(len(factors_BTKS), device=factors_BTKS.device) < self.config.loss.unknown
        known = torch.ones_like(factors_BTKS[:, :1])
        known[..., VELOCITY] = (~unknown).to(known.dtype)[:, None, None, None]
        return torch.cat([factors_BTKS[:, :1] * known, factors_BTKS[:, 1:]], 1)

    def _errors(
        self,
        predicted: Float[Tensor, "B T K S"],
        target: Float[Tensor, "B T K S"],
        there: Bool[Tensor, "B T K"],
    ) -> dict[str, Tensor]:
        """Nats per factor and step of each part of factors."""
        config, state = self.config.loss, self.config.state
        count = there.sum().clamp_min(1)
        weight = there[..., None].to(predicted.dtype)
        if state.margin:
            weight = torch.cat([weight[..., :-1, :], weight[..., -1:, :] * config.camera], -2)
        parts = {
            "place": (PLACE, state.half / config.place),
            "velocity": (VELOCITY, state.speed / config.velocity),
            "depth": (slice(DEPTH, DEPTH + 1), 1 / config.depth),
            "look": (LOOK, 1 / config.look),
        }
        return {
            name: (
                huber_loss(
                    predicted[..., part] * scale,
                    target[..., part] * scale,
                    reduction="none",
                    delta=config.outlier,
                )
                * weight
            ).sum()
            / count
            for name, (part, scale) in parts.items()
        }
