"""Hard cuts, found by libavfilter's scene detector."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np


class CutDetector:
    """Whether a picture, uint8 `(h, w, 3)`, starts another scene than the one before it showed.

    The score of https://ffmpeg.org/ffmpeg-filters.html#scdet at its default threshold: how much the mean of all
    absolute differences grew since the picture before, so that lasting motion is no cut.
    """

    def __init__(self) -> None:
        self._graph: Any = None
        self._shape: tuple[int, ...] = ()
        self._seen = 0

    def __call__(self, picture: np.ndarray) -> bool:
        import av
        import av.filter

        if picture.shape != self._shape:
            self._shape = picture.shape
            self._graph = av.filter.Graph()
            source = self._graph.add_buffer(
                width=picture.shape[1], height=picture.shape[0], format="rgb24", time_base=Fraction(1, 1000)
            )
            self._graph.link_nodes(
                source, self._graph.add("scdet"), self._graph.add("buffersink")
            ).configure()
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), "rgb24")
        frame.pts, frame.time_base = self._seen, Fraction(1, 1000)
        self._seen += 1
        self._graph.vpush(frame)
        return "lavfi.scd.time" in self._graph.vpull().metadata
