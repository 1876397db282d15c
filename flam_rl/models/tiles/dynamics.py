"""Inverse dynamics, forward dynamics and the prior of latent actions, each shared by all factors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import nn
from torch.distributions import Normal
from vector_quantize_pytorch import VectorQuantize

from ...core.layers import MOST_LOGIT, AttentionOverFactors, linears, mlp, sincos_axis, unit_rms
from ...types import check_ranges


@dataclass(frozen=True)
class DynamicsConfig:
    """Settings of inverse dynamics, forward dynamics and prior."""

    latent_action_dim: int = 4
    """A."""
    hidden: int = 128
    """Width of the three networks."""
    action_codes: int = 16
    """M: latent actions that the prior chooses from."""
    looks: int = 8
    """Attention maps of a factor in the prior, each over the places where another factor may be."""

    def __post_init__(self) -> None:
        check_ranges(self, latent_action_dim=(1, 256), action_codes=(1, 4096), looks=(1, 1024))
        check_ranges(self, hidden=range(4, 4097, 4))


class InverseDynamics(nn.Module):
    """`q(a_t^i | s_t^i, s_{t+1}^i)`, a diagonal Gaussian (FLAM, sec. 3)."""

    def __init__(self, config: DynamicsConfig, factor_dim: int) -> None:
        super().__init__()
        self.net = mlp(3 * factor_dim, config.hidden, 2 * config.latent_action_dim)

    def forward(self, now_BKS: Float[torch.Tensor, "*B S"], next_BKS: Float[torch.Tensor, "*B S"]) -> Normal:
        """Factors float `(..., S)` of two successive frames to a Normal of shape `(..., A)`."""
        mean, raw = self.net(torch.cat([now_BKS, next_BKS, next_BKS - now_BKS], -1)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw + 0.5) + 1e-2)


class ForwardDynamics(nn.Module):
    """`s_t^i, a_t^i -> s_{t+1}^i`: factors see each other before the latent action enters, never after."""

    def __init__(self, config: DynamicsConfig, factor_dim: int) -> None:
        super().__init__()
        self.interaction = AttentionOverFactors(factor_dim)
        self.net = mlp(2 * factor_dim + config.latent_action_dim, config.hidden, factor_dim, layers=3)

    def look(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Float[torch.Tensor, "*B K S"]:
        """What each factor sees before it moves: `(..., K, S)` to the same shape."""
        return self.interaction(factors_BKS)

    def move(
        self,
        factor_BS: Float[torch.Tensor, "*B S"],
        seen_BS: Float[torch.Tensor, "*B S"],
        latent_action_BA: Float[torch.Tensor, "*B A"],
    ) -> Float[torch.Tensor, "*B S"]:
        """Next factor, of unit RMS, of any factors `(..., S)` under latent actions `(..., A)`."""
        return unit_rms(factor_BS + self.net(torch.cat([factor_BS, seen_BS, latent_action_BA], -1)))

    def forward(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BKA: Float[torch.Tensor, "*B K A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Factors `(..., K, S)` and latent actions `(..., K, A)` to the next factors, of unit RMS."""
        return self.move(factors_BKS, self.look(factors_BKS), latent_actions_BKA)


