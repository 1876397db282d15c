"""A world in a zip: anyone's, so only the files of a world are unpacked, to names that are ours."""

from __future__ import annotations

import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

MOST_ENTRIES = 10_000
"""Entries that an archive may list; a run with its logs has far fewer."""


@contextmanager
def unpacked(path: Path, files: Collection[str], most_bytes: int) -> Iterator[Path]:
    """A temporary folder with the files of the world in the archive `path`; other entries are not read.

    Args:
        files: names that a world's files may have. most_bytes: what they may have together, unpacked.

    Raises:
        ValueError: `path` is no zip, is damaged, holds no world or several, or holds what is not unpacked: a path that leads
            out of it, a link, an encrypted file, or more than is allowed.
    """
    with tempfile.TemporaryDirectory(prefix="flam-rl-") as scratch:
        try:
            _unpack(path, Path(scratch), files, most_bytes)
        except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
            raise ValueError(
                f"{path}: no zip, damaged, or packed in a way that is not read ({error})"
            ) from error
        except _Refused as error:
            raise ValueError(f"{path}: {error}") from error
        yield Path(scratch)


def _unpack(path: Path, folder: Path, files: Collection[str], most_bytes: int) -> None:
    with zipfile.ZipFile(path) as archive:
        for entry in _entries(archive, files, most_bytes):
            with archive.open(entry) as packed, (folder / _name(entry)).open("wb") as file:
                shutil.copyfileobj(packed, file)  # ends at the size that the entry says


class _Refused(Exception):
    """What is wrong with an archive."""


def _name(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).name


def _entries(archive: zipfile.ZipFile, files: Collection[str], most_bytes: int) -> list[zipfile.ZipInfo]:
    entries = archive.infolist()
    if len(entries) > MOST_ENTRIES:
        raise _Refused(f"lists {len(entries)} files; allowed are {MOST_ENTRIES}")
    for entry in entries:
        place = PurePosixPath(entry.filename)
        if place.is_absolute() or ".." in place.parts or "\\" in entry.filename or ":" in entry.filename:
            raise _Refused(f"entry {entry.filename!r} leads out of the archive")
    places = [(str(PurePosixPath(entry.filename).parent), _name(entry)) for entry in entries]
    folders = {folder for folder, _ in places}
    worlds = sorted(
        folder
        for folder in folders
        if {(folder, "config.json"), (folder, "model.safetensors")} <= set(places)
    )
    if len(worlds) != 1:
        found = "no world, a folder with config.json and model.safetensors"
        raise _Refused(f"holds {f'{len(worlds)} worlds, in {worlds}' if worlds else found}; allowed is one")
    chosen = [
        entry
        for entry, (folder, name) in zip(entries, places, strict=True)
        if folder == worlds[0] and name in files
    ]
    for entry in chosen:
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG) or entry.is_dir():
            raise _Refused(f"entry {entry.filename!r} is a link or another special file")
        if entry.flag_bits & 0x1:
            raise _Refused(f"entry {entry.filename!r} is encrypted")
    if len({_name(entry) for entry in chosen}) < len(chosen):
        raise _Refused(f"holds a file twice: {sorted(_name(entry) for entry in chosen)}")
    size = sum(entry.file_size for entry in chosen)
    if size > most_bytes:
        raise _Refused(f"the world in it has {size:,} bytes; allowed are {most_bytes:,}")
    return chosen
