"""Tokens of a frame: connected pieces of its unexplained pixels, each a candidate for a factor."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor

ALL_SIDES = np.ones((3, 3), bool)


class Token(NamedTuple):
    """A candidate for a factor.

    Attributes:
        mask: bool `(H, W)`, its pixels.
        place: centre of its box, (x, y) in pixels.
        size: width and height of its box in pixels.
        area: how many pixels it has.
    """

    mask: np.ndarray
    place: tuple[float, float]
    size: tuple[int, int]
    area: int

    def around(self, margin: int) -> tuple[slice, slice]:
        """Rows and columns of its box, extended by `margin` pixels within the frame."""
        (height, width), (x, y), (wide, tall) = self.mask.shape, self.place, self.size
        top, left = round(y - tall / 2), round(x - wide / 2)
        return (
            slice(max(0, top - margin), min(height, top + tall + margin)),
            slice(max(0, left - margin), min(width, left + wide + margin)),
        )


def differs(residual_B3HW: Float[Tensor, "*B 3 H W"], threshold: float) -> Bool[Tensor, "*B H W"]:
    """Where a channel differs by more than `threshold`; colours are in 0..1."""
    return residual_B3HW.abs().amax(-3) > threshold


def find_tokens(unexplained: np.ndarray, area: int, join: int = 0) -> list[Token]:
    """The pieces of bool `(H, W)` of at least `area` pixels, largest first.

    Args:
        join: pieces are one if each, grown by `join` pixels, touches the other.
    """
    if unexplained.sum() < area:
        return []
    wide = ndimage.binary_dilation(unexplained, ALL_SIDES, iterations=join) if join else unexplained
    labels, _ = ndimage.label(wide, ALL_SIDES)
    labels[~unexplained] = 0
    tokens = []
    for label, box in enumerate(ndimage.find_objects(labels), 1):
        if box is None:
            continue
        piece = labels[box] == label
        if (count := int(piece.sum())) < area or min(piece.shape) < 2:
            continue
        mask = np.zeros_like(unexplained)
        mask[box] = piece
        (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
        centre = ((left + right) / 2, (top + bottom) / 2)
        tokens.append(Token(mask, centre, (right - left, bottom - top), count))
    return sorted(tokens, key=lambda token: -token.area)


def sizes_of_movers(
    residual_T3HW: Float[Tensor, "T 3 H W"],
    threshold: float,
    area: int,
    every: int = 4,
) -> np.ndarray:
    """The longer sides, in pixels, of the tokens in every `every`-th frame; frames are given as differences from the
    context."""
    unexplained = differs(residual_T3HW[::every], threshold).cpu().numpy()
    return np.array([max(token.size) for mask in unexplained for token in find_tokens(mask, area)], float)


def filled(mask: np.ndarray) -> np.ndarray:
    """A token's mask with its holes filled, one pixel wider for the soft edge."""
    return ndimage.binary_dilation(ndimage.binary_fill_holes(mask), ALL_SIDES)
