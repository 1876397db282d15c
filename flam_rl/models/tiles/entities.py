"""Entities of a clip, from the shares of tokens that factors draw."""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float

from ...types import Entities

MOST = 0.5
"""Share of a token above which it is a factor's: no two can have that."""


def entities_of_tokens(
    masks_TKN: Float[torch.Tensor, "T K N"], grid: tuple[int, int], patch: int, masks: bool
) -> Entities:
    """Each factor is there where it draws most of a token, in the smallest box around all such tokens.

    Args:
        masks_TKN: of `Aggregated`, of the frames of a clip.
        grid: rows and columns of tokens, `patch` pixels along a side.
        masks: whether to give the shares too, each pixel that of its token.
    """
    share = masks_TKN.cpu().numpy().reshape(*masks_TKN.shape[:2], *grid)
    drawn = share > MOST
    presence = drawn.max((2, 3))
    box = np.full((*presence.shape, 4), np.nan, np.float32)
    for axis, side in ((0, drawn.max(2)), (1, drawn.max(3))):  # columns are x, rows are y
        first, last = side.argmax(-1), side.shape[-1] - side[..., ::-1].argmax(-1)
        box[presence, axis], box[presence, axis + 2] = patch * first[presence], patch * last[presence]
    return Entities(presence, box, share.repeat(patch, 2).repeat(patch, 3) if masks else None)
