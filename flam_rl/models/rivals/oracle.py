"""The ceiling: a scene model that is given the true actions."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Normal

from ..tiles.aggregator import Aggregated
from ..tiles.code_model import Acted
from .rival import CODE_SPREAD, Coded
from .scene import SceneModel


class Oracle(Coded, SceneModel):
    """The ceiling: the true joint action is given, nothing is inferred.

    It is the only model that is given actions. Codes of a frame may be followed by K columns, an entity's action that
    led to it plus 1, or 0 if it is not known; factors carry them.
    """

    NEEDS_ACTIONS = True
    CHOICES = 4

    @property
    def latent_action_dim(self) -> int:
        """A: an indicator of each entity's action."""
        return self.config.factorizer.factors * self.CHOICES

    @property
    def factor_dim(self) -> int:
        """S: features of all patches and the joint action that led to them."""
        return super().factor_dim + self.latent_action_dim

    def _make_inverse(self, width: int) -> None:
        entities = self.config.factorizer.factors
        self.register_buffer("frequency_GM", torch.full((entities, self.CHOICES), 1 / self.CHOICES))

    def codebooks(self) -> torch.Tensor:
        """One vector for each action of an entity."""
        indicator = 2 * torch.eye(self.CHOICES).to(self.weight_V)  # of unit RMS
        return indicator.expand(len(self.frequency_GM), -1, -1)

    def _frame_loss(
        self, factors_BTKS: torch.Tensor, z_BTN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._frame_loss(factors_BTKS, z_BTN[..., : self.grid[0] * self.grid[1]])

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes int64 `(B, T, N)`, or with the actions that `clips.with_actions` adds, to factors `(B, T, 1, S)`."""
        tokens = self.grid[0] * self.grid[1]
        features = super().factorize(z_BTN[..., :tokens])
        entities = len(self.frequency_GM)
        columns = nn.functional.pad(z_BTN[..., tokens:], (0, entities))[..., :entities]
        unknown = features.new_ones(self.latent_action_dim)
        acted = self.latent_action_of((columns - 1).clamp_min(0))
        acted = torch.where(columns.repeat_interleave(self.CHOICES, -1) > 0, acted, unknown)
        return torch.cat([features, acted.unsqueeze(-2)], -1)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """The true actions, which the factors of later frames carry."""
        actions = factors_BTKS[:, 1:, :, -self.latent_action_dim :]
        return Normal(actions, torch.full_like(actions, CODE_SPREAD))

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        """The true actions; nothing is inferred, so there is no cost."""
        actions = self.infer_actions(factors_BTKS).mean
        return Acted(actions, actions.new_zeros(()), {"kl": actions.new_zeros(1)})

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Step the features, and let the next factors carry the latent action."""
        features = super().step(factors_BKS[..., : -self.latent_action_dim], latent_actions_BLA)
        return torch.cat([features, latent_actions_BLA], -1)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """As `SceneModel.aggregate`, without the actions that factors carry."""
        return super().aggregate(factors_BKS[..., : -self.latent_action_dim])
