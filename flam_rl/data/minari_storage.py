"""The columns of a stored Minari dataset, one episode at a time.

Minari's own reader decodes every column of an episode, pictures included, to give one; it makes the recorded
environment where a space is missing, and holds ten times the episode. So its files are read here.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet
from minari.serialization import deserialize_space
from PIL import Image

from ..types import Json

METADATA = "metadata.json"
HDF5 = "main_data.hdf5"
ENTITIES = "entities_"
"""Prefix of infos: Minari 0.5.4 does not read nested ones back."""
FORMATS = ("parquet", "arrow", "hdf5")
PIECE = 1 << 21
"""Bytes of observations read at once; decoding parquet takes ten times as much."""
LEAST = 16
"""Rows read at once, however large."""
Keys: TypeAlias = "tuple[str | int, ...]"
"""A column, and the keys and indices of nested spaces that lead to an array of it."""


class Damaged(ValueError):
    """An episode that cannot be read, or not to its end."""


@dataclass(frozen=True)
class Stored:
    """A dataset on disk, as its metadata says.

    Attributes:
        folder: holds metadata.json and the data.
        format: one of `FORMATS`.
        episodes: how many there are.
    """

    folder: Path
    format: str
    episodes: int
    observation_space: gym.Space
    action_space: gym.Space

    @classmethod
    def open(cls, folder: Path) -> Stored:
        """Read the metadata of `folder`.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is broken; the message names the file, the field, what was found and what is allowed.
        """
        folder = Path(folder).resolve()
        path = folder / METADATA
        metadata = read_metadata(path)
        episodes = metadata.get("total_episodes")
        if type(episodes) is not int or episodes < 1:
            raise ValueError(f"{path}: total_episodes is {episodes!r}; a dataset to read has 1 or more")
        stored_as = metadata.get("data_format")
        if stored_as not in FORMATS:
            raise ValueError(f"{path}: data_format is {stored_as!r}; allowed are {', '.join(FORMATS)}")
        if stored_as == "hdf5" and not (folder / HDF5).is_file():
            raise ValueError(f"{path}: data_format is 'hdf5', but {HDF5} is missing beside it")
        spaces = (_space(path, metadata, field) for field in ("observation_space", "action_space"))
        return cls(folder, stored_as, episodes, *spaces)

    def pieces(self, episode: int, path: Keys, space: gym.spaces.Box) -> Iterator[tuple[np.ndarray, bool]]:
        """The observations of one episode, some rows `(T, *space.shape)` at a time, and whether they were JPEG.

        Args:
            path: keys and indices of nested spaces that lead to the array of `space`.

        Raises:
            Damaged: the episode is missing or damaged from here on.
        """
        row = space.dtype.itemsize * math.prod(space.shape)
        with self._explained(episode):
            for part in self._parts(episode, ("observations", *path), max(LEAST, PIECE // row)):
                yield _rows(part, space.shape)

    def column(self, episode: int, name: str, shape: tuple[int, ...] = ()) -> np.ndarray:
        """Actions, rewards, terminations or truncations of one episode `(T, *shape)`; nothing else is read.

        Raises:
            Damaged: the episode is missing or damaged.
        """
        with self._explained(episode):
            rows = np.concatenate([_rows(part, shape)[0] for part in self._parts(episode, (name,))])
            return rows if self.format == "hdf5" else rows[:-1]  # padded: there is an observation more

    def infos(self, episode: int, prefix: str) -> dict[str, np.ndarray]:
        """The infos of one episode whose names begin with `prefix`, each `(T, ...)`; nothing else is read.

        Raises:
            Damaged: the episode is missing or damaged.
        """
        with self._explained(episode):
            return {
                name: np.concatenate(
                    [_rows(part, shape)[0] for part in self._parts(episode, ("infos", name))]
                )
                for name, shape in self._infos(episode).items()
                if name.startswith(prefix)
            }

    def _infos(self, episode: int) -> dict[str, tuple[int, ...]]:
        """Name and shape of a row of each."""
        if self.format == "hdf5":
            with h5py.File(self.folder / HDF5, "r") as file:
                group = file[f"episode_{episode}"].get("infos", {})
                return {
                    name: node.shape[1:] for name, node in group.items() if isinstance(node, h5py.Dataset)
                }
        schema = self._open(episode)[1]
        if "infos" not in schema.names:
            return {}
        noted = {
            f.name: (f.metadata or {}).get(b"shape", b"").split(b",") for f in schema.field("infos").type
        }
        return {name: tuple(int(size) for size in sizes if size) for name, sizes in noted.items()}

    def _parts(self, episode: int, path: Keys, rows: int = 1 << 16) -> Iterator[pa.Array | np.ndarray]:
        """One column, up to so many rows at a time, as stored."""
        if self.format == "hdf5":
            with h5py.File(self.folder / HDF5, "r") as file:
                node = file[f"episode_{episode}"]
                for key in path:
                    node = node[f"_index_{key}" if isinstance(key, int) else key]
                for start in range(0, len(node), rows):
                    yield node[start : start + rows]
            return
        file, _ = self._open(episode)
        if self.format == "parquet":
            # pyarrow.dataset, which Minari reads with, holds ten times the episode for a nested column.
            batches = file.iter_batches(rows, columns=[".".join(map(str, path))], use_threads=False)
        else:
            whole = (file.get_batch(index) for index in range(file.num_record_batches))
            batches = (batch.slice(at, rows) for batch in whole for at in range(0, len(batch), rows))
        for batch in batches:
            part = batch.column(path[0])
            for key in path[1:]:
                part = part.field(str(key))
            yield part

    def _open(self, episode: int) -> tuple[Any, pa.Schema]:
        """The file of an episode, and its schema."""
        path = self.folder / str(episode) / f"part-0.{self.format}"
        if self.format == "parquet":
            parquet = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
            return parquet, parquet.schema_arrow
        arrow = pa.ipc.open_file(pa.memory_map(str(path)))
        return arrow, arrow.schema

    @contextmanager
    def _explained(self, episode: int) -> Iterator[None]:
        try:
            yield
        except (OSError, LookupError, ValueError, TypeError, pa.ArrowException) as error:
            raise Damaged(f"episode {episode} of {self.folder} cannot be read: {error}") from error


def read_metadata(path: Path) -> Json:
    """A metadata.json.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no JSON object.
    """
    try:
        metadata = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path} is missing; Minari writes it beside the data") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(metadata, dict):
        raise ValueError(
            f"{path} holds a {type(metadata).__name__}; a Minari dataset has a JSON object there"
        )
    return metadata


def _space(path: Path, metadata: Json, field: str) -> gym.Space:
    if field not in metadata:
        raise ValueError(
            f"{path} has no {field}, and the environment that would tell is not made, since that runs its code; "
            f"record the set anew with a Minari that stores it"
        )
    try:
        space = deserialize_space(metadata[field])
    except (
        ArithmeticError,
        AssertionError,
        AttributeError,
        LookupError,
        RecursionError,
        TypeError,
        ValueError,
    ) as e:
        raise ValueError(f"{path}: {field} is no space that Minari writes: {type(e).__name__} {e}") from e
    if not isinstance(space, gym.Space):
        raise ValueError(
            f"{path}: {field} is {metadata[field]!r:.80}; allowed is a space as Minari writes it"
        )
    return space


def _rows(part: pa.Array | np.ndarray, shape: tuple[int, ...]) -> tuple[np.ndarray, bool]:
    """A part of a column as `(rows, *shape)`, and whether it was JPEG."""
    if isinstance(part, np.ndarray):
        jpeg = part.ndim < 1 + len(shape)
        return (_pictures(part, shape) if jpeg else part.reshape(-1, *shape)), jpeg
    if pa.types.is_binary(part.type):
        return _pictures([row.as_py() for row in part], shape), True
    flat = part.flatten() if pa.types.is_fixed_size_list(part.type) else part
    return flat.to_numpy(zero_copy_only=False).reshape(len(part), *shape), False


def _pictures(rows: Any, shape: tuple[int, ...]) -> np.ndarray:
    pictures = np.empty((len(rows), *shape), np.uint8)
    for index, row in enumerate(rows):
        with Image.open(io.BytesIO(bytes(row))) as picture:
            if picture.size != (shape[1], shape[0]) or len(picture.getbands()) != (*shape, 1)[2]:
                raise ValueError(f"picture {index} is {picture.size} {picture.mode}; its space has {shape}")
            pictures[index] = np.asarray(picture)
    return pictures
