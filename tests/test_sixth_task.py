"""A task that is one file outside of the package goes from recording to an agent by the commands alone.

Box actions, dense rewards below 0, no success, frames of 48x80 that are rendered: see sixth_task.py.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flam_rl.cli import main
from flam_rl.commands.evaluate import EvaluateConfig, _find_task
from flam_rl.commands.tasks import make_task
from flam_rl.core.checkpoint import load_world, save_world
from flam_rl.core.heads import DenseHead
from flam_rl.data.fitting import Fitting
from flam_rl.data.reading import ReadingConfig, read
from flam_rl.envs import DecodedEnv
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.types import Json

TASK = ["--task", "sixth_task:Drones-v0"]
BRIEF = {
    "factors": 4,
    "labels": 1200,
    "tracked.looks.frames": 500,
    "tracked.looks.patch-steps": 150,
    "tracked.looks.steps": 150,
    "tracked.dynamics-training.steps": 700,
    "tracked.dynamics-training.batch": 64,
    "tracked.prior-training.steps": 400,
    "tracked.prior-training.batch": 512,
}


def run(command: str, out: Path, **options: object) -> Json:
    """The results of a command."""
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    main([command, "--out", str(out), *TASK, *given])
    path = out / "results.json"
    return json.loads(path.read_text()) if path.exists() else {}


@pytest.mark.learning
def test_a_sixth_task_from_one_file(tmp_path: Path) -> None:
    run("collect", tmp_path / "data", steps=2000)
    frames = read(tmp_path / "data", ReadingConfig()).arrays[0]
    assert frames.shape == (51, 48, 80, 3)

    found = run("train", tmp_path / "run", data=tmp_path / "data", episodes=4, **BRIEF)
    assert found["psnr"]["1"] > found["psnr"]["floors"]["last_frame"]["1"]
    assert found["reward_rate"] is None  # every step is rewarded
    assert found["tracking"] is None  # nobody tells who is where
    world = load_world(tmp_path / "run")
    assert world.model.kind == "tracked"
    assert isinstance(world.labels.reward, DenseHead)
    assert len(world.labels.agents) == 1

    found = run("evaluate", tmp_path / "measured", world=tmp_path / "run", steps=200)
    assert found["psnr"]["15"] > found["psnr"]["floors"]["last_frame"]["15"] + 3

    # The agent's factor is the red disc, and its latent actions are pushes.
    task = make_task("sixth_task:Drones-v0", {})
    followed, right, meant = [], [], []
    for seed in range(6):
        env = DecodedEnv(task, world)
        env.reset(seed=seed)
        env.action_space.seed(seed)
        (place,) = world.labels.agents.factors
        for step in range(40):
            env.step(env.action_space.sample())
            if step >= 15:
                at = world.model.settings.state.to_pixels(env.scene.factors[0, place, :2]).numpy()
                followed.append(np.linalg.norm(at - task.unwrapped._place[0]) < 3)
    assert np.mean(followed) > 0.7
    for episode in record_episodes(task, 150, 99):
        factors = world.labels.agents.in_place(world.see(torch.as_tensor(episode.frames)[None]).factors)[0]
        latent = world.infer_actions(factors[None]).mean[0][:, list(world.labels.agents.factors)]
        right.append(world.labels.agents.real(factors[:-1], latent).numpy())
        meant.append(episode.actions)
    error = np.square(np.concatenate(right) - np.concatenate(meant)).mean()
    assert error < 0.5 * np.concatenate(meant).var()

    steps = {"imagination.steps": 60_000, "imagination.num-envs": 64}
    found = run("agent", tmp_path / "agent", world=tmp_path / "run", episodes=20, **steps)
    assert (tmp_path / "agent" / "policy.zip").is_file()
    assert found["task"]["success_rate"] is None
    assert found["task"]["mean_return"] > found["task"]["floors"]["random_actions"]["mean_return"]


def test_frames_of_a_cropped_world_are_cropped(tmp_path: Path) -> None:
    """What training wrote into the world holds for its task and for video that it is measured on."""
    world = load_world("multigrid")
    world.info = replace(world.info, fit="crop", task="", task_kwargs={})
    world.labels = None
    save_world(world, tmp_path / "world")
    again = load_world(tmp_path / "world")
    assert again.info.fit == "crop"
    task = _find_task(EvaluateConfig(tmp_path / "out", task=TASK[1]), again)
    whole, _ = make_task(TASK[1], {}).reset(seed=3)
    seen, _ = task.reset(seed=3)
    crop = Fitting(64, 64, "crop")
    assert np.array_equal(seen, crop.place(crop.scale(whole)))
    assert seen.min() > 0  # no bars
