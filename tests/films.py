"""Real films of many kinds for tests, made with PyAV, and a scene whose right reading is plain to see."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from flam_rl.data.reading import Reading

RED, GREEN, BACKGROUND, WHITE = (230, 20, 20), (20, 200, 20), (32, 60, 90), (235, 235, 235)
BLOCK = 8


def scene(count: int, height: int = 48, width: int = 64, background: tuple = BACKGROUND) -> np.ndarray:
    """uint8 `(count, height, width, 3)`: red at the top left, green at the bottom left, a white block that moves
    right by a pixel a frame."""
    frames = np.empty((count, height, width, 3), np.uint8)
    frames[:] = background
    frames[:, :BLOCK, :BLOCK], frames[:, -BLOCK:, :BLOCK] = RED, GREEN
    for number, frame in enumerate(frames):
        left = BLOCK + number % (width - 2 * BLOCK)
        middle = height // 2 - BLOCK // 2
        frame[middle : middle + BLOCK, left : left + BLOCK] = WHITE
    return frames


def write_film(
    path: Path,
    frames: np.ndarray,
    rate: int = 10,
    codec: str = "libx264",
    pixels: str = "yuv420p",
    given: str = "rgb24",
    times: list[float] | None = None,
    options: dict[str, str] | None = None,
    rotation: int = 0,
    container: str | None = None,
    container_options: dict[str, str] | None = None,
    size: tuple[int, int] | None = None,
    **context: Any,
) -> Path:
    """A film of `frames`, given as arrays of the pixel format `given`, all but lossless where the codec can be.

    Args:
        times: of each frame in seconds; by default equally spaced.
        rotation: degrees clockwise for the display matrix.
        size: height and width, where `frames` are planes.
        context: of the codec, such as `colorspace`.
    """
    lossless = {"libx264": {"crf": "4", "preset": "ultrafast"}, "libx265": {"x265-params": "log-level=none"}}
    with av.open(str(path), "w", format=container, container_options=container_options or {}) as out:
        stream = out.add_stream(codec, rate=rate, options=lossless.get(codec, {}) | (options or {}))
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = size or frames.shape[1:3]
        stream.pix_fmt = pixels
        stream.bit_rate = 8_000_000
        if times:
            stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in context.items():
            setattr(stream.codec_context, name, value)
        if rotation:
            stream.set_display_rotation(-rotation)
        for number, array in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(array, given)
            base = Fraction(1, 1000 if times else rate)
            frame.pts, frame.time_base = round(times[number] * 1000) if times else number, base
            for name in ("colorspace", "color_range"):
                if name in context:
                    setattr(frame, name, context[name])
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def boxed(frames: np.ndarray) -> np.ndarray:
    """48x64 as it is letterboxed to 64x64."""
    return np.pad(frames, ((0, 0), (8, 8), (0, 0), (0, 0)))


def block(frames: np.ndarray) -> list[int]:
    """Column of the white block's left side in each frame."""
    return [int(np.argwhere(frame.min(-1) > 150)[:, 1].min()) for frame in frames]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected).mean())


def close(pixel: np.ndarray, colour: tuple[int, ...], within: int = 25) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= within)


def only(reading: Reading) -> tuple[np.ndarray, str]:
    """The frames of the only episode and all its warnings."""
    assert len(reading.episodes) == 1, reading.episodes
    assert reading.episodes[0].kept == len(reading.arrays[0])
    return reading.arrays[0], "\n".join(reading.episodes[0].warnings)
