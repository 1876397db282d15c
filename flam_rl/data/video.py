"""Folders of anyone's video files (mp4, webm, gif, ... or folders of png) as action-free video."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..progress import progress
from ..types import Video

logger = logging.getLogger(__name__)
SUFFIXES = (".mp4", ".webm", ".gif", ".mkv", ".avi", ".mov")


@dataclass(frozen=True)
class VideoFilesConfig:
    size: int = 64
    """Height and width that frames are resized to, in pixels."""
    stride: int = 1
    """Keep every stride-th frame."""
    max_frames: int = 1_000_000
    """Stop reading after so many frames in all (64x64 rgb: 12 kB each in memory)."""
    strict: bool = False
    """Stop at a file that cannot be read, instead of naming and skipping it."""


def read_video_folder(folder: Path, config: VideoFilesConfig = VideoFilesConfig()) -> Video:
    """Every video file below `folder`, and every folder of png files (sorted by name), as an episode each.

    Raises:
        FileNotFoundError: no file below `folder` can be read as video.
        ValueError: with `strict`, the first file that cannot be read; or `size` or `stride` below 1.
        ImportError: PyAV is missing.
    """
    if config.size < 1 or config.stride < 1:
        raise ValueError(f"size is {config.size} and stride {config.stride}; both must be 1 or more")
    try:
        import av
    except ImportError as error:
        raise ImportError("reading video files needs PyAV: pip install 'flam_rl[video]'") from error
    sources = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
    sources += sorted({p.parent for p in Path(folder).rglob("*.png")})
    episodes, skipped, frames = [], 0, 0
    for source in progress(sources, desc="reading video", unit="file"):
        reader = _png_frames if source.is_dir() else _file_frames
        try:
            kept = [
                frame.reformat(config.size, config.size, "rgb24").to_ndarray()
                for index, frame in enumerate(reader(source))
                if index % config.stride == 0
            ]
        except (av.error.FFmpegError, OSError, ValueError) as error:
            kept, reason = [], str(error)
        else:
            reason = f"{len(kept)} frames after the stride; 2 are needed"
        if len(kept) < 2:
            if config.strict:
                raise ValueError(f"{source}: {reason}")
            logger.warning("skipped %s: %s", source, reason)
            skipped += 1
            continue
        episodes.append(np.stack(kept))
        frames += len(kept)
        if frames >= config.max_frames:
            break
    if skipped:
        logger.warning("skipped %d of %d video files", skipped, len(sources))
    if not episodes:
        raise FileNotFoundError(
            f"no readable video below {folder}: {len(sources)} candidates; "
            f"allowed are {', '.join(SUFFIXES)} and folders of .png"
        )
    return Video(tuple(episodes))


def _file_frames(path: Path) -> Iterator:
    import av

    with av.open(str(path)) as container:
        if not container.streams.video:
            raise ValueError("no video stream")
        yield from container.decode(video=0)


def _png_frames(folder: Path) -> Iterator:
    for path in sorted(folder.glob("*.png")):
        yield from _file_frames(path)