class LatentActionPrior(nn.Module):
    """`p(a^i | s, s'^j of those that moved before)`: weights of action codes, factor after factor.

    Behaviour is left or right, never half of each, so the prior is over codes: a small codebook of latent
    actions that all factors and states share, fitted to the inferred ones as vector quantisation does
    (van den Oord et al. 2017). Factors move one after the other, in any order, and see where those before
    them went: factors that chose at once would walk into each other. A factor sees of the others only
    their places: it attends to a few places of its choice, by attention over rows times attention over columns,
    and sums the occupancy under each. So what is learned of one neighbour holds for all. This part is ours: the
    paper has no prior.

    Args:
        grid: rows and columns of tokens.
    """

    spread_A: torch.Tensor

    def __init__(self, config: DynamicsConfig, factor_dim: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.codes = VectorQuantize(
            config.latent_action_dim,
            config.action_codes,
            decay=0.98,
            kmeans_init=True,
            threshold_ema_dead_code=1,
            commitment_weight=1.0,
        )
        self.looks = config.looks
        self.look_at = mlp(factor_dim, config.hidden, config.looks * config.hidden)
        rows, columns = (sincos_axis(count, config.hidden // 2) for count in grid)
        self.rows, self.columns = nn.Parameter(rows), nn.Parameter(columns)
        self.net = mlp(factor_dim + 3 * config.looks, config.hidden, config.action_codes, layers=3)
        self.register_buffer("spread_A", torch.ones(config.latent_action_dim))

    @property
    def codebook(self) -> torch.Tensor:
        """Latent actions that the codes stand for: float `(M, A)`."""
        return self.codes.codebook

    def view_map(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight `((rows + columns) * looks, hidden)` and bias of the one linear map from hidden units of
        `look_at` to the logits of where it looks: its last layer and the products with positions together."""
        _, last = linears(self.look_at)
        positions = torch.block_diag(self.rows, self.columns) / self.rows.shape[1] ** 0.5
        weight = last.weight.unflatten(0, (self.looks, -1)).movedim(0, 1)
        bias = last.bias.unflatten(0, (self.looks, -1)).T
        return torch.einsum("pd,dlh->plh", positions, weight).flatten(0, 1), (positions @ bias).flatten()

    def view(self, hidden_logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shares of rows `(..., rows, looks)` and of columns `(..., columns, looks)` that each look sees, of
        the logits `(..., (rows + columns) * looks)` that `view_map` gives."""
        logits = hidden_logits.unflatten(-1, (-1, self.looks)).clamp(-MOST_LOGIT, MOST_LOGIT)
        row, column = logits.split([len(self.rows), len(self.columns)], -2)
        return row.softmax(-2), column.softmax(-2)

    def logits(
        self,
        asked_BIS: Float[torch.Tensor, "*B I S"],
        others_IK: Bool[torch.Tensor, "I K"],
        places_BKN: Float[torch.Tensor, "*B K N"],
        next_places_BKN: Float[torch.Tensor, "*B K N"] | None = None,
        moved_BIK: Bool[torch.Tensor, "*moved K"] | None = None,
    ) -> Float[torch.Tensor, "*B I M"]:
        """Logits of the action codes of I factors.

        Args:
            asked_BIS: the factors whose action codes are predicted.
            others_IK: which factors are others to them: all but themselves.
            places_BKN: where each factor is before anything moved, its share of each token.
            next_places_BKN: where factors moved to, read only where `moved_BIK` says that they did.
        """
        view = self.view(nn.functional.linear(self.look_at[:2](asked_BIS), *self.view_map()))
        taken_BIKL = occupancy(places_BKN.unsqueeze(-3), *view)
        others = others_IK.unsqueeze(-1)
        if next_places_BKN is None or moved_BIK is None:
            staying = (taken_BIKL * others).sum(-2)
            came = left = torch.zeros_like(staying)
        else:
            moved = moved_BIK.unsqueeze(-1) & others
            staying = (taken_BIKL * (others & ~moved)).sum(-2)
            came = (occupancy(next_places_BKN.unsqueeze(-3), *view) * moved).sum(-2)
            left = (taken_BIKL * moved).sum(-2)
        return self.net(torch.cat([asked_BIS, staying, came, left], -1))


def occupancy(places: torch.Tensor, row: torch.Tensor, column: torch.Tensor) -> torch.Tensor:
    """The share of `places`, `(..., P, N)`, under each attention map, `(..., P, looks)`; maps as `LatentActionPrior.view`
    returns them, of rows `(..., rows, looks)` and columns `(..., columns, looks)`."""
    if torch.compiler.is_compiling():  # sums fuse, where products of such small matrices cannot
        grid = places.unflatten(-1, (row.shape[-2], -1)).unsqueeze(-1)
        across = (grid * row.unsqueeze(-2).unsqueeze(-4)).sum(-3)
        return (across * column.unsqueeze(-3)).sum(-2)
    across = places.unflatten(-1, (row.shape[-2], -1)).flatten(-3, -2) @ column
    return (across.unflatten(-2, (-1, row.shape[-2])) * row.unsqueeze(-3)).sum(-2)
