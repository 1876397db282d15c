"""Factorizer: codes of frames to factors, by slot attention and causal attention over time."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import nn

from ...core.layers import mlp, sincos_positions, unit_rms
from ...types import check_ranges


@dataclass(frozen=True)
class FactorizerConfig:
    """Settings of the factorizer."""

    factors: int = 4
    """K: how many entities move; what is static is not a factor but the aggregator's background."""
    factor_dim: int = 64
    """S."""
    hidden: int = 128
    """Width of the token and factor networks."""
    temperature: float = 0.05
    """Temperature of the softmax by which factors compete for a token, at the start; it is learned."""
    temporal_attention: bool = True
    """Let a factor see its own past frames (the paper's causal temporal attention)."""
    window: int = 4
    """How many frames the temporal attention sees, the present one included."""

    def __post_init__(self) -> None:
        # Attention has 4 heads, positions are sines and cosines of two axes.
        fours = range(4, 4097, 4)
        check_ranges(self, factors=(1, 256), factor_dim=fours, hidden=fours)
        check_ranges(self, temperature=(1e-6, 1e6), window=(1, 1024))


class Factorizer(nn.Module):
    """Slot attention over tokens (Locatello et al. 2020), then causal attention over time for each slot.

    FLAM (arXiv 2602.16229) does not say what keys and initial slots are. Here keys encode looks, not places,
    so that a slot follows an entity instead of a region, and both start from `binding.coherent_keys`. A
    token weighs as much as its code is active: a static background moves no factor.

    Args:
        looks_VP: float, the mean pixels of each code.
        keys_VE, queries_KE: where slot attention starts from; the last query is the background's.
        activity_V: float in 0..1, how often a token of that code changes.
        grid: rows and columns of tokens.
    """

    looks_VP: torch.Tensor
    activity_V: torch.Tensor
    positions_ND: torch.Tensor
    places_N: torch.Tensor

    def __init__(
        self,
        config: FactorizerConfig,
        looks_VP: Float[torch.Tensor, "V P"],
        keys_VE: Float[torch.Tensor, "V E"],
        queries_KE: Float[torch.Tensor, "queries E"],
        activity_V: Float[torch.Tensor, V],
        grid: tuple[int, int],
    ) -> None:
        super().__init__()
        self.config = config
        looks_VP = (looks_VP - looks_VP.mean(0)) / (looks_VP.std(0) + 1e-2)
        self.register_buffer("looks_VP", looks_VP)
        self.register_buffer("activity_V", activity_V)
        self.keys_VE = nn.Parameter(keys_VE.clone())
        self.queries_KE = nn.Parameter(queries_KE.clone())
        self.log_temperature = nn.Parameter(torch.tensor(config.temperature).log())
        self.look = nn.Linear(looks_VP.shape[1], config.hidden)
        self.register_buffer("positions_ND", sincos_positions(*grid, config.hidden))
        self.register_buffer("places_N", torch.arange(grid[0] * grid[1]), persistent=False)
        self.token = mlp(config.hidden, config.hidden, config.hidden)
        self.factor = mlp(config.hidden, config.hidden, config.factor_dim)
        self.slots_KS = nn.Parameter(torch.randn(config.factors, config.factor_dim) * 0.1)
        self.past = TemporalAttention(config.factor_dim, config.window) if config.temporal_attention else None

    def attention(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K N"]:
        """Share of each token that each factor takes: float `(B, T, K, N)`; the background takes the rest."""
        keys = nn.functional.normalize(self.keys_VE, dim=-1)
        queries = nn.functional.normalize(self.queries_KE, dim=-1)
        share_VK = (keys @ queries.T / self.log_temperature.exp()).softmax(-1)
        return nn.functional.embedding(z_BTN, share_VK[:, :-1]).transpose(-1, -2)

    def forward(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Code indices int64 `(B, T, N)` of T successive frames to factors float `(B, T, K, S)`."""
        weight_BTKN = self.attention(z_BTN) * (self.activity_V + 1e-4)[z_BTN].unsqueeze(-2)
        weight_BTKN = weight_BTKN / weight_BTKN.sum(-1, keepdim=True).clamp_min(1e-8)
        tokens_BTND = self._embed(z_BTN)
        factors_BTKS = unit_rms(self.factor(weight_BTKN @ tokens_BTND) + self.slots_KS)
        return factors_BTKS if self.past is None else unit_rms(self.past(factors_BTKS))

    def _embed(self, z_BTN: torch.Tensor) -> torch.Tensor:
        # embedding, not indexing: the gradient of the latter depends on how threads interleave.
        looks = self.look(self.looks_VP)
        if z_BTN.numel() < len(looks) * len(self.places_N):
            return self.token(nn.functional.embedding(z_BTN, looks) + self.positions_ND)
        # Large batches have fewer codes times places than tokens, so each is embedded once.
        tokens_VND = self.token(looks.unsqueeze(1) + self.positions_ND)
        return nn.functional.embedding(z_BTN * z_BTN.shape[-1] + self.places_N, tokens_VND.flatten(0, 1))


class TemporalAttention(nn.Module):
    """Residual causal attention of each factor over its own last `window` frames; starts as the identity."""

    def __init__(self, dim: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)
        self.age = nn.Parameter(torch.zeros(window))
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Float[torch.Tensor, "B T K S"]:
        """float `(B, T, K, S)` to the same shape."""
        time = torch.arange(factors_BTKS.shape[1], device=factors_BTKS.device)
        age_TT = time[:, None] - time[None]
        seen_TT = (age_TT >= 0) & (age_TT < self.window)
        bias_TT = self.age[age_TT.clamp(0, self.window - 1)].masked_fill(~seen_TT, float("-inf"))
        query, key, value = self.qkv(factors_BTKS).transpose(1, 2).chunk(3, -1)
        past_BKTS = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=bias_TT)
        return factors_BTKS + self.out(past_BKTS).transpose(1, 2)
