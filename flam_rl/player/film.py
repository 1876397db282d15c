"""What a visitor records: a film, and the latent actions of its steps."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..types import Json

MOST_FRAMES = 1800
"""Of a film: a minute at 30 a second."""
SIDE = 512
"""Pixels of the longer side of a filmed frame, about."""
GAP = 16
"""Pixels between the imagined frame and the real one."""


class Shot(NamedTuple):
    """A frame uint8 `(H, W, 3)` after so many steps, the real one beside it or None, and what led there, float `(L, A)`."""

    step: int
    frame: np.ndarray
    real: np.ndarray | None
    latent_actions: np.ndarray | None


@dataclass
class Film:
    """What is recorded, step by step.

    Attributes:
        fps: frames a second. facts: what else is written beside latent actions.
    """

    fps: int
    shots: list[Shot] = field(default_factory=list)
    facts: Json = field(default_factory=dict)

    def add(self, *shot: Any) -> None:
        """What is shown after a step; nothing more when the film is full."""
        if len(self.shots) < MOST_FRAMES:
            self.shots.append(Shot(*shot))

    def back_to(self, step: int) -> None:
        """What was undone did not happen."""
        self.shots = [shot for shot in self.shots if shot.step <= step]

    def mp4(self) -> bytes:
        """H.264, as every browser plays it.

        Raises:
            ImportError: PyAV is missing.
        """
        try:
            import av
        except ImportError as error:
            raise ImportError("a film needs PyAV: pip install 'flam_rl[play]'") from error
        pictures = [_picture(shot.frame, shot.real) for shot in self.shots]
        file = io.BytesIO()
        with av.open(file, "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=self.fps, options={"crf": "16"})
            stream.height, stream.width = pictures[0].shape[:2]
            stream.pix_fmt, stream.thread_count = "yuv420p", 1
            for picture in pictures:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
            container.mux(stream.encode(None))
        return file.getvalue()

    def json(self) -> Json:
        """The latent actions and what they are of."""
        led = [shot.latent_actions for shot in self.shots[1:] if shot.latent_actions is not None]
        return self.facts | {
            "first_step": self.shots[0].step,
            "fps": self.fps,
            "latent_actions": [one.tolist() for one in led],
        }


def _picture(imagined: np.ndarray, real: np.ndarray | None) -> np.ndarray:
    """Enlarged, side by side; sides are even, as H.264 wants them."""
    scale = max(2, 2 * round(SIDE / max(imagined.shape[:2]) / 2))
    left = imagined.repeat(scale, 0).repeat(scale, 1)
    if real is None:
        return left
    gap = np.zeros((len(left), GAP, 3), np.uint8)
    return np.concatenate([left, gap, real.repeat(scale, 0).repeat(scale, 1)], 1)
