"""Pictures with sub-pixel places: antialiased discs, and textures that are defined between pixels too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KNOT = 4
"""Pixels between the control points of a texture: nothing in it is finer than about twice that."""
OCTAVES = {1: 60.0, 3: 50.0, 8: 40.0}
"""Amplitude in grey levels of the noise with each number of control points per cell."""


class Texture:
    """A smooth random picture of muted colours: a cubic B-spline surface over noise of several sizes.

    Control points and weights have few bits, so that sums of their products are exact in double precision and pixels the
    same in whatever order a processor sums.

    Args:
        rng: where the noise comes from.
        height, width: pixels that can be drawn.
    """

    def __init__(self, rng: np.random.Generator, height: int, width: int) -> None:
        rows, columns = height // KNOT + 4, width // KNOT + 4
        control = rng.uniform(80, 120, (3, 1, 1))
        for cell, depth in OCTAVES.items():
            shape = (rows // cell + 4, columns // cell + 4)
            noise = rng.uniform(-1, 1, shape) + rng.uniform(-0.4, 0.4, (3, *shape))
            down, along = (
                _spline(np.arange(n) / cell, k) for n, k in zip((rows, columns), shape, strict=True)
            )
            control = control + depth * (down @ noise @ along.T)
        self._control = np.clip(np.rint(control), 20, 190)

    def draw(self, corner: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
        """The picture from `corner`, x and y in pixels of any fraction, on: float32 `(3, height, width)`, 20 to 190."""
        rows, columns = self._control.shape[1:]
        down = _spline((corner[1] + 0.5 + np.arange(height)) / KNOT, rows)
        along = _spline((corner[0] + 0.5 + np.arange(width)) / KNOT, columns)
        return (down @ self._control @ along.T).astype(np.float32)


def _spline(places: np.ndarray, knots: int) -> np.ndarray:
    """Cubic B-spline weights of `knots` control points, the second of them at 0: `(len(places), knots)`, multiples of 2**-12."""
    away = np.abs(places[:, None] - np.arange(-1, knots - 1))
    outer, inner = np.maximum(2 - away, 0), np.maximum(1 - away, 0)
    return np.rint((outer * outer * outer - 4 * inner * inner * inner) * (4096 / 6)) / 4096


def coverage(x: np.ndarray, y: np.ndarray, centre: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """The share of each pixel that lies in a disc, whose edge counts as straight within a pixel.

    Args:
        x: `(n, width)`, y: `(n, height)`: the pixels' first columns and rows, an own grid for each disc.
        centre: `(n, 2)`, x and y, in pixels. radius: `(n,)`, pixels.

    Returns:
        float32 `(n, height, width)`, 0 to 1.
    """
    dx = (x + (0.5 - centre[:, :1])).astype(np.float32)
    dy = (y + (0.5 - centre[:, 1:])).astype(np.float32)
    away = np.sqrt((dx * dx)[:, None, :] + (dy * dy)[:, :, None])
    return np.clip((radius.astype(np.float32) + np.float32(0.5))[:, None, None] - away, 0, 1)


def draw_discs(
    picture: np.ndarray, centre: np.ndarray, radius: np.ndarray, colour: np.ndarray, hole: float = 0.0
) -> None:
    """Draw discs into `picture`, float32 `(3, height, width)`, in their order: the last one is on top.

    Args:
        centre: `(n, 2)`, x and y, in pixels of the picture; outside of it too. radius: `(n,)`, pixels.
        colour: float32 `(n, 3)`.
        hole: radius of a round hole in each, which makes rings of them.
    """
    height, width = picture.shape[1:]
    side = int(2 * radius.max(initial=0)) + 3
    corner = np.floor(centre - radius[:, None] - 0.5).astype(int)
    grid = np.arange(side)
    share = coverage(corner[:, :1] + grid, corner[:, 1:] + grid, centre, radius)
    if hole:
        share -= coverage(corner[:, :1] + grid, corner[:, 1:] + grid, centre, np.full(len(radius), hole))
    for (x, y), alpha, rgb in zip(corner.tolist(), share, colour[:, :, None, None], strict=True):
        left, top, right, bottom = max(x, 0), max(y, 0), min(x + side, width), min(y + side, height)
        if left < right and top < bottom:
            patch = picture[:, top:bottom, left:right]
            patch += alpha[top - y : bottom - y, left - x : right - x] * (rgb - patch)


def disc_boxes(
    centre: np.ndarray, radius: np.ndarray, height: int, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Discs as a frame shows them.

    Args:
        centre: `(n, 2)`, x and y, in pixels of the frame; outside of it too. radius: `(n,)`, pixels.

    Returns:
        Boxes `(n, 4)`, x0 y0 x1 y1 in pixels; and bool `(n,)`, whether a box is a pixel or more wide and high.
    """
    frame = np.array([width, height])
    outside = np.maximum(0, np.maximum(-centre, centre - frame))[:, ::-1]  # how far along the other axis
    half = np.sqrt(np.maximum(radius[:, None] ** 2 - outside**2, 0))  # width and height of what is seen
    corners = (centre - half).clip(0, frame), (centre + half).clip(0, frame)
    box = np.concatenate(corners, 1).astype(np.float32)
    return box, np.all(box[:, 2:] - box[:, :2] >= 1, axis=1)
