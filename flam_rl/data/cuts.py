"""Hard cuts, found by PySceneDetect."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .episodes import Timed


def marked(pictures: Iterable[Timed]) -> Iterator[tuple[Timed, bool]]:
    """Each picture, two later than it came, and whether it starts another scene than the one before it showed.

    The detector compares how much a picture differs from the one before with how much its neighbours do
    (https://www.scenedetect.com/docs/latest/api/detectors.html, AdaptiveDetector as it comes), so that lasting
    motion is no cut; neither is a single step of a scrolling game, the same picture shifted. None is seen in the first
    two and last two frames of a film.
    """
    detector: Any = None
    waiting: deque[Timed] = deque()
    first = 0
    cuts: set[int] = set()
    shape: tuple[int, ...] = ()
    before: np.ndarray | None = None
    for number, shown in enumerate(pictures):
        if shown.picture.shape != shape:
            while waiting:
                yield waiting.popleft(), False
            before = None
            detector, first, shape = _detector(), number, shown.picture.shape
        cuts |= _cuts(detector, number, shown.picture)
        waiting.append(shown)
        if len(waiting) > detector.event_buffer_length:
            oldest = number - detector.event_buffer_length
            passed = waiting.popleft()
            cut = oldest in cuts and oldest > first and before is not None
            yield passed, cut and not _shifted(before, passed.picture)
            before = passed.picture
    while waiting:
        yield waiting.popleft(), False


def _detector() -> Any:
    try:
        from scenedetect import AdaptiveDetector
    except ImportError as error:
        raise ImportError(
            "finding cuts needs PySceneDetect: pip install 'flam_rl[video]', or give --files.no-split-cuts"
        ) from error
    return AdaptiveDetector(min_scene_len=1)


def _cuts(detector: Any, number: int, picture: np.ndarray) -> set[int]:
    from scenedetect import FrameTimecode

    bgr = np.ascontiguousarray(picture[..., ::-1])
    return {cut.frame_num for cut in detector.process_frame(FrameTimecode(number, 1.0), bgr)}


def _shifted(before: Any, picture: np.ndarray) -> bool:
    """Whether the middle of `before` is found in `picture`, up to a quarter of its sides away."""
    import cv2

    rows, columns = (side // 4 for side in picture.shape[:2])
    middle = np.ascontiguousarray(before[rows : len(before) - rows, columns : before.shape[1] - columns])
    squares = cv2.matchTemplate(np.ascontiguousarray(picture), middle, cv2.TM_SQDIFF)
    return bool(squares.min() <= 0.5 * squares[rows, columns])
