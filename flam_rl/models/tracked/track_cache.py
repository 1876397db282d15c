"""The tracks of a video: what its episodes share, and the tracks of each, found once and kept in files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...files import written_whole
from ...progress import progress
from ...types import Video
from . import Tracks, clip_view, patch_for, shared_context, track_all
from .known import KnownLooks
from .tracker import TrackerConfig

CLIPS = 12
"""Episodes at most that tell whether the video has one background, and how large things are."""
AT_ONCE = (64, 6400)
"""Episodes, and frames of these, that are tracked side by side at most: the tracks of so many are held at once."""


def digest_of(folder: Path) -> str:
    """The same for the same Python sources in `folder`."""
    seen = hashlib.sha256()
    for path in sorted(folder.glob("*.py")):
        source = path.read_bytes()
        seen.update(f"{path.name}\0{len(source)}\0".encode() + source)
    return seen.hexdigest()


CODE = digest_of(Path(__file__).parent)
"""The code that tracks, and all beside it: whoever changes it has no number to raise. Taken when it is imported, for what runs is
what was there then."""


@dataclass(frozen=True)
class Ground:
    """What episodes of a video share.

    Attributes:
        tracker: with patches as large as what moves needs.
        context: `(3, H, W)`, where all episodes have the same background; else None.
        looks: `(M, 4, P, P)`, what moves in the video looks so, as far as that is known.
    """

    tracker: TrackerConfig
    context: Float[Tensor, "3 H W"] | None
    looks: Float[Tensor, "M 4 P P"] | None = None


def find_ground(video: Video, config: TrackerConfig, clip: int = 100) -> Ground:
    """What some episodes tell of all: size of patches, and the background if they share one."""
    chosen = np.linspace(0, len(video.episodes) - 1, min(CLIPS, len(video.episodes))).round().astype(int)
    clips = [np.asarray(video.episodes[index][:clip]) for index in chosen]
    clips = [frames for frames in clips if len(frames) > 1]
    views = [clip_view(frames, config) for frames in clips]
    common = shared_context(views)
    patch = patch_for(clips, views if common is None else [common[None]] * len(clips), config)
    return Ground(replace(config, patch=patch), common)


def track_video(video: Video, ground: Ground, cache: Path) -> Iterator[Tracks]:
    """The tracks of each episode, read from `cache` where they are there, else found, many side by side, and written.

    Where looks are known, an episode in whose background one of them stands is tracked again, knowing them.

    Raises:
        OSError: the disk is full.
    """
    cache.mkdir(parents=True, exist_ok=True)
    paths = [_path_of(frames, ground, None, cache) for frames in video.episodes]
    _track_missing(video, ground, dict(enumerate(paths)), None)
    if ground.context is None and ground.looks is not None:
        known = KnownLooks(ground.looks)
        again = {
            index: _path_of(video.episodes[index], ground, ground.looks, cache)
            for index, path in enumerate(paths)
            if bool(known.find(read_tracks(path).context[:: ground.tracker.patience]).any())
        }
        _track_missing(video, ground, again, ground.looks)
        paths = [again.get(index, path) for index, path in enumerate(paths)]
    for path in paths:
        yield read_tracks(path)


def _path_of(frames: np.ndarray, ground: Ground, looks: Tensor | None, cache: Path) -> Path:
    """Where the tracks of an episode are kept: another tracker, or another frame, has another place."""
    key = hashlib.sha256(f"{CODE} {ground.tracker}".encode())
    for known in (ground.context, looks):
        key.update(b"" if known is None else known.numpy().tobytes())
    key.update(np.ascontiguousarray(frames).tobytes())
    return cache / f"{key.hexdigest()[:24]}.npz"


def _track_missing(video: Video, ground: Ground, paths: dict[int, Path], looks: Tensor | None) -> None:
    """Track the episodes of whose tracks there is no file, and write them."""
    new = [index for index, path in paths.items() if not path.exists()]
    with progress(total=len(new), desc="tracking", unit="episode", disable=not new) as bar:
        for part in side_by_side(new, [len(frames) for frames in video.episodes]):
            episodes = [np.asarray(video.episodes[index]) for index in part]
            found = track_all(episodes, ground.tracker, ground=ground.context, looks=looks)
            for index, tracks in zip(part, found, strict=True):
                write_tracks(paths[index], tracks)
            bar.update(len(part))


def side_by_side(chosen: list[int], lengths: list[int]) -> Iterator[list[int]]:
    """The chosen episodes in parts, one after the other, each as large as `AT_ONCE` allows, of one episode at least."""
    part: list[int] = []
    frames = 0
    for index in chosen:
        if part and (len(part) == AT_ONCE[0] or frames + lengths[index] > AT_ONCE[1]):
            yield part
            part, frames = [], 0
        part.append(index)
        frames += lengths[index]
    if part:
        yield part


def write_tracks(path: Path, tracks: Tracks) -> None:
    """Tracks as arrays of a file, looks and context in whole grey levels."""
    arrays = {f.name: getattr(tracks, f.name).numpy() for f in fields(tracks)}
    for name in ("look", "context"):
        arrays[name] = (arrays[name].clip(0, 1) * 255 + 0.5).astype(np.uint8)
    with written_whole(path) as scratch:
        np.savez_compressed(scratch, **arrays)


def read_tracks(path: Path) -> Tracks:
    """What `write_tracks` wrote."""
    with np.load(path, allow_pickle=False) as arrays:
        found = {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    return Tracks(**found | {name: found[name].float() / 255 for name in ("look", "context")})
