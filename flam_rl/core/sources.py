"""Where worlds come from: shipped with the package, a folder, a zip, the Hugging Face Hub.

Each becomes a folder with the files of a world, and nothing else of a source is looked at. Only an `hf://` address
touches the network.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from .archive import unpacked
from .hub import HubAddress, fetched

SHIPPED = Path(__file__).parent.parent / "worlds"
WORLD_FILES = (
    "config.json",
    "model.safetensors",
    "starts.safetensors",
    "labels.safetensors",
    "README.md",
)
"""The files that a world may have; the fourth and fifth may be absent."""
MOST_BYTES = 2**30
"""Bytes that the files of a world may have together, where they are unpacked or downloaded."""


class Source(NamedTuple):
    """A world's files, and the name by which `load_world` finds the same again."""

    folder: Path
    name: str


def shipped_worlds() -> list[str]:
    """Names of the worlds that come with the package."""
    return sorted(p.parent.name for p in SHIPPED.glob("*/config.json"))


@contextmanager
def world_source(name: str | os.PathLike[str]) -> Iterator[Source]:
    """The files of a world; those of a zip are gone afterwards.

    Args:
        name: a shipped world's, a folder (the world's own or that of the run that trained it), a zip of one, or
            `hf://user/name`, also with `@revision`.

    Raises:
        ValueError: there is no such world, or the zip is no archive of one.
        OSError: the Hub cannot be reached, and what is asked for is not cached.
        ImportError: the address is of the Hub, and the extra `hub` is not installed.
    """
    if HubAddress.matches(name):
        address = HubAddress.parse(str(name))
        folder, pinned = fetched(address, WORLD_FILES, MOST_BYTES)
        if not (folder / "config.json").is_file():
            raise ValueError(f"{pinned} holds no world: it has no config.json")
        yield Source(folder, str(pinned))
    elif str(name) in shipped_worlds():
        yield Source(SHIPPED / name, str(name))
    elif Path(name).is_file():
        with unpacked(Path(name), WORLD_FILES, MOST_BYTES) as folder:
            try:
                yield Source(folder, str(Path(name).resolve()))
            except ValueError as error:  # about a file there, which is gone when it is read
                raise ValueError(str(error).replace(str(folder), str(name))) from error
    else:
        folder = Path(name)
        if (folder / "world" / "config.json").is_file():
            folder = folder / "world"
        if not (folder / "config.json").is_file():
            raise ValueError(
                f"no world {str(name)!r}: allowed are the shipped worlds {shipped_worlds()}, folders with a config.json, "
                "zips of them, and hf://user/name"
            )
        yield Source(folder, str(folder.resolve()))
