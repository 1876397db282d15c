"""Tasks whose sim need not be installed: their tests skip with the line that installs it; in CI all of them run."""

from __future__ import annotations

import importlib
import os
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
