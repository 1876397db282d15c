"""Whatever video there is, read once: films, numbered pictures, a Minari dataset."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from ..progress import progress
from ..types import FitName, Video
from . import cache, minari
from .episodes import EpisodeInfo, Skipped, Stream
from .films import read_film
from .fingerprints import fingerprints
from .fitting import Fitting
from .index import Source, find_sources
from .pictures import read_animation, read_numbered

logger = logging.getLogger(__name__)
SIDE = 64
"""Height and width of frames of video files, in pixels, where no other is given."""
_CHANGE = 2
"""Raise it when the same files are read to other frames than before: no older cache is used then."""


@dataclass(frozen=True)
class ReadingConfig:
    """How video becomes frames."""

    height: int | None = None
    """Height of frames in pixels; by default 64, and for a Minari dataset what it stores."""
    width: int | None = None
    """Width of frames in pixels; by default as `height`."""
    fit: FitName = "letterbox"
    """What is done with video of another aspect: black bars, or its sides cropped."""
    fps: float | None = None
    """Frames per second that films are resampled to by their time stamps; by default each film's median rate."""
    stride: int = 1
    """Keep every stride-th frame."""
    split_cuts: bool = True
    """Start a new episode at a hard cut inside a film."""
    max_frames: int = 1_000_000
    """Keep so many frames in all (64x64 rgb: 12 kB each on disk)."""
    strict: bool = False
    """Stop at a file that cannot be read, instead of naming and skipping it."""
    key: str | None = None
    """Which observation is the picture, in a Minari dataset with several."""

    def check(self) -> None:
        """
        Raises:
            ValueError: a number that is out of range.
        """
        for name, least in (("height", 1), ("width", 1), ("stride", 1), ("max_frames", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"files.{name} is {value}; it must be {least} or more")
        if self.fps is not None and not 0 < self.fps <= 1000:
            raise ValueError(f"files.fps is {self.fps}; it must be above 0 and at most 1000")


@dataclass(frozen=True)
class Reading:
    """What was read and what was not.

    Attributes:
        arrays: uint8 `(kept, H, W, 3)` frames of each episode, mapped from a file.
        episodes: where each came from, in the same order.
        skipped: what training does not see.
        data, config: what was asked for.
        dataset: the folder of the Minari dataset, if `data` is one.
    """

    arrays: tuple[np.ndarray, ...]
    episodes: tuple[EpisodeInfo, ...]
    skipped: tuple[Skipped, ...]
    data: Path
    config: ReadingConfig
    dataset: Path | None

    @property
    def video(self) -> Video:
        """
        Raises:
            FileNotFoundError: there is no episode.
        """
        if not self.arrays:
            reasons = "".join(f"\n  {left.source}: {left.reason}" for left in self.skipped[:10])
            raise FileNotFoundError(
                f"no readable video below {self.data}; allowed are films, folders of 2 or more numbered pictures and "
                f"Minari datasets; skipped: {len(self.skipped)} files{reasons}"
            )
        return Video(self.arrays)

    @property
    def numbers(self) -> list[int]:
        """Which episode of the Minari dataset each is: one that cannot be read is left out."""
        return [int(info.source.rpartition("/")[2]) for info in self.episodes]

    def entities(self) -> list[dict[str, np.ndarray]] | None:
        """The true entities of each frame, for evaluation only, where a dataset has them and no stride skips any."""
        if self.dataset is None or self.config.stride > 1:
            return None
        try:
            found = minari.read_entities(self.dataset)
        except ValueError:
            return None
        return [
            {name: values[: info.kept] for name, values in found[number].items()}
            for number, info in zip(self.numbers, self.episodes, strict=True)
        ]


def data_fingerprints(data: Path, but: Path | None = None) -> dict[str, str]:
    """What `read` would read: the SHA-256 of each file by its name below `data`.

    Raises:
        FileNotFoundError: there is nothing at `data`.
    """
    dataset = minari.find_dataset(data)
    if dataset is not None:
        return fingerprints(_files_of(dataset), dataset)
    return fingerprints(find_sources(data, but).files, data if data.is_dir() else data.parent)


def read(
    data: Path,
    config: ReadingConfig = ReadingConfig(),
    folder: Path | None = None,
    but: Path | None = None,
    prints: Mapping[str, str] | None = None,
) -> Reading:
    """All frames of `data`, decoded once into a file that is then mapped.

    Args:
        data: a film, a folder, or a Minari dataset's folder, root or name.
        folder: keeps the frames, for when the same is asked for again; by default a temporary file does.
        but: a folder below `data` to leave out, as `folder` is.
        prints: of `data_fingerprints`, where the caller has them.

    Raises:
        FileNotFoundError: there is nothing at `data`.
        ValueError: a setting is out of range; with `strict`, the first file that cannot be read; a file that changed while it
            was read into a folder.
        ImportError: PyAV is missing.
    """
    config.check()
    dataset = minari.find_dataset(data)
    if dataset is not None:
        files = _files_of(dataset)
        skipped: list[Skipped] = []
        name = dataset.parent.name if dataset.name == "data" else dataset.name
        streams: Iterable[tuple[str, Stream]] = [(name, _read_dataset(name, dataset, config))]
    else:
        index = find_sources(data, folder or but)
        files, skipped = index.files, index.skipped
        fitting = Fitting(config.height or SIDE, config.width or SIDE, config.fit)
        streams = ((source.name, _read_source(source, fitting, config)) for source in index.sources)
    fingerprint, before = "", {}
    if folder is not None:
        before = _stats(files)
        fingerprint = _fingerprint(data_fingerprints(data, folder) if prints is None else prints, config)
        if (found := cache.load(folder, fingerprint)) is not None:
            logger.info("frames of %s are taken from %s", data, folder / cache.FRAMES)
            arrays, episodes, skipped = found
            return Reading(arrays, tuple(episodes), tuple(skipped), data, config, dataset)
    writer = cache.Writer(folder, config.max_frames)
    try:
        filling = _Filling(writer, config, skipped)
        with progress(desc="reading video", unit="frame") as bar:
            for name, stream in streams:
                bar.set_postfix_str(name)
                filling.take(name, stream, bar, () if dataset else (OSError, ValueError))
        for path, facts in _stats(before).items():
            if before[path] != facts:
                raise ValueError(f"{path} changed while it was read; start again when it is written")
        arrays = writer.finish(fingerprint, filling.skipped)
    except BaseException:
        writer.drop()
        raise
    return Reading(arrays, tuple(writer.episodes), tuple(filling.skipped), data, config, dataset)


def frame_size(data: Path, config: ReadingConfig) -> tuple[int, int]:
    """Height and width of the frames that `read` would give, found without reading all of it.

    Raises:
        ValueError: as `read`.
    """
    config.check()
    dataset = minari.find_dataset(data)
    if dataset is None or (config.height and config.width):
        return config.height or SIDE, config.width or SIDE
    _, frames, _ = next(minari.pieces(dataset, config.key))
    return config.height or frames.shape[1], config.width or frames.shape[2]


class _Filling:
    """Brings streams to the writer: stride, what is too short, what is left out."""

    def __init__(self, writer: cache.Writer, config: ReadingConfig, skipped: Iterable[Skipped]) -> None:
        self.writer, self.config = writer, config
        self.skipped: list[Skipped] = []
        for left in skipped:
            self.skip(left)

    def skip(self, left: Skipped) -> None:
        if self.config.strict:
            raise ValueError(f"{left.source}: {left.reason}")
        logger.warning("skipped %s: %s", left.source, left.reason)
        self.skipped.append(left)

    def take(self, name: str, stream: Stream, bar: tqdm, errors: tuple[type[Exception], ...]) -> None:
        """All episodes of one source.

        Args:
            errors: with these a source is skipped; others stop everything.
        """
        if self.writer.full:
            self.skipped.append(Skipped(name, f"{self.config.max_frames} frames were read before it"))
            return
        count = 0
        while True:
            try:
                item = next(stream, None)
            except errors as error:
                self.writer.abandon()
                self.skip(Skipped(name, str(error)))
                return
            if item is None:
                return
            if isinstance(item, Skipped):
                self.skip(item)
            elif isinstance(item, EpisodeInfo):
                count = 0
                self.end(item)
                if self.writer.full:
                    return
            else:
                if count % self.config.stride == 0:
                    self.writer.add(item)
                count += 1
                bar.update()

    def end(self, info: EpisodeInfo) -> None:
        """The episode whose frames came is over."""
        if self.writer.refused:
            reason = f"its last {self.writer.refused} frames are left out: files.max_frames is {self.config.max_frames}"
            info = dataclasses.replace(info, warnings=(*info.warnings, reason))
        kept = self.writer.kept
        numbers = info.numbers[:: self.config.stride][:kept]
        info = dataclasses.replace(info, numbers=numbers)
        if self.writer.end_episode(info):
            for warning in info.warnings:
                logger.warning("%s: %s", info.source, warning)
        else:
            reason = (
                f"from frame {info.start_frame} on there are {kept} frames of the 2 that an episode needs"
            )
            self.skip(Skipped(info.source, "; ".join([reason, *info.warnings])))


def _read_source(source: Source, fitting: Fitting, config: ReadingConfig) -> Stream:
    match source.kind:
        case "film":
            return read_film(source.name, source.files[0], fitting, config.fps, config.split_cuts)
        case "animation":
            return read_animation(source.name, source.files[0], fitting, config.fps, config.split_cuts)
        case _:
            return read_numbered(source.name, source.files, fitting)


def _read_dataset(name: str, dataset: Path, config: ReadingConfig) -> Stream:
    for number, parts in itertools.groupby(minari.pieces(dataset, config.key), key=lambda piece: piece[0]):
        source, count = f"{name}/{number}", 0
        said: dict[str, None] = {}
        for _, frames, warnings in parts:
            height, width = frames.shape[1:3]
            fitting = Fitting(config.height or height, config.width or width, config.fit)
            for frame in frames:
                yield fitting.place(fitting.scale(frame))
            count += len(frames)
            said |= dict.fromkeys(warnings)
        if count:
            yield EpisodeInfo(source, count, count, 0, height, width, warnings=tuple(said))
        else:
            yield Skipped(source, "; ".join(said))


def _files_of(dataset: Path) -> list[Path]:
    return sorted(path for path in dataset.rglob("*") if path.is_file())


def _fingerprint(prints: Mapping[str, str], config: ReadingConfig) -> str:
    """The same for the same files read in the same way."""
    asked = json.dumps([_CHANGE, dataclasses.asdict(config), dict(prints)])
    return hashlib.sha256(asked.encode()).hexdigest()


def _stats(files: Iterable[Path]) -> dict[Path, tuple[int, int]]:
    """Size and time of each file: enough to see that it is being written."""
    return {path: ((facts := path.stat()).st_size, facts.st_mtime_ns) for path in files}
