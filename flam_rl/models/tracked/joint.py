"""FLAM on tracked layers with one latent action for all of its factors: the control."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Distribution, Independent, Normal

from ...core.layers import mlp
from ...core.registry import Kind
from ...core.stepping import Events
from ..rivals.stepper import SceneImagination
from .dynamics import DynamicsConfig, ForwardDynamics, InverseDynamics, Step
from .flam import TrackedConfig, TrackedFLAM
from .model import TrackedModel
from .prior import NEVER
from .states import PRESENCE, StateConfig


class JointInverseDynamics(InverseDynamics):
    """One latent action, inferred from the mean over present factors of what each shows of its change."""

    def __init__(self, config: DynamicsConfig, state: StateConfig) -> None:
        super().__init__(replace(config, latent_action_dim=config.hidden), state)
        self.infer = mlp(2 * config.hidden, config.hidden, 2 * config.latent_action_dim)

    def outputs(self, now_BKS: Tensor, next_BKS: Tensor) -> Tensor:
        """`(..., 1, 2A)`."""
        acts = (now_BKS[..., PRESENCE, None] > 0.5) | (next_BKS[..., PRESENCE, None] > 0.5)
        seen = (super().outputs(now_BKS, next_BKS) * acts).sum(-2, keepdim=True)
        found: Tensor = self.infer(seen / acts.sum(-2, keepdim=True).clamp_min(1))
        return found


class JointForwardDynamics(ForwardDynamics):
    """All factors get the same latent action. Empty rows are alike, so that an entity can appear in the first of them
    only."""

    def look_and_move(self, factors_BKS: Tensor, seen: Tensor, latent_actions_B1A: Tensor) -> Step:
        """As `ForwardDynamics.look_and_move`, with the same latent action for all factors; only the first empty row may fill."""
        shared = latent_actions_B1A.expand(*factors_BKS.shape[:-1], -1)
        step = super().look_and_move(factors_BKS, seen, shared)
        empty = factors_BKS[..., PRESENCE] < 0.5
        later = empty & (empty.cumsum(-1) > 1)
        return step._replace(logit_BK=step.logit_BK.masked_fill(later, NEVER))


class TrackedJoint(TrackedFLAM):
    """As wide a latent action as FLAM's of all factors together, continuous, with a standard normal prior."""

    coded = False

    def __init__(self, config: TrackedConfig) -> None:
        super().__init__(config)
        width = config.state.factors * config.dynamics.latent_action_dim
        wide = replace(config.dynamics, latent_action_dim=width)
        self.inverse_dynamics = JointInverseDynamics(wide, config.state)
        self.forward_dynamics = JointForwardDynamics(wide, config.state)
        del self.latent_action_prior

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.config.state.factors * self.config.dynamics.latent_action_dim

    def acting(self, factors: Tensor) -> Tensor:
        """Whether any factor acts, for the only latent action: `(..., 1)`."""
        return factors.any(-1, keepdim=True)


class TrackedJointModel(TrackedModel):
    """The control on tracked layers (from no paper): one joint latent action for all factors, nothing else changed."""

    kind = "tracked-joint"
    flam: TrackedJoint

    def __init__(self, config: TrackedConfig) -> None:
        super().__init__(config, TrackedJoint)

    @property
    def latent_actions(self) -> int:
        """L: one for all factors."""
        return 1

    @property
    def latent_action_dim(self) -> int:
        """A: as wide as all of FLAM's latent actions together."""
        return self.flam.latent_action_dim

    @property
    def action_codes(self) -> None:
        """None: the prior has no codes."""
        return None

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """A standard normal."""
        zeros = factors_BKS.new_zeros(*factors_BKS.shape[:-2], 1, self.latent_action_dim)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def sample_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Latent actions `(B, 1, A)` drawn from the prior."""
        shape = (len(factors_BKS), 1, self.latent_action_dim)
        return torch.randn(shape, generator=generator, device=factors_BKS.device)

    def snap(
        self, factors_BKS: Float[torch.Tensor, "B K S"], index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The wanted latent action itself, with a log-probability of 0."""
        return latent_actions_BA, torch.zeros_like(latent_actions_BA[:, 0])

    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> SceneImagination:
        """As `Model.stepper`."""
        return SceneImagination(self, controlled, dtype, compile, events)


KINDS = {
    "tracked-joint": Kind(
        TrackedConfig,
        TrackedJointModel,
        "flam_rl.models.tracked.build",
        (TrackedJointModel.__doc__ or "").splitlines()[0],
    )
}
