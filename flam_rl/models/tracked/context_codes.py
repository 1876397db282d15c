"""A small code of the background for policies, where episodes have backgrounds of their own."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from ...core.model import CONTEXT_CODE_BOUND

SIDE = 16
"""Height and width to which backgrounds are made small, of which the code is."""
MOST_NUMBERS = 16
"""Numbers of a code at most."""
FAINT = 0.06
"""What backgrounds differ by less than this, in colours in 0..1 and over all of the small picture, is no number of the code: it is
how exactly they are found."""
EPISODES = 256
"""Episodes at most whose backgrounds are looked at."""


class ContextCodes(nn.Module):
    """Principal components of the backgrounds of a video, each with mean 0 and spread 1 over it."""

    mean_P: Tensor
    components_CP: Tensor

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.register_buffer("mean_P", torch.zeros(3 * SIDE**2))
        self.register_buffer("components_CP", torch.zeros(numbers, 3 * SIDE**2))

    def forward(self, context_B3YX: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B C"]:
        """The codes of backgrounds in colours 0..1, which may be larger than frames."""
        code = (_small(context_B3YX) - self.mean_P) @ self.components_CP.mT
        return code.clamp(-CONTEXT_CODE_BOUND, CONTEXT_CODE_BOUND)


def fit_codes(contexts: Iterable[Float[Tensor, "3 Y X"]]) -> ContextCodes | None:
    """The codes of these backgrounds; None if they are all alike."""
    small_NP = torch.cat([_small(context[None]) for context in contexts])
    mean_P = small_NP.mean(0)
    _, values, vectors = torch.linalg.svd(small_NP - mean_P, full_matrices=False)
    spread = values[:MOST_NUMBERS] / len(small_NP) ** 0.5
    numbers = int((spread > FAINT).sum())
    if not numbers:
        return None
    codes = ContextCodes(numbers)
    codes.mean_P.copy_(mean_P)
    codes.components_CP.copy_(vectors[:numbers] / spread[:numbers, None])
    return codes


def _small(context_B3YX: Tensor) -> Tensor:
    return adaptive_avg_pool2d(context_B3YX.clamp(0, 1), SIDE).flatten(1)
