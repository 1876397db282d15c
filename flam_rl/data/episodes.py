"""What a source of video gives: pictures one at a time and, after those of an episode, its record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np


@dataclass(frozen=True)
class Timed:
    """A picture, uint8 `(h, w, 3)` and scaled, shown from `time` on, in seconds; None where that is unknown."""

    time: float | None
    picture: np.ndarray


@dataclass(frozen=True)
class EpisodeInfo:
    """Where an episode came from and what was done to it; null where it is unknown.

    Attributes:
        source: path below the data, or its name.
        frames: decodable frames of this episode.
        kept: frames that training sees: after rate, stride and bound.
        start_frame: number of the first among all decodable frames of its source.
        height, width: as displayed, in pixels, before resizing.
        fps: frames per second of the source: the median where its rate varies.
        rotation: degrees clockwise by which the stored picture is turned for display.
        duration_s: from the first frame to the end of the last.
        start_s: when the first frame is shown, on the clock of the source. step_s: from each frame to the next, before a
            stride.
        numbers: of each kept frame the number that it has among all decodable frames of its source; empty where that is
            `start_frame` and one more for each, or a stride more.
        warnings: what a person should know.
    """

    source: str
    frames: int
    kept: int
    start_frame: int
    height: int
    width: int
    fps: float | None = None
    rotation: int | None = None
    duration_s: float | None = None
    start_s: float | None = None
    step_s: float | None = None
    numbers: tuple[int, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True)
class Skipped:
    """A source, or a part of one, that training does not see."""

    source: str
    reason: str


Stream: TypeAlias = Iterator[np.ndarray | EpisodeInfo | Skipped]
"""Frames uint8 `(H, W, 3)`, after those of each episode its record, and in between what is left out.

The frames of a record may have come before a stride and a bound: `kept` is set by whoever keeps them.
"""
