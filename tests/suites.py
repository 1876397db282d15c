"""Tasks whose sim need not be installed: their tests skip with the line that installs it; in CI all of them run."""

from __future__ import annotations

import importlib
import os
import shutil
from typing import Any

import gymnasium as gym
import pytest

ALL = "FLAM_RL_ALL_SUITES"
"""Environment variable; where it is set, a missing sim is a failure."""


def need(package: str, extra: str) -> None:
    """Skip the module of tests that calls this if `package` is missing."""
    if os.environ.get(ALL):
        importlib.import_module(package)
    else:
        pytest.importorskip(package, reason=f"pip install 'flam_rl[{extra}]'")


def make(id: str, **arguments: Any) -> gym.Env:
    """A task, or a skipped test if its sim is missing."""
    try:
        return gym.make(id, **arguments)
    except ImportError as error:
        if os.environ.get(ALL):
            raise
        pytest.skip(str(error))


def program(name: str) -> str:
    """Path of a program of Debian's, or skipped tests if it is missing."""
    found = shutil.which(name)
    if found is None:
        reason = f"apt-get install {name}"
        if os.environ.get(ALL):
            raise FileNotFoundError(reason)
        pytest.skip(reason)
    return found
