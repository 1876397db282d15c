"""The first rungs of continuous motion in small form: worlds of 2,000 frames each, against stored bars.

Bars are what the recipe reaches with so little video, less a margin for the seed; docs/results.md has the figures of all of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest
import torch

import flam_rl  # noqa: F401  # registers the tasks
from flam_rl.core.world import WorldInfo
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation import foreground, tracking
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.truth import truths_of
from flam_rl.models.build import BuildConfig, Footage, build_world
from flam_rl.models.tracked.build import TrackedBuildConfig
from flam_rl.models.tracked.training import DynamicsTrainingConfig, LookTrainingConfig, PriorTrainingConfig
from flam_rl.training.run import Log
from flam_rl.types import Video

FRAMES, HELD_OUT = 2000, 400
BRIEF = TrackedBuildConfig(
    looks=LookTrainingConfig(frames=600, patch_steps=300, steps=300),
    dynamics_training=DynamicsTrainingConfig(steps=1000, batch=64),
    prior_training=PriorTrainingConfig(steps=300, batch=512),
)
RUNGS = {
    "four looks": ({"pucks": 4, "looks": 4}, {"1": 30.0, "15": 24.0}, 0.9),
    "one look": ({"pucks": 8, "looks": 1, "background": "new_texture"}, {"1": 28.0, "15": 23.0}, 0.9),
    "moving camera": (
        {"pucks": 6, "background": "new_texture", "camera": "moving", "visits": True},
        {"1": 28.0, "15": 23.0},
        0.9,
    ),
}


@pytest.mark.learning
@pytest.mark.timeout(600)
@pytest.mark.parametrize("rung", RUNGS)
def test_a_rung_in_small_form(rung: str, tmp_path: Path) -> None:
    kwargs, bars, least = RUNGS[rung]
    task: Any = gym.make("flam_rl/Pucks-v0", **kwargs)
    episodes = list(record_episodes(task, FRAMES, 0))
    held_out = list(record_episodes(task, HELD_OUT, 1000))
    shown, unseen = (Video(tuple(e.frames for e in some)) for some in (episodes, held_out))
    config = BuildConfig(model="tracked", tracked=BRIEF)
    world = build_world(
        config, Footage(shown, unseen), WorldInfo(), torch.device("cpu"), Log(None), folder=tmp_path
    )
    encoded = encode(world, unseen, truths_of([e.entities for e in held_out]))
    predicted = foreground.measure(encoded, encoded.truth)
    followed = tracking.measure(encoded, encoded.truth)
    assert followed is not None
    print(rung, predicted, followed)
    for horizon, bar in bars.items():
        found = predicted[horizon]
        assert found["psnr"] >= bar
        assert found["psnr"] > found["floors"]["last_frame"]["psnr"] + (3 if horizon == "15" else 0)
    assert followed["f1"] >= least
    assert followed["switches_per_1000_apart"] <= 4
