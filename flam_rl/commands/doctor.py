"""`flam-rl doctor`: what this installation can do."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from tabulate import tabulate

from ..core.checkpoint import load_world
from ..core.compiling import COMPILERS
from ..core.world import World
from ..envs.flam_vector_env import FLAMVectorEnv
from ..results import made_by, source_text, write_results
from ..training.run import pick_device
from ..types import Json
from .checks import check_out
from .endings import ended

SECONDS = 10.0
"""What the speed test takes."""
BATCHES = (1, 256)
"""Worlds of its envs."""


@dataclass(frozen=True)
class DoctorConfig:
    """Show Python, torch, device, threads and extras, with the line that installs each that is missing, and how fast the
    shipped world steps here: 10 seconds.

    Example: flam-rl doctor --out runs/doctor
    """

    out: Path | None = None
    """Folder for results.json; without it all is only shown."""


def doctor(config: DoctorConfig) -> None:
    """Run the command.

    Raises:
        ValueError: `out` cannot be written.
    """
    if config.out:
        check_out(config.out)
    made = made_by(0)
    print(tabulate(machine(made), tablefmt="plain", disable_numparse=True))
    missing = {extra: lacking(extra) for extra in extras()}
    rows = [
        (
            extra,
            "installed" if not packages else f"needs {', '.join(packages)}",
            "" if not packages else line(extra),
        )
        for extra, packages in missing.items()
    ]
    print("\n" + tabulate(rows, ("extra", "", "install it with"), tablefmt="plain"))
    speeds = speed(SECONDS)
    stepped = [(f"{worlds} at once", f"{found:,.0f} env-steps/s") for worlds, found in speeds.items()]
    print(
        "\nthe shipped world, not compiled\n"
        + tabulate(stepped, tablefmt="plain", disable_numparse=True)
        + "\n"
    )
    wrote = None
    if config.out:
        results = {"missing": missing, "env_steps_per_second": speeds}
        wrote = str(write_results(config.out, results, 0))
    ended(wrote, "flam-rl", "worlds")


def machine(made: Json) -> list[tuple[str, str]]:
    """What torch runs on, for people."""
    return [
        ("flam_rl", source_text(made)),
        ("Python", f"{made['python']}, {platform.platform()}"),
        ("torch", made["torch"]),
        ("device", f"{pick_device('auto')}, {made['gpu'] or made['cpu']}, {made['instruction_set']}"),
        ("C++ compiler", next(filter(None, map(shutil.which, COMPILERS)), "none: steps cannot be compiled")),
        (
            "threads",
            f"{made['threads']} of {made['cores']} cores; OMP_NUM_THREADS is {os.environ.get('OMP_NUM_THREADS', 'not set')}",
        ),
    ]


def extras() -> list[str]:
    """Extras of the installed flam_rl, but for that of its developers."""
    found = importlib.metadata.metadata("flam_rl").get_all("Provides-Extra") or []
    return [extra for extra in found if extra != "dev"]


def line(extra: str) -> str:
    """What installs it."""
    return f"pip install 'flam_rl[{extra}]'"


def lacking(extra: str) -> list[str]:
    """What an extra needs and is not installed, or not in a version that it takes."""
    return [str(needed) for needed in _needs(extra) if not _installed(needed)]


def _needs(extra: str) -> Iterator[Requirement]:
    for text in importlib.metadata.requires("flam_rl") or []:
        needed = Requirement(text)
        if needed.marker is not None and needed.marker.evaluate({"extra": extra}):
            needed.marker = None
            yield needed


def _installed(needed: Requirement) -> bool:
    try:
        return needed.specifier.contains(importlib.metadata.version(needed.name), prereleases=True)
    except importlib.metadata.PackageNotFoundError:
        return False


def speed(seconds: float) -> dict[str, float]:
    """Env-steps/s of FLAM-v0 in the shipped world under random actions, by the number of worlds.

    Args:
        seconds: in all, without making the envs.
    """
    world = load_world("multigrid", pick_device("auto"))
    return {str(worlds): _speed(world, worlds, seconds / len(BATCHES)) for worlds in BATCHES}


def _speed(world: World, worlds: int, seconds: float) -> float:
    env = FLAMVectorEnv(worlds, world, compile=False)
    env.reset(seed=0)
    env.action_space.seed(0)
    steps, began = 0, time.perf_counter()
    while (spent := time.perf_counter() - began) < seconds:
        env.step(env.action_space.sample())
        steps += worlds
    env.close()
    return steps / spent
