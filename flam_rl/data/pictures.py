"""Still pictures, numbered ones as an episode, and animated pictures; everything that Pillow opens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .episodes import Skipped, Stream, Timed
from .fitting import Fitting
from .steps import Film, episodes

BROKEN = (OSError, ValueError, SyntaxError, EOFError, IndexError, Image.DecompressionBombError)
"""What Pillow raises on damaged files."""
_NO_DELAY_S = 0.1
"""How long players show a frame of an animation that gives no time, or none worth the name."""


def rgb(picture: Image.Image) -> np.ndarray:
    """uint8 `(h, w, 3)` as a viewer shows it: turned as its EXIF says, transparency over black, 16 bit as 8."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I") or picture.mode == "F":  # gray of 16 bit, or floats in 0..1
        deep = np.asarray(picture, np.float64) * (255 if picture.mode == "F" else 1 / 257)
        return np.repeat(deep.clip(0, 255).round().astype(np.uint8)[..., None], 3, -1)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        black = Image.new("RGBA", picture.size, (0, 0, 0, 255))
        picture = Image.alpha_composite(black, picture)
    return np.asarray(picture.convert("RGB"))


def read_numbered(source: str, files: Sequence[Path], fitting: Fitting) -> Stream:
    """Pictures in the order of `files` as one episode; a broken one is named and left out.

    Raises:
        ValueError: none can be read.
    """
    film = Film(source, rotation=0)
    sizes: set[tuple[int, int]] = set()
    count = 0
    for path in files:
        try:
            with Image.open(path) as opened:
                picture = rgb(opened)
        except BROKEN as error:
            film.warnings.append(f"left out {path.name}: {error}")
            yield Skipped(f"{source}/{path.name}", f"broken picture: {error}")
            continue
        if not count:
            film.height, film.width = picture.shape[:2]
        sizes.add(picture.shape[:2])
        count += 1
        yield fitting.place(fitting.scale(picture))
    if not count:
        raise ValueError(f"none of its {len(files)} pictures can be read: {'; '.join(film.warnings)}")
    if len(sizes) > 1:
        film.warnings.append(f"its pictures have {len(sizes)} sizes; each was made to fit")
    yield film.record(0, count, None)


def read_animation(source: str, path: Path, fitting: Fitting, fps: float | None, split_cuts: bool) -> Stream:
    """A gif, or a png, webp or tiff of several pictures.

    Raises:
        ValueError: no frame decodes.
    """
    durations = _durations(path)
    period = float(np.median(durations)) if durations else None
    film = Film(source, period, rotation=0)
    return episodes(film, _animation(film, path, durations, fitting), fitting, fps, split_cuts)


def _durations(path: Path) -> list[float]:
    """Seconds that each frame which opens is shown; nothing for a stack of pictures without times."""
    found: list[float] = []
    with Image.open(path) as picture:
        try:
            while True:
                picture.seek(len(found))
                picture.load()  # webp raises only then
                found.append(_shown(picture))
        except BROKEN:
            pass
        return found if "duration" in picture.info or picture.format == "GIF" else []


def _shown(picture: Image.Image) -> float:
    seconds = float(picture.info.get("duration") or 0) / 1000
    return seconds if seconds > 0.01 else _NO_DELAY_S


def _animation(film: Film, path: Path, durations: list[float], fitting: Fitting) -> Iterator[Timed]:
    time, count = 0.0, 0
    with Image.open(path) as picture:
        while True:
            try:
                picture.seek(count)
                shown = rgb(picture)
            except EOFError:
                break
            except BROKEN as error:
                film.warnings.append(f"cut short: {count} frames decode; it broke with: {error}")
                break
            film.height, film.width = shown.shape[:2]
            yield Timed(time if durations else None, fitting.scale(shown))
            time += durations[count] if count < len(durations) else 0.0
            count += 1
