"""The columns of a stored Minari dataset, one episode at a time.

Minari's own reader decodes every column of an episode, pictures included, to give one; it makes the recorded
environment where a space is missing, and cuts episodes of more than 131,072 steps. So its files are read here.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
from minari.serialization import deserialize_space
from PIL import Image

from ..types import Json

METADATA = "metadata.json"
HDF5 = "main_data.hdf5"
FORMATS = ("parquet", "arrow", "hdf5")


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

    def column(self, episode: int, *path: str | int, shape: tuple[int, ...] = ()) -> tuple[np.ndarray, bool]:
        """One column of one episode, `(T, *shape)`, and whether its pictures were stored as JPEG.

        Args:
            path: the column, and the keys and indices of nested spaces that lead to an array of it.
            shape: of one row.

        Raises:
            ValueError: the episode is missing or damaged.
        """
        with self._explained(episode):
            if self.format == "hdf5":
                with h5py.File(self.folder / HDF5, "r") as file:
                    node = file[f"episode_{episode}"]
                    for key in path:
                        node = node[f"_index_{key}" if isinstance(key, int) else key]
                    rows = node[()]
                jpeg = rows.ndim < 1 + len(shape)
                return (_pictures(rows, shape) if jpeg else rows.reshape(-1, *shape)), jpeg
            table = self._files(episode).to_table(columns={"column": pc.field(*map(str, path))})
            rows = table["column"]
            if path[0] != "observations":
                rows = rows[:-1]  # padded: there is one observation more
            jpeg = pa.types.is_binary(rows.type)
            return (_pictures([row.as_py() for row in rows], shape) if jpeg else _array(rows, shape)), jpeg

    def infos(self, episode: int, prefix: str) -> dict[str, np.ndarray]:
        """The infos of an episode whose names begin with `prefix`, each `(T, ...)`; nothing else is read.

        Raises:
            ValueError: the episode is missing or damaged.
        """
        with self._explained(episode):
            if self.format == "hdf5":
                with h5py.File(self.folder / HDF5, "r") as file:
                    group = file[f"episode_{episode}"].get("infos", {})
                    return {name: group[name][()] for name in group if name.startswith(prefix)}
            files = self._files(episode)
            if "infos" not in files.schema.names:
                return {}
            kept = [field for field in files.schema.field("infos").type if field.name.startswith(prefix)]
            table = files.to_table(columns={field.name: pc.field("infos", field.name) for field in kept})
            return {field.name: _array(table[field.name], _shape(field)) for field in kept}

    def _files(self, episode: int) -> pyarrow.dataset.Dataset:
        return pyarrow.dataset.dataset(
            str(self.folder / str(episode)), format=self.format, ignore_prefixes=["_", ".", METADATA]
        )

    @contextmanager
    def _explained(self, episode: int) -> Iterator[None]:
        try:
            yield
        except (OSError, KeyError, ValueError, TypeError, pa.ArrowException) as error:
            raise ValueError(f"episode {episode} of {self.folder} cannot be read: {error}") from error


def read_metadata(path: Path) -> Json:
    """A metadata.json.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is no JSON object.
    """
    try:
        metadata = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise
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


def _array(rows: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray:
    parts = [
        (chunk.flatten() if pa.types.is_fixed_size_list(chunk.type) else chunk).to_numpy(zero_copy_only=False)
        for chunk in rows.chunks
    ]
    flat = parts[0] if len(parts) == 1 else np.concatenate(parts)
    return flat.reshape(len(rows), *shape)


def _shape(field: pa.Field) -> tuple[int, ...]:
    """Of one row of an info, as Minari notes it."""
    noted = (field.metadata or {}).get(b"shape", b"")
    return tuple(int(size) for size in noted.split(b",") if size)


def _pictures(rows: Any, shape: tuple[int, ...]) -> np.ndarray:
    pictures = np.empty((len(rows), *shape), np.uint8)
    for index, row in enumerate(rows):
        with Image.open(io.BytesIO(bytes(row))) as picture:
            if picture.size != (shape[1], shape[0]) or len(picture.getbands()) != (*shape, 1)[2]:
                raise ValueError(f"picture {index} is {picture.size} {picture.mode}; its space has {shape}")
            pictures[index] = np.asarray(picture)
    return pictures
