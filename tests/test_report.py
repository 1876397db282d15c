"""Training of tracked layers ends with a report, and says in one line what does not work; on real films."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
from failing import fails
from films import scene, write_film

import flam_rl
from flam_rl.cli import main

BRIEF = [
    *("--tracked.looks.frames", "40", "--tracked.looks.patch-steps", "20", "--tracked.looks.steps", "20"),
    *("--tracked.dynamics-training.steps", "20", "--tracked.prior-training.steps", "20"),
]


def train(data: Path, out: Path, *more: str) -> dict[str, Any]:
    main(["train", "--data", str(data), "--out", str(out), "--labels", "0", *BRIEF, *more])
    return json.loads((out / "results.json").read_text())


def pucks(folder: Path, episodes: int, **options: Any) -> None:
    """Films of three pucks."""
    folder.mkdir()
    task = gym.make("flam_rl/Pucks-v0", pucks=3)
    task.action_space.seed(0)
    for seed in range(episodes):
        frames = [task.reset(seed=seed)[0]]
        while len(frames) < 40:
            frames.append(task.step(task.action_space.sample())[0])
        write_film(folder / f"{seed}.mp4", np.stack(frames), **options)


@pytest.mark.learning
def test_training_ends_with_a_report(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    pucks(tmp_path / "data", 6, rate=20)
    found = train(tmp_path / "data", tmp_path / "run", "--factors", "2", "--held-out", "0.2")
    report, said = found["report"], capsys.readouterr().out
    assert report["explained"] > 0.9
    assert report["factors_at_once"] == 3
    assert report["frames_per_second"] == 20
    assert report["births_per_minute"] == report["switches_per_minute"] == 0
    assert report["failures"] == ["more than 2 things at once in 100% of frames: try --factors 3"]
    assert "warning: more than 2 things at once" in said
    assert "births 0.0, ends 0.0 and switches 0.0 a minute at 20 frames a second" in said
    assert len(found["kl_per_factor"]) == 2
    assert "KL per factor" in said
    assert imageio.imread(tmp_path / "run" / "film.gif").shape == (40, 256, 768, 3)
    world = flam_rl.load_world(tmp_path / "run" / "world")
    assert world.info.metrics


def test_what_cannot_work_is_said_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def refused(data: Path, *more: str) -> str:
        return fails(
            ["train", "--data", str(data), "--out", str(tmp_path / "run"), "--labels", "0", *more], capsys
        )

    one = write_film(tmp_path / "one.mp4", scene(1))
    line = "no readable video .* there are 1 frames of the 2 that an episode needs"
    for more in ((), ("--preview",)):
        assert re.search(line, refused(one, *more))
    film = write_film(tmp_path / "film.mp4", scene(24))
    small = ("--files.height", "12", "--files.width", "24")
    line = "frames are 12x24; tracking needs 16x16 pixels or more"
    assert line in refused(film, "--preview", *small)
    assert line in refused(film, "--model", "tracked", *small)
    large = ("--files.height", "512", "--files.width", "512", "--model", "tracked", "--factors", "256")
    assert "--factors is 256; frames of 512x512 allow 1 to " in refused(film, *large)
    still = write_film(tmp_path / "still.mp4", scene(1).repeat(40, 0))
    assert "nothing that moves was found in the video" in refused(still, "--model", "tracked")


@pytest.mark.learning
def test_what_will_not_bind_is_told_before_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (24, 24, 32, 3), np.uint8)
    film = write_film(tmp_path / "noise.mp4", noise)
    given = [
        "train",
        "--data",
        str(film),
        "--out",
        str(tmp_path / "run"),
        "--model",
        "tracked",
        "--factors",
        "2",
    ]
    assert "nothing that moves was found in the video" in fails([*given, "--labels", "0"], capsys)
    assert "the background changes with every frame: 71% of the pixels" in caplog.text
