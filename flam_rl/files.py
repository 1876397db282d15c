"""Files that are written whole or not at all, and room on the disk that is taken before it is needed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np


def new_array(path: Path, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """A .npy file mapped for writing, its room on the disk taken: no write to it can meet a full disk and crash.

    Raises:
        OSError: the disk is full.
    """
    array = np.lib.format.open_memmap(path, "w+", dtype, shape)
    if hasattr(os, "posix_fallocate"):
        with path.open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)
    return array


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A scratch path beside `path`, with its ending, to write to; what is there in the end takes the place of `path`.

    After an error or an interrupt the scratch file is gone and `path` is as it was.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    scratch = path.with_name(f".{path.stem}.part{path.suffix}")
    try:
        yield scratch
        os.replace(scratch, path)
    except BaseException as error:
        with suppress(OSError):
            scratch.unlink()
        if isinstance(error, OSError):  # that of a full disk names no file, others name the scratch file
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise


@contextmanager
def folder_written_whole(folder: Path) -> Iterator[Path]:
    """A scratch folder beside `folder` to write files to; in the end it takes the place of `folder`, for all to read.

    After an error or an interrupt the scratch folder is gone and `folder` is as it was.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}-"))
    try:
        yield scratch
        for path in (scratch, *scratch.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)  # a temporary folder and its files are private
        put_back(folder)
        if folder.exists():
            old = _aside(folder)
            os.replace(folder, old)
            os.replace(scratch, folder)
            shutil.rmtree(old)
        else:
            os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


@contextmanager
def sole_use(folder: Path, wait: bool = False) -> Iterator[None]:
    """`folder`, made if need be, is this process's alone, until it ends however it ends.

    Args:
        wait: until another process has ended whose it is.

    Raises:
        ValueError: it is another's.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise ValueError(f"{folder} is in use by another process; wait for it") from error
        yield
    finally:
        os.close(lock)


def remove_whole(folder: Path) -> None:
    """Delete `folder`: whenever this is interrupted, all of it is there, or nothing under its name."""
    if folder.exists():
        gone = folder.with_name(f".{folder.name}-gone")
        shutil.rmtree(gone, ignore_errors=True)
        os.replace(folder, gone)
        shutil.rmtree(gone)


def put_back(folder: Path) -> None:
    """The old `folder` to its place, if a process was killed just when it had moved it aside for a new one."""
    if not folder.exists() and _aside(folder).exists():
        os.replace(_aside(folder), folder)
    shutil.rmtree(_aside(folder), ignore_errors=True)


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}-old")
