"""results.json, written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

from .types import Json


def write_results(folder: Path, results: Json, name: str = "results.json") -> Path:
    """Write `results` to `folder/name` and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    scratch = folder / f".{name}.part"
    scratch.write_text(json.dumps(results, indent=2, default=str) + "\n")
    os.replace(scratch, path)
    return path
