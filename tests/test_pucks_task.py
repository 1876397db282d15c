"""flam_rl/Pucks-v0 as a task: spaces, seeds, behaviours, recording, errors of use."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pucks import BUSY, make, play

from flam_rl.cli import main
from flam_rl.commands.collect import parse_kwargs
from flam_rl.commands.tasks import make_task
from flam_rl.data.minari import read_entities
from flam_rl.data.reading import read
from flam_rl.envs.tasks.pucks import PucksTask
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.types import Truth


@pytest.mark.parametrize("goal", ["reach", "flee"])
@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("options", [{}, BUSY], ids=["default", "busy"])
def test_passes_the_env_checker(goal: str, action: str, options: dict) -> None:
    check_env(make(goal=goal, action=action, **options), skip_render_check=False)


def test_many_at_once() -> None:
    envs = gym.make_vec("flam_rl/Pucks-v0", num_envs=3, vectorization_mode="sync", pucks=3)
    frames, infos = envs.reset(seed=0)
    assert frames.shape == (3, 64, 64, 3)
    assert [truth.box.shape for truth in infos["truth"]] == [(3, 4)] * 3


DIGEST = """
import sys, json, hashlib, gymnasium as gym, numpy as np, flam_rl
env = gym.make("flam_rl/Pucks-v0", **json.loads(sys.argv[1])).unwrapped
digest, rng = hashlib.sha256(env.reset(seed=7)[0].tobytes()), np.random.default_rng(0)
for _ in range(99):
    frame, reward, _, _, info = env.step(int(rng.integers(5)))
    digest.update(frame.tobytes() + repr(reward).encode())
    for array in info["truth"].arrays().values():
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("options", [{"pucks": 12}, BUSY], ids=["crowd", "busy"])
def test_same_seed_same_rollout_in_any_process(options: dict) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", DIGEST, json.dumps(options)], capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    task = make(**options)
    again = [hashlib.sha256(play(task, seed)[0].tobytes()).hexdigest() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]  # the table of before leaves nothing behind


@pytest.mark.learning
@pytest.mark.parametrize(
    ("arguments", "episodes", "least", "most"),
    [
        ({}, 60, 0.95, 0.15),
        ({"action": "box", **BUSY}, 40, 0.95, 0.15),
        ({"goal": "flee"}, 30, 0.75, 0.15),
    ],
    ids=["reach", "busy", "flee"],
)
def test_the_expert_succeeds_and_random_seldom_does(
    arguments: dict, episodes: int, least: float, most: float
) -> None:
    task = make(**arguments)
    task.action_space.seed(0)
    rates = []
    for act, count in ((task.expert_action, episodes), (task.action_space.sample, episodes // 2)):
        successes = []
        for seed in range(count):
            task.reset(seed=seed)
            total, ended = 0.0, False
            while not ended:
                _, reward, terminated, truncated, info = task.step(act())
                total, ended = total + reward, terminated or truncated
            assert terminated != truncated or (terminated and task._steps == task.max_steps)
            if task.goal == "reach":
                assert total == float(terminated) == float(info["success"])
            else:
                assert total == -float(terminated) == float(info["success"]) - 1
            successes.append(info["success"])
        rates.append(np.mean(successes))
    assert rates[0] >= least
    assert rates[1] <= most


def test_collects_from_the_command_line(tmp_path: Path) -> None:
    options = json.dumps(BUSY | {"max_steps": 40})
    main(
        ["collect", "--out", str(tmp_path / "data"), "--task", "flam_rl/Pucks-v0", "--task-kwargs", options]
        + ["--steps", "120", "--seed", "3"]
    )
    again = list(record_episodes(make(**json.loads(options)), 120, 3))
    video, entities = read(tmp_path / "data").video, read_entities(tmp_path / "data")
    assert len(again) == len(entities) >= 3
    for episode, frames, truth in zip(again, video.episodes, entities, strict=True):
        assert np.array_equal(frames, episode.frames)
        assert Truth(**truth) == Truth(**episode.entities)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("pucks=6", "which is not JSON"),
        ("[6]", "allowed is a JSON object"),
        ('{"puks": 6}', "unexpected keyword argument 'puks'"),
    ],
)
def test_bad_task_arguments_are_explained(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task("flam_rl/Pucks-v0", parse_kwargs(wrong))


@pytest.mark.parametrize("policy", ["mixed", "goal", "random", "expert"])
def test_box_actions_are_recorded(policy: str) -> None:
    first, second = (next(record_episodes(make(action="box"), 1, 5, policy)) for _ in range(2))
    assert first.actions.dtype == np.float32
    assert first.actions.shape == (len(first.frames) - 1, 2)
    assert np.array_equal(first.actions, second.actions)


def test_truth_of_an_episode_is_checked() -> None:
    one, two = np.zeros(2, bool), np.zeros(3, bool)
    assert Truth(presence=one) != Truth(presence=one, contact=one)
    assert Truth(radius=np.array([np.nan])) == Truth(radius=np.array([np.nan]))
    assert list(Truth.stack([Truth(presence=one)] * 4).arrays()) == ["presence"]
    with pytest.raises(ValueError, match="same fields and shapes in each frame"):
        Truth.stack([Truth(presence=one), Truth(presence=two)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pucks": 1}, "pucks is 1; allowed is 2 to 12"),
        ({"pucks": 13}, "pucks is 13; allowed is 2 to 12"),
        ({"looks": 9}, "looks is 9; allowed is 1 to 8"),
        ({"action": "push"}, "action is 'push'; allowed are"),
        ({"goal": "win"}, "goal is 'win'; allowed are"),
        ({"background": "sky"}, "background is 'sky'; allowed are"),
        ({"camera": "drone"}, "camera is 'drone'; allowed are"),
        ({"render_mode": "human"}, "render_mode is 'human'; allowed are"),
        ({"sizes": (5, 3)}, "allowed are two radii"),
        ({"frame_size": (16, 64)}, "allowed are a height and a width of 32 or more"),
        ({"max_steps": 0}, "max_steps is 0; allowed is 1 or more"),
        ({"pucks": 12, "sizes": (8, 8)}, "fill 0.75 of the table; allowed is 0.4"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PucksTask(**arguments)


def test_bad_actions_and_behaviours_are_explained() -> None:
    for action, wrong, message in (
        ("discrete", 5, "allowed are the integers 0 to 4"),
        ("discrete", 1.5, "allowed are the integers 0 to 4"),
        ("box", [0.0, np.nan], "two numbers from -1 to 1"),
        ("box", [0.0, 1.5], "two numbers from -1 to 1"),
        ("box", [0.0], "two numbers from -1 to 1"),
    ):
        task = make(action=action)
        task.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            task.step(wrong)
    with pytest.raises(ValueError, match="behavior is 'dance'; allowed are"):
        task.make_behavior("dance", np.random.default_rng(0))


def test_a_missing_pymunk_is_explained() -> None:
    code = (
        "import sys; sys.modules['pymunk'] = None\n"
        "import gymnasium as gym, flam_rl\n"
        "try: gym.make('flam_rl/Pucks-v0')\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "flam_rl/Pucks-v0 needs the package pymunk: pip install 'flam_rl[pucks]'\n"
