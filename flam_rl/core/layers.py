"""Small layers that several parts of the world model share."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from jaxtyping import Float, Int
from torch import nn

MOST_LOGIT = 30.0
"""Logits of rows and of columns are kept within it: the exponential of a sum of two never overflows."""
MEMBERS = 5
"""Networks in an ensemble: they disagree where there are no labels."""
FEW = 8
"""Factors up to which attention is written out: the library's is made for long sequences."""
WORTH_STARTING = 2**22
"""Multiplications from which a product on a CPU is faster in bfloat16: docs/performance.md has the figures."""


TIE = 1e-4
"""Values that differ by less are equal: rounding does not decide between them."""


def first_least(values: torch.Tensor, margin: float = TIE) -> torch.Tensor:
    """Index of the least along the last dim of `(..., n)`, and of entries within `margin` of it the first: int64 `(...)`.

    `argmin` of entries that are equal but for rounding differs by processor, number of threads and shape of the batch.
    """
    return (values <= values.amin(-1, keepdim=True) + margin).int().argmax(-1)


def nearest_code(
    x: torch.Tensor, codes: torch.Tensor, allowed: torch.Tensor | None = None
) -> Int[torch.Tensor, "*B"]:
    """The first of the nearest codes `(M, A)` to each `x`, `(..., A)`: int64 `(...)`.

    Args:
        allowed: bool `(..., M)`, at least one True in each row; the others are not taken.
    """
    distance = (x.unsqueeze(-2) - codes).square().sum(-1)
    return first_least(distance if allowed is None else distance.masked_fill(~allowed, float("inf")))


def mlp(inputs: int, hidden: int, outputs: int, layers: int = 2) -> nn.Sequential:
    """`layers` linear maps with a GELU between each two."""
    widths = [inputs] + [hidden] * (layers - 1) + [outputs]
    modules: list[nn.Module] = []
    for before, after in pairwise(widths):
        modules += [nn.Linear(before, after), nn.GELU()]
    return nn.Sequential(*modules[:-1])


def linears(net: nn.Module) -> list[nn.Linear]:
    """The linear maps in `net`, first to last."""
    return [layer for layer in net.modules() if isinstance(layer, nn.Linear)]


class FrozenLinear:
    """A linear map with the weights that it has now; in `dtype` where that is faster, else in float32.

    On a CPU a bfloat16 product runs at twice the speed of a float32 one once it runs, but takes five times as
    long to start.
    """

    def __init__(
        self, weight: torch.Tensor, bias: torch.Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> None:
        # Small products are faster by weights that lie input by input.
        self._exact = _copy(weight.T, torch.float32).T, None if bias is None else _copy(bias, torch.float32)
        self._fast = self._exact
        if dtype != torch.float32:
            self._fast = _copy(weight.T, dtype).T, None if bias is None else _copy(bias, dtype)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """float `(..., inputs)` to `(..., outputs)`."""
        weight, _ = self._exact
        large = x.device.type != "cpu" or x.numel() * len(weight) >= WORTH_STARTING
        weight, bias = self._fast if large else self._exact
        if torch.compiler.is_compiling():  # what follows adds a bias for free; `linear` copies it to each row
            product = x.to(weight.dtype) @ weight.T
            return product if bias is None else product + bias
        return nn.functional.linear(x.to(weight.dtype), weight, bias)


def _copy(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return x.detach().to(dtype).clone(memory_format=torch.contiguous_format)


def unit_rms(x: torch.Tensor) -> torch.Tensor:
    """`x` scaled to root mean square 1 over its last dim: what keeps unrolled factors from growing."""
    return nn.functional.rms_norm(x, x.shape[-1:])


def sincos_axis(count: int, dim: int) -> torch.Tensor:
    """Fixed sine-cosine positions along one axis (Vaswani et al. 2017, sec. 3.5): float32 `(count, dim)`.

    From half a period over the whole axis up to a period of 2.5 tokens.
    """
    frequency = torch.logspace(math.log10(math.pi / count), math.log10(0.8 * math.pi), dim // 2)
    angle = torch.arange(count)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], -1)


def sincos_positions(rows: int, columns: int, dim: int) -> torch.Tensor:
    """Fixed 2-d sine-cosine positions, one half for each axis.

    Returns:
        float32 `(rows * columns, dim)`.

    Raises:
        ValueError: `dim` is not a multiple of 4.
    """
    if dim % 4:
        raise ValueError(f"dim is {dim}; it must be a multiple of 4")
    rows_part = sincos_axis(rows, dim // 2)[:, None].expand(rows, columns, -1)
    columns_part = sincos_axis(columns, dim // 2)[None].expand(rows, columns, -1)
    return torch.cat([rows_part, columns_part], -1).reshape(rows * columns, dim)


class AttentionOverFactors(nn.Module):
    """One residual, pre-normalised self-attention in which the factors of one frame see each other."""

    def __init__(self, dim: int, heads: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.out = nn.Linear(dim, dim)

    def forward(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Float[torch.Tensor, "*B K S"]:
        """float `(..., K, S)` to the same shape."""
        return self.factors_first(factors_BKS.movedim(-2, 0)).movedim(0, -2)

    def factors_first(self, factors_KBS: Float[torch.Tensor, "K *B S"]) -> Float[torch.Tensor, "K *B S"]:
        """The same with factors first: float `(K, ..., S)`."""
        return factors_KBS + self.out(self.attend(self.qkv(factors_KBS)))

    def attend(self, qkv_KBT: Float[torch.Tensor, "K *B T"]) -> Float[torch.Tensor, "K *B S"]:
        """Queries, keys and values, `(K, ..., 3 * S)`, to what each factor sees before `out`, `(K, ..., S)`."""
        query, key, value = qkv_KBT.unflatten(-1, (3, self.heads, -1)).unbind(-3)
        if len(qkv_KBT) <= FEW:
            score = (query.unsqueeze(1) * key).sum(-1) / query.shape[-1] ** 0.5
            seen = (score.softmax(1).unsqueeze(-1) * value).sum(1)
        else:
            query, key, value = (part.movedim(0, -2) for part in (query, key, value))
            seen = nn.functional.scaled_dot_product_attention(query, key, value).movedim(-2, 0)
        return seen.flatten(-2)


class TransformerBlock(nn.Module):
    """Attention among the tokens of one frame, then an MLP, both residual and pre-normalised."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.attention = AttentionOverFactors(dim)
        self.net = mlp(dim, hidden, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float `(..., tokens, dim)` to the same shape."""
        x = self.attention(x)
        return x + self.net(unit_rms(x))


class EnsembleMLP(nn.Module):
    """`members` independent two-layer networks in one batched product."""

    def __init__(self, inputs: int, outputs: int, hidden: int = 64, members: int = MEMBERS) -> None:
        super().__init__()
        self.weight_0 = nn.Parameter(torch.randn(members, inputs, hidden) * (1.5 / inputs**0.5))
        self.bias_0 = nn.Parameter(torch.zeros(members, 1, hidden))
        self.weight_1 = nn.Parameter(torch.randn(members, hidden, outputs) * (1.0 / hidden**0.5))
        self.bias_1 = nn.Parameter(torch.zeros(members, 1, outputs))

    def forward(self, x_BI: torch.Tensor) -> torch.Tensor:
        """float `(B, inputs)` to `(members, B, outputs)`."""
        hidden = nn.functional.gelu(x_BI @ self.weight_0 + self.bias_0)
        return hidden @ self.weight_1 + self.bias_1


def parameters(module: nn.Module) -> int:
    """How many there are."""
    return sum(parameter.numel() for parameter in module.parameters())
