"""A picture or film that was dropped on the page, as frames of a world."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from ..data.fitting import Fitting
from ..data.reading import ReadingConfig, read

MOST_BYTES = 64 * 2**20
"""Of a file."""
MOST_PIXELS = 2**26
"""Of a picture."""
FRAMES = 32
"""Of a film that are looked at; a world begins at the last of them."""


def clip_of(path: Path, size: tuple[int, int]) -> np.ndarray:
    """The first frames of a picture or film, fitted to `size`: uint8 `(T, H, W, 3)`.

    Raises:
        ValueError: it is neither, too large, or damaged.
        ImportError: a film, and PyAV is missing.
    """
    picture = _picture(path, size)
    if picture is not None:
        return picture[None]
    config = ReadingConfig(height=size[0], width=size[1], max_frames=FRAMES, split_cuts=False)
    try:
        return np.array(read(path, config).arrays[0])
    except (OSError, IndexError) as error:
        raise ValueError(f"{path.name} is no picture or film that can be read") from error


def _picture(path: Path, size: tuple[int, int]) -> np.ndarray | None:
    """The frame `(H, W, 3)` of a still picture, None for anything else."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if getattr(picture, "is_animated", False):
                    return None
                if picture.width * picture.height > MOST_PIXELS:
                    raise ValueError(
                        f"{path.name} has {picture.width}x{picture.height} pixels; allowed are {MOST_PIXELS}"
                    )
                upright = ImageOps.exif_transpose(picture).convert("RGB")
    except Image.DecompressionBombError as error:
        raise ValueError(f"{path.name} is too large: {error}") from error
    except (OSError, SyntaxError):
        return None  # the demuxer says whether it is a film
    fitting = Fitting(*size)
    return fitting.place(fitting.scale(np.asarray(upright)))
