"""Sprites: looks of factors, drawn as patches of colour and alpha at sub-pixel places.

A look is float `(4, P, P)`: red, green and blue times alpha, and alpha, all in 0..1, one entry for a frame pixel.
Places are `(x, y)` in pixels of the frame, whose first pixel has its centre at (0.5, 0.5). Drawing is bilinear: two
matrix products with hat functions, which have gradients everywhere.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

STEP = 0.5
"""Half the distance, in pixels, over which a slope of a hat function is taken: at whole-pixel places its derivative is 0."""


def hats(place: Float[Tensor, ...], patch: int, length: int) -> Float[Tensor, "... length patch"]:
    """The share of each entry of a patch centred at `place` that falls on each of `length` pixels."""
    apart = torch.arange(length, device=place.device)[:, None] - torch.arange(patch, device=place.device)
    return (1 - (apart - (place[..., None, None] - patch / 2)).abs()).clamp_min_(0)


class Layers(NamedTuple):
    """Sprites in frame pixels, one layer for each factor, before blending."""

    drawn_BK4HW: Float[Tensor, "B K 4 H W"]
    along_x_BK4HW: Float[Tensor, "B K 4 H W"] | None
    """Change for a pixel's move to the right."""
    along_y_BK4HW: Float[Tensor, "B K 4 H W"] | None


def draw(
    look_BK4PP: Float[Tensor, "B K 4 P P"],
    place_BK2: Float[Tensor, "B K 2"],
    size: tuple[int, int],
    slopes: bool = False,
) -> Layers:
    """Draw each look at its place in a frame of `size` (height, width); with `slopes`, also the layers' derivatives
    by place."""
    patch = look_BK4PP.shape[-1]
    x_BK, y_BK = place_BK2.unbind(-1)
    across, down = hats(x_BK, patch, size[1])[:, :, None], hats(y_BK, patch, size[0])[:, :, None]
    rows = look_BK4PP @ across.mT
    if not slopes:
        return Layers(down @ rows, None, None)
    tilt = [
        hats(v + STEP, patch, n) - hats(v - STEP, patch, n) for v, n in ((x_BK, size[1]), (y_BK, size[0]))
    ]
    turned = look_BK4PP @ tilt[0][:, :, None].mT
    return Layers(down @ rows, down @ turned, tilt[1][:, :, None] @ rows)


def lift(
    image_BKCHW: Float[Tensor, "B K C H W"], place_BK2: Float[Tensor, "B K 2"], patch: int
) -> Float[Tensor, "B K C P P"]:
    """The part of an image that falls on each entry of the patches: the transpose of `draw`."""
    size = image_BKCHW.shape[-2:]
    across = hats(place_BK2[..., 0], patch, size[1])[:, :, None]
    down = hats(place_BK2[..., 1], patch, size[0])[:, :, None]
    return down.mT @ image_BKCHW @ across


class Scene(NamedTuple):
    """Layers blended over a context and, for each layer, the frame behind it and its visibility."""

    frame_B3HW: Float[Tensor, "B 3 H W"]
    behind_BK3HW: Float[Tensor, "B K 3 H W"]
    seen_BKHW: Float[Tensor, "B K H W"]
    """Share of a layer that no nearer layer hides."""


def blend(
    drawn_BK4HW: Float[Tensor, "B K 4 H W"],
    depth_BK: Float[Tensor, "B K"],
    context_B3HW: Float[Tensor, "B 3 H W"],
) -> Scene:
    """Blend layers over the context, in order of falling depth: smaller depth is nearer."""
    order_BK = depth_BK.argsort(dim=1, descending=True, stable=True)
    rows_B1 = torch.arange(len(order_BK), device=order_BK.device)[:, None]
    layers = drawn_BK4HW[rows_B1, order_BK].split((3, 1), 2)
    frame, left = context_B3HW, torch.ones_like(context_B3HW[:, :1])
    behind, seen = [], []
    for color, alpha in zip(layers[0].unbind(1), layers[1].unbind(1), strict=True):
        behind.append(frame)
        frame = torch.addcmul(frame, alpha, frame, value=-1).add_(color)
    for alpha in layers[1].unbind(1)[::-1]:
        seen.append(left)
        left = torch.addcmul(left, alpha, left, value=-1)
    back_BK = order_BK.argsort(dim=1)
    return Scene(
        frame,
        torch.stack(behind, 1)[rows_B1, back_BK],
        torch.cat(seen[::-1], 1)[rows_B1, back_BK],
    )


def masks(
    drawn_BK4HW: Float[Tensor, "B K 4 H W"], seen_BKHW: Float[Tensor, "B K H W"]
) -> Float[Tensor, "B K H W"]:
    """The share of each pixel that each factor draws."""
    return drawn_BK4HW[:, :, 3] * seen_BKHW


class Extent(NamedTuple):
    """Offset of a look within its patch, and its size."""

    offset_BK2: Float[Tensor, "B K 2"]
    """Centre of its alpha, in pixels from the centre of the patch."""
    size_BK2: Float[Tensor, "B K 2"]
    """Width and height in pixels, fractions from soft edges."""


def extent(alpha_BKPP: Float[Tensor, "B K P P"]) -> Extent:
    """Place and size of looks by their alpha."""
    patch = alpha_BKPP.shape[-1]
    at = torch.arange(patch, device=alpha_BKPP.device) + 0.5 - patch / 2
    solid = torch.where(alpha_BKPP > 0.1, alpha_BKPP, 0)
    mass = solid.sum((-1, -2)).clamp_min(1e-6)
    offset = torch.stack([(solid.sum(-2) * at).sum(-1), (solid.sum(-1) * at).sum(-1)], -1) / mass[..., None]
    return Extent(offset, torch.stack([solid.amax(-2).sum(-1), solid.amax(-1).sum(-1)], -1))


def cut(
    image_NCHW: Float[Tensor, "N C H W"], corner_N2: Int[Tensor, "N 2"], size: int
) -> Float[Tensor, "N C size size"]:
    """Windows of `size` by `size` pixels with their upper left pixel at `corner` (x, y); pixels outside of the image
    are 0."""
    n, _, height, width = image_NCHW.shape
    at = torch.arange(size, device=image_NCHW.device)
    xs, ys = corner_N2[:, 0, None] + at, corner_N2[:, 1, None] + at
    inside = ((ys >= 0) & (ys < height))[:, :, None] & ((xs >= 0) & (xs < width))[:, None, :]
    rows = torch.arange(n, device=image_NCHW.device)[:, None, None]
    window = image_NCHW.movedim(1, -1)[
        rows, ys.clamp(0, height - 1)[:, :, None], xs.clamp(0, width - 1)[:, None]
    ]
    return (window * inside[..., None]).movedim(-1, 1)
