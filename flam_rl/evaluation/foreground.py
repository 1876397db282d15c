"""Quality of predicted frames where it matters: PSNR of the whole frame and of what moves, beside its floors."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.ndimage import binary_dilation, generate_binary_structure

from ..types import Entities, Json
from .prediction import BEST_PSNR, HORIZONS

GROWN = 2
"""Pixels by which true masks are dilated: what is drawn beside an entity's edge is an error of its own."""
DIFFERS = 16
"""Grey levels of 255, in any channel, from which a pixel differs from the episode's median."""


def evaluate_foreground(
    episodes: Sequence[np.ndarray],
    predicted: Sequence[np.ndarray],
    start: int,
    truth: Sequence[Entities] | None = None,
    horizons: Sequence[int] = HORIZONS,
) -> Json:
    """PSNR of open-loop predictions: of frame `start + h` for each horizon h, over all episodes that reach it.

    Args:
        episodes: uint8 `(T, H, W, 3)`, the frames of each, more than `start`.
        predicted: uint8 `(steps, H, W, 3)`, frames `start + 1` and on of each, made from frames `0` to `start`.
        truth: of each episode; without it the foreground is what differs from the episode's median.

    Returns:
        By horizon, as text, the figures of `quality`, and `floors`: the same of frame `start` copied (`last_frame`) and of
        the median of frames `0` to `start` (`background`). None where no episode is as long.

    Raises:
        ValueError: there are not as many predictions, or truths, as episodes.
    """
    known = [None] * len(episodes) if truth is None else truth
    if not len(episodes) == len(predicted) == len(known):
        raise ValueError(
            f"each of {len(episodes)} episodes needs a prediction and a truth; given {len(predicted)} and {len(known)}"
        )
    shown = [foreground_of(frames, entities) for frames, entities in zip(episodes, known, strict=True)]
    result: Json = {}
    for horizon in horizons:
        long = [
            index
            for index, (frames, drawn) in enumerate(zip(episodes, predicted, strict=True))
            if len(drawn) >= horizon and len(frames) > start + horizon
        ]
        true = [episodes[index][start + horizon] for index in long]
        where = [shown[index][start + horizon] for index in long]
        shots = {
            "": [predicted[index][horizon - 1] for index in long],
            "last_frame": [episodes[index][start] for index in long],
            "background": [median_frame(episodes[index][: start + 1]) for index in long],
        }
        figures = {
            name: quality(*map(np.stack, (frames, true, where))) for name, frames in shots.items() if long
        }
        result[str(horizon)] = figures.pop("") | {"floors": figures} if long else None
    return result


def quality(predicted: np.ndarray, frames: np.ndarray, foreground: np.ndarray) -> dict[str, float | None]:
    """Peak signal-to-noise ratio in dB, 100 at most, of uint8 `(B, H, W, 3)` against frames of the same shape.

    Args:
        foreground: bool `(B, H, W)`.

    Returns:
        `psnr`: mean of the frames' dB; `psnr_of_mean_error`: dB of the frames' mean error, which bad frames decide.
        `foreground_psnr`, `foreground_psnr_of_mean_error`: the same of foreground pixels, of the frames that have some, or
        None. `foreground_share`: of all pixels.
    """
    error = np.square(predicted.astype(np.float64) - frames).mean(-1) / 255**2
    area = foreground.sum((1, 2))
    inside = np.where(foreground, error, 0).sum((1, 2))[area > 0] / area[area > 0]
    result: dict[str, float | None] = {"foreground_share": float(foreground.mean())}
    for name, errors in {"psnr": error.mean((1, 2)), "foreground_psnr": inside}.items():
        result[name] = float(_decibel(errors).mean()) if len(errors) else None
        result[f"{name}_of_mean_error"] = float(_decibel(errors.mean())) if len(errors) else None
    return result


def _decibel(error: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.maximum(error, 10 ** (-BEST_PSNR / 10)))


def foreground_of(frames: np.ndarray, truth: Entities | None = None) -> np.ndarray:
    """Where entities are in frames uint8 `(T, H, W, 3)`: bool `(T, H, W)`.

    With truth, its masks, or its boxes where it has none, grown by `GROWN` pixels; else where a frame differs from the
    episode's median by more than `DIFFERS` grey levels.
    """
    if truth is None:
        apart = np.abs(frames.astype(np.int16) - median_frame(frames))
        return apart.max(-1) > DIFFERS
    return grow(entity_masks(truth, frames.shape[1:3]).max(1), GROWN)


def entity_masks(entities: Entities, size: tuple[int, ...]) -> np.ndarray:
    """Which pixels show each entity, by its mask or, without, its box: bool `(T, K, H, W)`.

    Args:
        size: H and W of the frames.
    """
    if entities.mask is not None:
        return entities.mask > 0.5
    x0, y0, x1, y1 = np.moveaxis(entities.box, -1, 0)[..., None]
    row, column = (np.arange(count) + 0.5 for count in size)
    inside_y, inside_x = (row >= y0) & (row < y1), (column >= x0) & (column < x1)  # nothing is inside of NaN
    return inside_y[..., :, None] & inside_x[..., None, :]


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Masks bool `(..., H, W)` dilated by so many pixels in each direction."""
    around = generate_binary_structure(2, 2).reshape(*[1] * (mask.ndim - 2), 3, 3)
    return binary_dilation(mask, around, iterations=pixels)


def median_frame(frames: np.ndarray) -> np.ndarray:
    """The background of frames uint8 `(T, H, W, 3)`: the median over time of each pixel and channel, uint8 `(H, W, 3)`."""
    return np.median(frames, axis=0).astype(np.uint8)
