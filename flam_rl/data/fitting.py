"""Pictures of any size and shape made one size, their aspect kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..types import FitName


@dataclass(frozen=True)
class Fitting:
    """The size of all frames, and how a picture of another aspect gets there."""

    height: int
    width: int
    fit: FitName = "letterbox"

    def scaled(self, height: float, width: float) -> tuple[int, int]:
        """Height and width in pixels that a whole picture gets, before bars are added or its sides cropped.

        Args:
            height, width: as displayed.
        """
        choose = min if self.fit == "letterbox" else max
        ratio = choose(self.height / height, self.width / width)
        return max(1, round(height * ratio)), max(1, round(width * ratio))

    def scale(self, picture: np.ndarray) -> np.ndarray:
        """uint8 `(h, w, 3)` with square pixels to its `scaled` size."""
        height, width = self.scaled(*picture.shape[:2])
        if picture.shape[:2] == (height, width):
            return picture
        # Weights of all pixels that fall on a new one: Pillow's filters widen when they shrink.
        return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))

    def place(self, picture: np.ndarray) -> np.ndarray:
        """A scaled picture in the middle of a black frame uint8 `(height, width, 3)`, or its middle."""
        if picture.shape[:2] == (self.height, self.width):
            return picture
        frame = np.zeros((self.height, self.width, 3), np.uint8)
        rows, from_rows = _middle(self.height, picture.shape[0])
        columns, from_columns = _middle(self.width, picture.shape[1])
        frame[rows, columns] = picture[from_rows, from_columns]
        return frame


def _middle(room: int, length: int) -> tuple[slice, slice]:
    """Where in `room` pixels, and from where, the middle of `length` pixels goes."""
    shared = min(room, length)
    to, start = (room - shared) // 2, (length - shared) // 2
    return slice(to, to + shared), slice(start, start + shared)
