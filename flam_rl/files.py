"""Files that are written whole or not at all, and room on the disk that is taken before it is needed."""

from __future__ import annotations

import os
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
