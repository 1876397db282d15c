"""Aggregator: factors to the codes of a frame."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import nn

from ...core.layers import MOST_LOGIT, FrozenLinear, linears, mlp, sincos_axis, sincos_positions
from ...types import check_ranges

UNLIKELY = 1e-4
"""Weight, at the start, of looks that move in the background and of those that do not in a part."""


@dataclass(frozen=True)
class AggregatorConfig:
    """Settings of the aggregator."""

    kind: Literal["competitive", "transformer"] = "competitive"
    """`competitive`: each factor draws parts, parts compete for tokens. `transformer`: the paper's."""
    parts: int = 4
    """Parts that a factor draws, each one look at any set of tokens (competitive only)."""
    hidden: int = 128
    layers: int = 2
    """Layers of the transformer."""

    def __post_init__(self) -> None:
        check_ranges(self, parts=(1, 256), hidden=range(4, 4097, 4), layers=(1, 64))


class Aggregated(NamedTuple):
    """A frame as factors see it.

    Attributes:
        log_probs_BNV: float `(..., N, V)`, log-probability of each code at each token.
        masks_BKN: float `(..., K, N)` in 0..1, the share of a token that each factor draws.
    """

    log_probs_BNV: Float[torch.Tensor, "*B N V"]
    masks_BKN: Float[torch.Tensor, "*B K N"]


