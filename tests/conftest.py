"""Shapes are checked by machine: jaxtyping and beartype watch the world model while tests run."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from jaxtyping import install_import_hook

install_import_hook("flam_rl.models", "beartype.beartype")

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import flam_rl  # noqa: E402
from flam_rl.actions import ActionSpace  # noqa: E402
from flam_rl.types import Episode, LabelledTransitions, Video  # noqa: E402

if TYPE_CHECKING:
    from flam_rl.player.stage import Stage


@pytest.fixture(scope="session")
def task() -> gym.Env:
    return gym.make("flam_rl/MultiGrid-v0", agents=4)


@pytest.fixture(scope="session")
def episodes(task: gym.Env) -> list[Episode]:
    from flam_rl.envs.tasks.record import record_episodes

    return list(record_episodes(task, 1500, seed=0))


@pytest.fixture(scope="session")
def video(episodes: list[Episode]) -> Video:
    return Video(tuple(episode.frames for episode in episodes))


@pytest.fixture(scope="session")
def labelled(episodes: list[Episode]) -> LabelledTransitions:
    return LabelledTransitions.from_episodes(episodes, 1000, ActionSpace.discrete(4))


@pytest.fixture
def world() -> flam_rl.core.world.World:
    return flam_rl.load_world("multigrid")


@pytest.fixture
def minari_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Minari keeps its datasets during a test."""
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def record(minari_root: Path) -> Callable[..., Path]:
    """`minari_sets.write_dataset` below `minari_root`."""
    from minari_sets import write_dataset

    return partial(write_dataset, minari_root)


@pytest.fixture(scope="session")
def stage() -> Stage:
    """The shipped MultiGrid world as the player shows it, with its task."""
    from pages import make_task

    from flam_rl.player.stage import Stage

    return Stage(flam_rl.load_world("multigrid"), "multigrid", make_task)


@pytest.fixture(scope="session")
def pucks_stage() -> Stage:
    """The shipped Pucks world as the player shows it, without a task."""
    from flam_rl.player.stage import Stage

    return Stage(flam_rl.load_world("pucks"), "pucks")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
