"""Envs: imagined (FLAM-v0) and real (tasks). Names are loaded when first used."""

from __future__ import annotations

import importlib
from typing import Any

if __name__ == "envs":  # from the repository's root
    raise ImportError("import flam_rl.envs instead of envs")

_NAMES = {
    "DecodedEnv": ".decoded_env",
    "DecodedVectorEnv": ".decoded_env",
    "FLAMEnv": ".flam_env",
    "FLAMParallelEnv": ".parallel",
    "FLAMVectorEnv": ".flam_vector_env",
    "SB3FLAMVecEnv": ".sb3",
    "make_sb3_vec_env": ".sb3",
    "parallel_env": ".parallel",
}
__all__ = sorted(_NAMES)


def __getattr__(name: str) -> Any:
    if name not in _NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_NAMES[name], __name__), name)
