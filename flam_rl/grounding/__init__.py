"""Grounding: what few labels add to a world, the adapter between latent and real actions, reward and end."""

from __future__ import annotations

import importlib
from typing import Any

_NAMES = {"ActionAdapter": ".adapter"}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name], __name__), name)
