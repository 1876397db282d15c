"""Whatever video there is: a Minari dataset, or a folder of video files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..types import Video
from .minari import is_dataset, read_entities, read_video
from .video import VideoFilesConfig, read_video_folder


def read_source(
    data: Path, files: VideoFilesConfig = VideoFilesConfig()
) -> tuple[Video, list[dict[str, np.ndarray]] | None]:
    """The frames of either, and for evaluation the true entities of each episode where a dataset has them."""
    if not is_dataset(data):
        return read_video_folder(data, files), None
    video = read_video(data)
    try:
        return video, read_entities(data)
    except ValueError:
        return video, None