class CompetitiveAggregator(nn.Module):
    """Each factor proposes parts, a look and where it is; parts and a static background compete for tokens.

    `p_n(v) = sum_c alpha_cn p_c(v)` with `alpha` a softmax over all parts of all factors and the
    background; the logit of a part at a token is that of its row plus that of its column. Own choice:
    with the paper's transformer a factor can draw what another one holds.

    Parts start without the looks of the background: one that may draw floor as well as an agent is never far wrong
    anywhere, and can stay on all of the floor at once.

    Args:
        background_NV: float in 0..1, how often the background shows each code at each token; 0 for what moves.
    """

    def __init__(
        self, config: AggregatorConfig, factor_dim: int, grid: tuple[int, int], background_NV: torch.Tensor
    ) -> None:
        super().__init__()
        self.parts, self.codes = config.parts, background_NV.shape[1]
        self.draw = mlp(factor_dim, config.hidden, config.parts * (self.codes + config.hidden + 1))
        with torch.no_grad():
            looks = linears(self.draw)[-1].bias.unflatten(0, (config.parts, -1))[:, : self.codes]
            looks += (background_NV.sum(0) > 0) * math.log(UNLIKELY)
        rows, columns = (sincos_axis(count, config.hidden // 2) for count in grid)
        self.rows, self.columns = nn.Parameter(rows), nn.Parameter(columns)
        self.background_NV = nn.Parameter((background_NV + UNLIKELY).log())
        self.background_N = nn.Parameter(torch.zeros(grid[0] * grid[1]))

    def forward(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Factors `(..., K, S)` to an `Aggregated` frame."""
        look, where = self._draw(factors_BKS)
        where = where.flatten(-3, -2)
        background = self.background_N.expand(*where.shape[:-2], 1, -1)
        share = torch.cat([where, background], -2).softmax(-2)
        looks = look.flatten(-3, -2).softmax(-1)
        probs = share[..., :-1, :].transpose(-1, -2) @ looks
        probs = probs + share[..., -1, :, None] * self.background_NV.softmax(-1)
        masks = share[..., :-1, :].unflatten(-2, (-1, self.parts)).sum(-2)
        return Aggregated((probs + 1e-7).log(), masks)

    def places(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Float[torch.Tensor, "*B K N"]:
        """Where each factor would be drawn if it were alone: share of each token in 0..1."""
        where = self._draw(factors_BKS)[1].logsumexp(-2)
        return (where - self.background_N).sigmoid()

    def frozen_places(self, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        """`places` with the weights as they are now, for a fifth of its cost: looks are not computed, what makes
        a row or a column from hidden units is one product, and parts are summed as odds."""
        first, last = linears(self.draw)
        positions = self._positions()
        weight, bias = (
            part.unflatten(0, (self.parts, -1))[:, self.codes :] for part in (last.weight, last.bias)
        )
        hide = FrozenLinear(first.weight, first.bias, dtype)
        place = FrozenLinear((positions @ weight).flatten(0, 1), (bias @ positions.T).flatten(), dtype)
        scale = (-self.background_N.detach()).exp()

        def places(factors: torch.Tensor) -> torch.Tensor:
            logits = place(nn.functional.gelu(hide(factors))).float().clamp(-MOST_LOGIT, MOST_LOGIT)
            odds = logits.exp().unflatten(-1, (self.parts, -1))
            row, column = odds.split([len(self.rows), len(self.columns)], -1)
            odds = (row.unsqueeze(-1) * column.unsqueeze(-2)).sum(-3).flatten(-2)
            return 1 - (1 + odds * scale).reciprocal()

        return places

    def _draw(self, factors_BKS: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits of each part's look `(..., K, parts, V)` and place `(..., K, parts, N)`."""
        look, query = self.draw(factors_BKS).unflatten(-1, (self.parts, -1)).tensor_split([self.codes], -1)
        logits = (query @ self._positions().T).clamp(-MOST_LOGIT, MOST_LOGIT)
        row, column = logits.split([len(self.rows), len(self.columns)], -1)
        return look, (row.unsqueeze(-1) + column.unsqueeze(-2)).flatten(-2)

    def _positions(self) -> torch.Tensor:
        """What the query of a part, halves for rows and for columns and a height, is multiplied with."""
        positions = torch.block_diag(self.rows, self.columns) / (2 * self.rows.shape[1]) ** 0.5
        height = torch.cat([torch.ones_like(self.rows[:, :1]), torch.zeros_like(self.columns[:, :1])])
        return torch.cat([positions, height], 1)


class TransformerAggregator(nn.Module):
    """The paper's: token queries read the factors through a transformer.

    Its last reading is one attention head, whose weights are the masks; what attends to no factor is the
    background's.
    """

    def __init__(
        self, config: AggregatorConfig, factor_dim: int, grid: tuple[int, int], background_NV: torch.Tensor
    ) -> None:
        super().__init__()
        self.read = nn.Linear(factor_dim, config.hidden)
        self.places_ND = nn.Parameter(sincos_positions(*grid, config.hidden))
        self.layers = nn.ModuleList(
            nn.TransformerDecoderLayer(config.hidden, 4, 2 * config.hidden, 0.0, "gelu", batch_first=True)
            for _ in range(config.layers)
        )
        self.value = nn.Linear(config.hidden, config.hidden)
        self.out = nn.Linear(config.hidden, background_NV.shape[1])

    def forward(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Factors `(..., K, S)` to an `Aggregated` frame."""
        lead = factors_BKS.shape[:-2]
        memory = self.read(factors_BKS.flatten(0, -3))
        tokens = self.places_ND.expand(len(memory), -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, memory)
        score = tokens @ memory.transpose(-1, -2) / memory.shape[-1] ** 0.5
        share = torch.cat([score, torch.zeros_like(score[..., :1])], -1).softmax(-1)[..., :-1]
        log_probs = self.out(tokens + share @ self.value(memory)).log_softmax(-1)
        return Aggregated(log_probs.unflatten(0, lead), share.transpose(-1, -2).unflatten(0, lead))

    def places(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Float[torch.Tensor, "*B K N"]:
        """Where each factor is drawn if it is alone: share of each token in 0..1."""
        return self(factors_BKS.unsqueeze(-2)).masks_BKN.squeeze(-2)

    def frozen_places(self, dtype: torch.dtype) -> Callable[[torch.Tensor], torch.Tensor]:
        """`places` with the weights as they are now, in float32 whatever `dtype`: nothing in it can be fused."""
        return copy.deepcopy(self).requires_grad_(False).places


def make_aggregator(
    config: AggregatorConfig, factor_dim: int, grid: tuple[int, int], background_NV: torch.Tensor
) -> CompetitiveAggregator | TransformerAggregator:
    """The aggregator that `config.kind` names."""
    kinds: dict[str, type[CompetitiveAggregator | TransformerAggregator]] = {
        "competitive": CompetitiveAggregator,
        "transformer": TransformerAggregator,
    }
    return kinds[config.kind](config, factor_dim, grid, background_NV)
