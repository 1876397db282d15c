"""Quality of predicted frames where it matters: PSNR of the whole frame and of what moves, beside its floors."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from scipy.ndimage import binary_dilation, generate_binary_structure

from ..core.threads import one_core
from ..progress import progress
from ..types import Json, Truth
from .encoded import Encoded
from .prediction import BEST_PSNR, HORIZONS, Clips
from .truth import true_entities

START = 8
"""The frame that prediction starts from; the frames before it show the background."""
GROWN = 2
"""Pixels by which true masks are dilated: what is drawn beside an entity's edge is an error of its own."""
DIFFERS = 16
"""Grey levels of 255, in any channel, from which a pixel differs from the episode's median."""
SAMPLED = 64
"""The median is taken over at most as many frames, spread over the episode."""


@one_core()
@torch.inference_mode()
def measure(encoded: Encoded, truth: Sequence[Truth] | None = None) -> Json:
    """PSNR of open-loop predictions from frame `START`, whose latent actions are inferred from the true frames.

    The foreground is where the true entities are, grown by `GROWN` pixels; without truth, where the frame differs from the
    episode's median.

    Returns:
        The figures of `beside_floors` by horizon (as text); None where no episode is long enough.
    """
    result: Json = {}

    @cache
    def median(index: int) -> np.ndarray:
        return median_frame(encoded.frames[index])

    def foreground(index: int, frame: int) -> np.ndarray:
        if truth is not None:
            at = Truth(**{name: values[[frame]] for name, values in truth[index].arrays().items()})
            there = true_entities(at, encoded.world.frame_size, masks=True)
            if there is not None:
                assert there.mask is not None
                return grow(np.any(there.mask > 0.5, axis=1), GROWN)[0]
        return differs(encoded.frames[index][frame], median(index))

    for horizon in progress(HORIZONS, desc="foreground", unit="horizon"):
        clips = Clips.from_encoded(encoded, START, horizon)
        result[str(horizon)] = clips and beside_floors(
            encoded.world.draw(clips.unroll()[-1]).cpu().numpy(),
            clips.frames(horizon),
            np.stack([foreground(index, START + horizon) for index in clips.chosen]),
            [encoded.frames[index][: START + 1] for index in clips.chosen],
        )
    return result


def beside_floors(
    predicted: np.ndarray, frames: np.ndarray, foreground: np.ndarray, known: Sequence[np.ndarray]
) -> Json:
    """The figures of `quality`, and `floors`: the same of the last frame known, copied (`last_frame`), and of the median of
    the frames known, the background alone (`background`).

    Args:
        predicted, frames, foreground: as `quality` takes them.
        known: for each prediction the frames that it was made from, uint8 `(T, H, W, 3)`.
    """
    floors = {
        "last_frame": np.stack([clip[-1] for clip in known]),
        "background": np.stack([median_frame(clip) for clip in known]),
    }
    return quality(predicted, frames, foreground) | {
        "floors": {name: quality(floor, frames, foreground) for name, floor in floors.items()}
    }


def quality(predicted: np.ndarray, frames: np.ndarray, foreground: np.ndarray) -> Json:
    """Peak signal-to-noise ratio in dB, 100 at most, of uint8 `(B, H, W, 3)` against frames of the same shape.

    Args:
        foreground: bool `(B, H, W)`.

    Returns:
        `psnr`: mean of the frames' dB; `psnr_of_mean_error`: dB of the frames' mean error, which bad frames dominate.
        `foreground_psnr`, `foreground_psnr_of_mean_error`: the same over foreground pixels, from the frames that have
            any, or None. `foreground_share`: foreground pixels as a share of all.
    """
    error = np.square(predicted.astype(np.float64) - frames).mean(-1) / 255**2
    area = foreground.sum((1, 2))
    inside = np.where(foreground, error, 0).sum((1, 2))[area > 0] / area[area > 0]
    result: Json = {"foreground_share": float(foreground.mean())}
    for name, errors in {"psnr": error.mean((1, 2)), "foreground_psnr": inside}.items():
        result[name] = float(_decibel(errors).mean()) if len(errors) else None
        result[f"{name}_of_mean_error"] = float(_decibel(errors.mean())) if len(errors) else None
    return result


def _decibel(error: np.ndarray) -> np.ndarray:
    return -10 * np.log10(np.maximum(error, 10 ** (-BEST_PSNR / 10)))


def differs(frame: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Where uint8 `(..., H, W, 3)` are further from a background of this shape than `DIFFERS`: bool `(..., H, W)`."""
    apart: np.ndarray = np.abs(frame.astype(np.int16) - background).max(-1) > DIFFERS
    return apart


def grow(mask: np.ndarray, pixels: int) -> np.ndarray:
    """Masks bool `(..., H, W)` dilated by so many pixels in each direction."""
    around = generate_binary_structure(2, 2).reshape(*[1] * (mask.ndim - 2), 3, 3)
    return binary_dilation(mask, around, iterations=pixels)


def median_frame(frames: np.ndarray) -> np.ndarray:
    """The background of frames uint8 `(T, H, W, 3)`: the median over time of each pixel and channel, uint8 `(H, W, 3)`."""
    return np.median(frames[:: max(1, len(frames) // SAMPLED)], axis=0).astype(np.uint8)
