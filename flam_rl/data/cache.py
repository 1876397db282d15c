"""Decoded frames in a memory-mapped file: held by the disk, not by memory."""

from __future__ import annotations

import dataclasses
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np

from ..files import written_whole
from .episodes import EpisodeInfo, Skipped

FRAMES, RECORD = "frames.bin", "frames.json"


class Writer:
    """Takes the frames of one episode after the other.

    In a folder the frames appear as `frames.bin` and the record of them as `frames.json`, both whole or not at all;
    without one they are in a temporary file that is gone with the process.
    """

    def __init__(self, folder: Path | None, most: int) -> None:
        self.folder, self.left = folder, most
        self.episodes: list[EpisodeInfo] = []
        self.shape: tuple[int, ...] = ()
        self.kept, self.refused = 0, 0
        self._file: IO[bytes]
        if folder is None:
            self._file = tempfile.TemporaryFile()  # noqa: SIM115
        else:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / RECORD).unlink(missing_ok=True)
            self._file = open(folder / f".{FRAMES}.part", "w+b")  # noqa: SIM115

    def add(self, frame: np.ndarray) -> None:
        """Keep a frame uint8 `(H, W, 3)`, unless there are enough.

        Raises:
            ValueError: it has another size than those before it.
        """
        if self.full:
            self.refused += 1
            return
        self.shape = self.shape or frame.shape
        if frame.shape != self.shape:
            raise ValueError(
                f"frames of {frame.shape[0]}x{frame.shape[1]} after some of {self.shape[0]}x{self.shape[1]}; "
                "give --files.height and --files.width"
            )
        self._file.write(np.ascontiguousarray(frame).data)
        self.kept += 1
        self.left -= 1

    @property
    def full(self) -> bool:
        """Whether there are as many frames as there may be."""
        return self.left == 0

    def end_episode(self, info: EpisodeInfo) -> bool:
        """Whether the frames since the last one made an episode: 2 or more of them; others are dropped."""
        if self.kept < 2:
            self.abandon()
            return False
        self.episodes.append(dataclasses.replace(info, kept=self.kept))
        self.kept, self.refused = 0, 0
        return True

    def abandon(self) -> None:
        """Drop the frames since the last episode."""
        if self.kept:
            self._file.seek(-self.kept * int(np.prod(self.shape)), os.SEEK_CUR)
            self._file.truncate()
        self.left += self.kept
        self.kept, self.refused = 0, 0

    def finish(self, fingerprint: str, skipped: list[Skipped]) -> tuple[np.ndarray, ...]:
        """Put the files in place; the frames of each episode, mapped."""
        self._file.flush()
        if self.folder is None:
            with self._file:  # the map keeps it alive
                return _map(self._file, self.episodes, self.shape)
        self._file.close()
        os.replace(self._file.name, self.folder / FRAMES)
        record = {
            "fingerprint": fingerprint,
            "shape": self.shape,
            "episodes": [dataclasses.asdict(info) for info in self.episodes],
            "skipped": [dataclasses.asdict(source) for source in skipped],
        }
        with written_whole(self.folder / RECORD) as part:
            part.write_text(json.dumps(record))
        return _map(self.folder / FRAMES, self.episodes, self.shape)

    def drop(self) -> None:
        """Leave nothing of what was not finished."""
        with suppress(OSError):  # a disk that is full is so once more when what is left is written
            self._file.close()
        if self.folder is not None:
            Path(self._file.name).unlink(missing_ok=True)


def load(
    folder: Path, fingerprint: str
) -> tuple[tuple[np.ndarray, ...], list[EpisodeInfo], list[Skipped]] | None:
    """What a writer left in `folder`, if it is of the same data read in the same way."""
    try:
        record = json.loads((folder / RECORD).read_text())
        if record["fingerprint"] != fingerprint:
            return None
        episodes = [
            EpisodeInfo(**{**info, "warnings": tuple(info["warnings"]), "numbers": tuple(info["numbers"])})
            for info in record["episodes"]
        ]
        skipped = [Skipped(**source) for source in record["skipped"]]
        return _map(folder / FRAMES, episodes, tuple(record["shape"])), episodes, skipped
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remove(folder: Path) -> None:
    """Delete the cache in `folder`, if there is one."""
    for name in (RECORD, FRAMES):
        (folder / name).unlink(missing_ok=True)


def _map(
    file: IO[bytes] | Path, episodes: list[EpisodeInfo], shape: tuple[int, ...]
) -> tuple[np.ndarray, ...]:
    if not episodes:
        return ()
    kept = [info.kept for info in episodes]
    # Copy on write: the pages stay the file's, and no one can write to it.
    frames = np.memmap(file, np.uint8, "c", shape=(sum(kept), *shape))
    return tuple(np.split(frames, np.cumsum(kept)[:-1]))
