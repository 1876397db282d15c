"""results.json, written whole or not at all, and what made it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path

import numpy as np
import torch

from . import __version__
from .files import written_whole
from .types import Json

COMMAND: ContextVar[str | None] = ContextVar("COMMAND", default=None)
"""The command line as its user would type it, where it is not the process's own."""


def write_results(folder: Path, results: Json, seed: int | Sequence[int] | None) -> Path:
    """Write `results` and what made them, `made_by`, to `folder/results.json` and return its path.

    Args:
        seed: what was drawn from; several for a report over seeds, None where nothing is drawn.
    """
    return write_json(folder / "results.json", results | {"made_by": made_by(seed)})


def write_json(path: Path, value: Json) -> Path:
    """Write `value` to `path`, in a folder that is made if need be, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(path) as scratch:
        scratch.write_text(json.dumps(value, indent=2, default=str) + "\n")
    return path


def read_json(path: Path) -> Json:
    """What `write_json` wrote.

    Raises:
        ValueError: the file is damaged.
    """
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, no JSON ({error}); delete it or restore it") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found a {type(found).__name__}; allowed is an object")
    return found


def made_by(seed: int | Sequence[int] | None) -> Json:
    """What makes results in this process: code, libraries, machine, threads, seed and command."""
    return {
        "version": __version__,
        **source(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cpu": _cpu(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "seed": seed,
        "command": COMMAND.get() or _command(sys.orig_argv),
    }


def source_text(made: Json) -> str:
    """Version and commit of a `made_by`, for people."""
    commit = f", commit {made['commit'][:12]}" if made["commit"] else ""
    return f"flam_rl {made['version']}{commit}{' with changes' if made['dirty'] else ''}"


@cache
def source() -> Json:
    """The state of the source tree that this package runs from: `commit`, and `dirty`, whether tracked files differ from it.

    Both are None where the package is no checkout of its own, but installed. Cached: a run that takes hours is made
    by the code that it began with.
    """
    tree = Path(__file__).resolve().parent.parent
    # A hook or a script may have set variables for git that mean another repository.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}

    def git(*arguments: str) -> str:
        run = ["git", "-C", str(tree), *arguments]
        return subprocess.run(run, capture_output=True, text=True, check=True, env=environment).stdout.strip()

    try:
        if (
            Path(git("rev-parse", "--show-toplevel")) != tree
        ):  # a virtual environment inside someone's repository
            return {"commit": None, "dirty": None}
        # Reports and pictures do not run: that one was written does not make the next one's code another.
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!docs")
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changed)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "dirty": None}


@cache
def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def _command(argv: Sequence[str]) -> str:
    """A command line with the names of its programs instead of their places on this machine."""
    program, *arguments = argv
    if arguments and Path(arguments[0]).name == "flam-rl":
        program, *arguments = arguments
    return shlex.join([Path(program).name, *arguments])
