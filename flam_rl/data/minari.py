"""Minari datasets: found by name or folder, read either as video or, within a budget, as labels."""

from __future__ import annotations

import glob
import json
import mimetypes
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..actions import ActionSpace
from ..types import Json
from .images import AmbiguousValues, Conversion, Image, find_image
from .minari_storage import ENTITIES, HDF5, METADATA, Damaged, Stored, read_metadata

_JPEG = "stored as JPEG, which is lossy: small and sharp things are blurred (record with jpeg_encoding=False)"


def find_dataset(data: str | Path) -> Path | None:
    """The folder with the metadata and data of the Minari dataset that `data` means.

    Args:
        data: the dataset's folder, the folder that has it as `data/`, a folder somewhere above exactly one dataset,
            or, where nothing has that path, the name (id) of a dataset below Minari's local root.

    Returns:
        An absolute path without links, or None where no dataset is meant.

    Raises:
        ValueError: several datasets are meant, or films beside them; or the metadata is broken.
    """
    path = Path(data)
    if os.path.exists(path):  # Path.exists raises where a name is too long, as an address may be
        return _below(path) if path.is_dir() else None
    root = _root()
    named = root / path
    if os.path.isdir(named):
        return _below(named)
    if path.is_absolute() or not path.name:
        return None
    versions = map(_dataset_in, sorted(named.parent.glob(f"{glob.escape(path.name)}-v*")))
    return _only(f"{data} below {root}", [folder for folder in versions if folder])


def _root() -> Path:
    """Where Minari keeps datasets; its own function makes the folder as well."""
    return Path(os.environ.get("MINARI_DATASETS_PATH") or Path.home() / ".minari" / "datasets")


def _below(root: Path) -> Path | None:
    found: list[Path] = []
    film: Path | None = None
    seen: set[Path] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        real = Path(place).resolve()
        dataset = _dataset_in(real) if real not in seen else None
        if dataset:
            found.append(dataset)
        if dataset or real in seen:
            folders.clear()
        else:
            folders[:] = [name for name in folders if not name.startswith(".")]  # a set half written
            film = film or next((Path(place, file) for file in files if _is_film(file)), None)
        seen.add(real)
    if found and film:
        raise ValueError(
            f"{root} holds a Minari dataset, {found[0]}, and pictures or films, as {film}; name the folder of one kind"
        )
    return _only(str(root), found)


def _only(where: str, found: Iterable[Path]) -> Path | None:
    names = sorted({str(folder.parent if folder.name == "data" else folder) for folder in found})
    if len(names) > 1:
        raise ValueError(f"{where}: {len(names)} Minari datasets are there; name one of {', '.join(names)}")
    return next(iter(found), None)


def _dataset_in(folder: Path) -> Path | None:
    """`folder` or its `data/`, if that is a dataset, broken or not."""
    for candidate in (folder, folder / "data"):
        recorded = (candidate / HDF5).is_file() or (candidate / "0" / METADATA).is_file()
        try:
            metadata = read_metadata(candidate / METADATA)
        except FileNotFoundError:
            metadata = {}
        except ValueError:
            if recorded:
                raise
            metadata = {}  # of something else
        if recorded or metadata.keys() & {"total_episodes", "data_format", "observation_space"}:
            return candidate.resolve()
    return None


def _is_film(name: str) -> bool:
    kind = mimetypes.guess_type(name)[0] or ""
    return kind.startswith(("video/", "image/"))


def episodes(folder: Path, key: str | None = None) -> Iterator[tuple[np.ndarray, list[str]]]:
    """The frames of every episode of a dataset in their order, and nothing else of it; one is in memory at a time.

    Args:
        folder: as `find_dataset` gives it.
        key: which observation is the picture, dotted where spaces are nested; by default the only one that can be.

    Returns:
        uint8 rgb `(T, H, W, 3)` at the stored size, and what to warn of. An episode that cannot be read has 0 frames
        and the reason as its only warning.

    Raises:
        ValueError: the metadata is broken, or no picture is found: says what is there and which key picks it.
    """
    film = _Film.open(folder, key)
    return map(film.whole, range(film.stored.episodes))


def pieces(folder: Path, key: str | None = None) -> Iterator[tuple[int, np.ndarray, list[str]]]:
    """As `episodes`, but a long episode comes in pieces that follow each other: memory does not grow with it.

    Returns:
        Number of the episode, its next frames, what to warn of. Where an episode cannot be read, or not to its end, its
        last piece has 0 frames and the reason as its only warning.

    Raises:
        ValueError: as `episodes`.
    """
    film = _Film.open(folder, key)
    return (
        (index, frames, warnings)
        for index in range(film.stored.episodes)
        for frames, warnings in film.pieces(index)
    )


