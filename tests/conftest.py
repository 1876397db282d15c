"""Shapes are checked by machine: jaxtyping and beartype watch the world model while tests run."""

from __future__ import annotations

from jaxtyping import install_import_hook

install_import_hook("flam_rl.models", "beartype.beartype")

import gymnasium as gym  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

import flam_rl  # noqa: E402
from flam_rl.actions import ActionSpace  # noqa: E402
from flam_rl.types import Episode, LabelledTransitions, Video  # noqa: E402


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


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
