"""Reports as tests read them."""

from __future__ import annotations

import re
from pathlib import Path


def squeezed(path: Path) -> str:
    """A report without the spaces that line up its columns."""
    return re.sub(" +", " ", path.read_text())