@dataclass(frozen=True)
class _Film:
    """The pictures of a dataset."""

    stored: Stored
    image: Image
    conversion: Conversion

    @classmethod
    def open(cls, folder: Path, key: str | None) -> _Film:
        stored = Stored.open(folder)
        try:
            image = find_image(stored.observation_space, key)
            return cls(stored, image, _conversion(stored, image))
        except ValueError as error:
            raise ValueError(f"no picture to learn from in {folder}: {error}") from error

    def pieces(self, index: int) -> Iterator[tuple[np.ndarray, list[str]]]:
        count = 0
        try:
            for arrays, jpeg in self.stored.pieces(index, self.image.path, self.image.space):
                yield self.conversion(arrays), [*self.conversion.warnings, *([_JPEG] if jpeg else [])]
                count += len(arrays)
            if not count:
                raise Damaged(f"episode {index} of {self.stored.folder} has no frames")
        except ValueError as error:
            kept = f"; its first {count} frames are kept" if count else ""
            yield np.empty((0, *self.image.size, 3), np.uint8), [f"{error}{kept}"]

    def whole(self, index: int) -> tuple[np.ndarray, list[str]]:
        found = list(self.pieces(index))
        warnings = dict.fromkeys(warning for _, warnings in found for warning in warnings)
        return np.concatenate([frames for frames, _ in found]), list(warnings)


def _conversion(stored: Stored, image: Image) -> Conversion:
    """How to read the set, from the first piece that shows it."""
    reason = ValueError("its episodes have no frames")
    for index in range(stored.episodes):
        try:
            for arrays, _ in stored.pieces(index, image.path, image.space):
                try:
                    return Conversion.from_sample(image, arrays)
                except AmbiguousValues as error:
                    reason = error
        except Damaged as error:
            reason = error
    raise reason


def action_space(folder: Path) -> ActionSpace:
    """What actions the task of a dataset has, whether or not they were all taken.

    Raises:
        ValueError: they are none that labels can be learned from.
    """
    try:
        return ActionSpace.from_gym(Stored.open(folder).action_space)
    except ValueError as error:
        raise ValueError(f"{folder}: {error}, to learn labels from; --labels 0 trains without") from error


def recorded_task(folder: Path) -> tuple[str, Json]:
    """Gymnasium id and arguments of the task that a dataset says it was recorded on; empty if it does not.

    Nothing is made or imported.

    Raises:
        ValueError: its metadata is damaged.
    """
    path = Path(folder) / METADATA
    recorded = read_metadata(path).get("env_spec") or "{}"
    try:
        spec = json.loads(recorded)
        task, arguments = spec.get("id", ""), dict(spec.get("kwargs", {}))
    except (AttributeError, RecursionError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: env_spec is damaged: {error}") from error
    if not isinstance(task, str):
        raise ValueError(f"{path}: env_spec names {task!r:.80}; allowed is the id of a gymnasium environment")
    return task, {name: value for name, value in arguments.items() if name != "render_mode"}


def read_labels(folder: Path, order: Iterable[int]) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Actions as `ActionSpace.checked` gives them, rewards float32 and terminations bool, each `(T, ...)`, of the episodes
    in `order`; no frames.

    Raises:
        ValueError: as `action_space`; or an episode is damaged or has an action that the space has not.
    """
    stored, space = Stored.open(folder), action_space(folder)
    for index in order:
        actions = stored.column(int(index), "actions", space.shape)
        rewards, terminations = (stored.column(int(index), name) for name in ("rewards", "terminations"))
        try:
            given = space.checked(actions)
        except ValueError as error:
            raise ValueError(f"episode {index} of {folder}: {error}") from error
        yield given, rewards.astype(np.float32), terminations.astype(bool)


def read_entities(folder: Path) -> list[dict[str, np.ndarray]]:
    """The true actions, positions and directions of every entity, one record for each episode, for evaluation only.

    An episode that cannot be read has an empty entry.

    Raises:
        ValueError: an episode has none.
    """
    stored = Stored.open(folder)
    found: list[dict[str, np.ndarray]] = []
    for index in range(stored.episodes):
        try:
            infos = stored.infos(index, ENTITIES)
        except Damaged:
            found.append({})
            continue
        if not infos:
            raise ValueError(f"{folder} has no true entities; the correspondence matrix needs them")
        found.append({name.removeprefix(ENTITIES): values for name, values in infos.items()})
    return found
