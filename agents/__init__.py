"""Agents, one a file. Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

if __name__ == "agents":  # from the repository's root
    raise ImportError("import flam_rl.agents instead of agents")

_NAMES = {
    "BehaviorCloning": ".behavior_cloning",
    "ImaginationConfig": ".ppo",
    "PictureGoal": ".goals",
    "Planner": ".planning",
    "PlanningConfig": ".planning",
    "train_in_imagination": ".ppo",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name], __name__), name)
