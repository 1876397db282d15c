"""What can be known at the start of a command is checked there, not after hours."""

from __future__ import annotations

import tempfile
from pathlib import Path


def check_out(out: Path) -> None:
    """Nothing is left behind, no folder either.

    Raises:
        ValueError: nothing can be written to the folder `out`.
    """
    there = out.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".flam-rl-", buffering=0) as probe:
            probe.write(bytes(4096))  # a full disk takes files, but nothing in them
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror} ({there})") from error
