"""flam_rl/Bigfish-v0, Starpilot-v0, Leaper-v0 and the other games of Procgen: the real games."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from suites import need

from flam_rl.cli import main
from flam_rl.envs.tasks.procgen import GAMES, HELD_OUT_LEVELS, ProcgenTask
from flam_rl.envs.tasks.record import record_episode

need("envpool", "procgen")

DIGEST = """
import sys, hashlib, numpy as np, gymnasium as gym, flam_rl
for game in sys.argv[1:]:
    env, rng = gym.make(f"flam_rl/{game.capitalize()}-v0").unwrapped, np.random.default_rng(0)
    digest = hashlib.sha256(env.reset(seed=7)[0].tobytes())
    for _ in range(60):
        frame, reward, terminated, truncated, _ = env.step(int(rng.integers(15)))
        digest.update(frame.tobytes() + repr(reward).encode())
        if terminated or truncated:
            digest.update(env.reset()[0].tobytes())
    print(game, digest.hexdigest())
"""


def make(game: str, **arguments) -> ProcgenTask:
    return gym.make(f"flam_rl/{game.capitalize()}-v0", **arguments).unwrapped


PAPERS = ["bigfish", "starpilot", "leaper"]


@pytest.mark.learning
def test_same_seed_same_rollout_in_any_process() -> None:
    runs = []
    for games in (PAPERS, PAPERS[::-1]):
        command = [sys.executable, "-c", DIGEST, *games]
        lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
        runs.append(dict(line.split() for line in lines))
    assert set(runs[0]) == set(PAPERS)
    assert len(set(runs[0].values())) == 3
    assert runs[0] == runs[1]


@pytest.mark.parametrize("game", PAPERS)
def test_same_seed_same_episode(game: str) -> None:
    task = make(game)
    digests = []
    for seed in (7, 7, 8):
        rng = np.random.default_rng(0)
        episode = record_episode(task, seed, lambda frame, rng=rng: int(rng.integers(15)), 200)
        digests.append(hashlib.sha256(episode.frames.tobytes() + episode.rewards.tobytes()).hexdigest())
    assert digests[0] == digests[1] != digests[2]  # the episode of before leaves nothing behind


@pytest.mark.learning
@pytest.mark.parametrize(("difficulty", "count"), [("easy", 200), ("hard", 500)])
def test_held_out_levels_are_others_than_those_of_training(difficulty: str, count: int) -> None:
    levels = {}
    for name in ("training", "held_out"):
        task = make("bigfish", levels=name, difficulty=difficulty)
        levels[name] = np.array([task.reset(seed=seed)[1]["level"] for seed in range(300)])
        frame, info = task.reset(seed=0)
        task.step(4)
        again, same = make("bigfish", levels=name, difficulty=difficulty).reset(seed=0)
        assert np.array_equal(frame, again)
        assert info == same
    assert 0 <= levels["training"].min() <= levels["training"].max() < count
    assert count <= levels["held_out"].min() <= levels["held_out"].max() < count + HELD_OUT_LEVELS
    assert len(set(levels["training"])) > 100
    assert len(set(levels["held_out"])) > 250


def test_an_episode_ends_in_its_own_level() -> None:
    task = make("leaper")
    wins, losses = 0, 0
    for seed in range(40):
        _, info = task.reset(seed=seed)
        level, frames, total, ended = info["level"], [task.render()], 0.0, False
        while not ended:
            frame, reward, terminated, truncated, info = task.step(5)  # always up
            frames.append(frame)
            assert info["level"] == level
            assert np.array_equal(frame, task.render())
            total, ended = total + reward, terminated or truncated
        assert (total > 0) == info["success"]
        wins, losses = wins + info["success"], losses + (not info["success"])
        differences = [np.abs(a.astype(int) - b).mean() for a, b in pairwise(frames)]
        assert differences[-1] < 30  # the last frame is not of the next level
    assert wins > 0
    assert losses > 0


def test_bigfish_is_moved_by_the_actions_that_the_record_names() -> None:
    task = make("bigfish")
    places = {}
    for action in (1, 3, 5, 7):
        first, _ = task.reset(seed=3)
        for _ in range(8):
            frame, _, terminated, *_ = task.step(action)
            assert not terminated
        still, _ = make("bigfish").reset(seed=3)
        assert np.array_equal(first, still)
        places[action] = frame.astype(int)
    assert all(np.abs(places[a] - places[b]).max() > 50 for a, b in ((1, 7), (3, 5), (1, 3)))


@pytest.mark.parametrize("game", GAMES)
def test_every_game_shows_a_picture(game: str) -> None:
    frame, info = make(game).reset(seed=0)
    assert frame.std() > 10
    assert info["success"] is False


def test_collects_and_inspects(tmp_path: Path) -> None:
    options = ["--task", "flam_rl/Starpilot-v0", "--task-kwargs", '{"levels": "held_out"}', "--steps", "80"]
    main(["collect", "--out", str(tmp_path / "data"), *options])
    main(["inspect", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["episodes"][0]["height"], results["episodes"][0]["width"]) == (64, 64)
    assert sum(episode["kept"] for episode in results["episodes"]) > 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"game": "chess"}, "game is 'chess'; allowed are"),
        ({"levels": "all"}, "levels is 'all'; allowed are"),
        ({"difficulty": "extreme"}, "difficulty is 'extreme'; allowed are"),
        ({"render_mode": "human"}, "render_mode is 'human'; allowed are"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProcgenTask(**arguments)


def test_a_missing_envpool_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "envpool", None)
    with pytest.raises(ImportError) as raised:
        make("bigfish")
    assert str(raised.value) == "flam_rl/Bigfish-v0 needs the package envpool: pip install 'flam_rl[procgen]'"
