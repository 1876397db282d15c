"""Files that are written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


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
