"""flam_rl: factored latent action world models from video, as gymnasium envs."""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium as gym

from .envs.tasks.registry import register_all
from .forking import use_one_thread_in_forked_children

__version__ = "0.1.0"

_NAMES = {
    "load_world": ".core.checkpoint",
    "save_world": ".core.checkpoint",
    "shipped_worlds": ".core.sources",
}
_ROOMS = ("agents", "core", "data", "envs", "evaluation", "grounding", "models", "training")
__all__ = ["__version__", *sorted(_NAMES), *_ROOMS]

gym.register(
    "FLAM-v0",
    entry_point="flam_rl.envs.flam_env:FLAMEnv",
    vector_entry_point="flam_rl.envs.flam_vector_env:FLAMVectorEnv",
)
register_all()
use_one_thread_in_forked_children()


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name], __name__), name)
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
