"""How a command ends: what it wrote, and one command that may come next."""

from __future__ import annotations

import shlex
from pathlib import Path


def ended(wrote: str | None, *following: str | Path) -> None:
    """Print both.

    Args:
        wrote: files and folders, for people; None where nothing was written.
        following: words of a command, quoted here.
    """
    if wrote is not None:
        print(f"wrote {wrote}")
    print(f"next: {shlex.join(map(str, following))}")
