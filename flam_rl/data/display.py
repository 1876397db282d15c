"""A decoded frame as a player shows it: deinterlaced, in right colours, square pixels, upright."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np

from .fitting import Fitting

_HD_LINES = 576
"""Films that do not say their colour matrix: players take BT.601 up to this height or below 1280 columns."""
_UNSPECIFIED = 2
_FLAGS = "bicubic+accurate_rnd+full_chroma_int+full_chroma_inp"


class Display:
    """Frames of one stream, made pictures by libavfilter.

    Attributes:
        height, width: of the latest frame as displayed, in pixels.
        rotation: degrees clockwise by which it was turned.
    """

    def __init__(self, stream: Any, fitting: Fitting) -> None:
        self.stream, self.fitting = stream, fitting
        self.height, self.width, self.rotation = 0, 0, 0
        self._graph: Any = None
        self._key: tuple = ()
        self._turn = _Turn(None)
        self._interlaced = False

    def show(self, frame: Any) -> Iterator[tuple[float | None, np.ndarray]]:
        """Times in seconds and pictures, uint8 `(h, w, 3)` and scaled; a deinterlacer gives them a frame late."""
        self._interlaced |= frame.interlaced_frame
        aspect = float(self.stream.sample_aspect_ratio or 1)
        colours = (frame.format.name, frame.colorspace, frame.color_range)
        key = (frame.width, frame.height, *colours, aspect, self._interlaced, frame.rotation)
        if key != self._key:
            yield from self.finish()
            self._key = key
            matrix = frame.side_data.get("DISPLAYMATRIX")  # asked of each frame, its memory is not given back
            self._turn = _Turn(matrix and np.frombuffer(bytes(matrix), "<i4"))
            self._build(frame, aspect)
        self._graph.vpush(frame)
        yield from self._pull()

    def finish(self) -> Iterator[tuple[float | None, np.ndarray]]:
        """What the filters still hold."""
        if self._graph is not None:
            self._graph.vpush(None)
            yield from self._pull()
            self._graph = None

    def _pull(self) -> Iterator[tuple[float | None, np.ndarray]]:
        import av

        while True:
            try:
                frame = self._graph.vpull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return
            yield frame.time, self._turn(frame.to_ndarray())

    def _build(self, frame: Any, aspect: float) -> None:
        import av.filter

        shown = (frame.height, max(1, round(frame.width * aspect)))
        self.height, self.width = shown[::-1] if self._turn.transposes else shown
        self.rotation = self._turn.degrees
        height, width = self.fitting.scaled(self.height, self.width)
        if self._turn.transposes:
            height, width = width, height
        self._graph = graph = av.filter.Graph()
        graph.threads = 1  # slices of small pictures cost more than they save
        nodes = [
            graph.add_buffer(
                width=frame.width,
                height=frame.height,
                format=frame.format.name,
                time_base=frame.time_base or self.stream.time_base or Fraction(1, 1000),
            )
        ]
        if self._interlaced:
            nodes.append(graph.add("bwdif", "mode=send_frame:deint=interlaced"))
        if any(component.is_alpha for component in frame.format.components):
            nodes += [graph.add("format", "gbrap"), graph.add("premultiply", "inplace=1")]
        options = f"w={width}:h={height}:flags={_FLAGS}"
        if frame.colorspace == _UNSPECIFIED and not frame.format.is_rgb:
            hd = frame.height > _HD_LINES or frame.width >= 1280
            options += f":in_color_matrix={'bt709' if hd else 'bt601'}"
        nodes += [graph.add("scale", options), graph.add("format", "rgb24"), graph.add("buffersink")]
        graph.link_nodes(*nodes).configure()


class _Turn:
    """What a display matrix asks for in quarter turns and flips, as ffmpeg's players read it."""

    def __init__(self, matrix: np.ndarray | None) -> None:
        a, b, c, d = (1, 0, 0, 1) if matrix is None else (float(matrix[i]) for i in (0, 1, 3, 4))
        self.transposes = abs(b) + abs(c) > abs(a) + abs(d)
        if self.transposes:
            self.flips = (b < 0, c < 0)  # of rows and columns, after transposing
        else:
            self.flips = (d < 0, a < 0)
        self.degrees = {
            (False, (False, False)): 0,
            (True, (False, True)): 90,
            (False, (True, True)): 180,
            (True, (True, False)): 270,
        }.get((self.transposes, self.flips), 0)

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        if self.transposes:
            picture = picture.swapaxes(0, 1)
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flips)
        return np.ascontiguousarray(picture[rows, columns])
