"""Rebuild the shipped MultiGrid world from nothing: record video, train, install it in the package.

    python scripts/train_multigrid_world.py --work runs/multigrid

About 3 minutes of recording and 8 of training on 2 CPU cores. An interrupted run goes on where it was.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import tyro

from flam_rl.commands.collect import CollectConfig, collect
from flam_rl.commands.train import TrainConfig, train
from flam_rl.core.sources import SHIPPED


@dataclass(frozen=True)
class RebuildConfig:
    """What is rebuilt."""

    work: Path = Path("runs/multigrid")
    """Where video and run go."""
    seed: int = 3
    """Seed of the training; that of the video is always 0."""
    install: bool = True
    """Put the world into flam_rl/worlds/multigrid."""


def main(config: RebuildConfig) -> None:
    """Record, train, install."""
    data, run = config.work / "data", config.work / f"seed{config.seed}"
    if not data.exists():
        collect(CollectConfig(data))
    train(TrainConfig(data=data, out=run, seed=config.seed))
    if config.install:
        target = SHIPPED / "multigrid"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(run / "world", target)
        print(f"installed {target}")


if __name__ == "__main__":
    main(tyro.cli(RebuildConfig))
