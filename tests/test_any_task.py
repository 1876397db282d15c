"""Any gymnasium id is a task: its frames, its actions of any space, and who acts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
from failing import fails
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from stable_baselines3 import DQN, PPO, SAC
from suites import need

from flam_rl.cli import main
from flam_rl.commands.tasks import find_task, fitted, make_task
from flam_rl.data.minari import read_entities
from flam_rl.data.minari_writing import write_dataset
from flam_rl.data.reading import ReadingConfig, read
from flam_rl.envs.frames import Frames, shows_frames
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.policies import several
from flam_rl.types import Truth

SLIDES = '''
"""A square that slides over a frame of 48x80; it observes one number, and is rewarded densely, with a sign."""

import gymnasium as gym
import numpy as np

SPACES = {
    "discrete": gym.spaces.Discrete(3, start=-1),
    "many": gym.spaces.Discrete(40),
    "box": gym.spaces.Box(-1, 1, (2, 3), np.float32),
    "multi": gym.spaces.MultiDiscrete([3, 5]),
    "binary": gym.spaces.MultiBinary(4),
    "dict": gym.spaces.Dict({"push": gym.spaces.Discrete(3)}),
}


class Slides(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, actions="box", length=10, render_mode=None):
        self.action_space, self.length, self.render_mode = SPACES[actions], length, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.uniform(0, 70)), 0
        return self.observe(), {}

    def step(self, action):
        assert self.action_space.contains(action)
        self.place = float((self.place + 4 * np.mean(action)) % 70)
        self.steps += 1
        return self.observe(), 0.5 - abs(self.place - 35) / 35, False, self.steps == self.length, {}

    def observe(self):
        return np.array([self.place / 35 - 1], np.float32)

    def render(self):
        frame = np.full((48, 80, 3), 40, np.uint8)
        frame[20:30, round(self.place) : round(self.place) + 10] = 200
        return frame


class Blind(Slides):
    metadata = {"render_modes": []}


gym.register("Slides-v0", entry_point=Slides)
gym.register("Blind-v0", entry_point=Blind)
'''


@pytest.fixture(autouse=True)
def slides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module with tasks in the present folder, not imported yet."""
    (tmp_path / "slides.py").write_text(SLIDES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("Slides-v0", "Blind-v0"):
        monkeypatch.delitem(gym.registry, name, raising=False)
    monkeypatch.delitem(sys.modules, "slides", raising=False)


@pytest.mark.learning
def test_a_file_in_the_present_folder_is_collected_by_the_command(tmp_path: Path) -> None:
    flam_rl = Path(sys.executable).parent / "flam-rl"
    arguments = ["--task", "slides:Slides-v0", "--task-kwargs", '{"length": 7}', "--steps", "20"]
    done = subprocess.run(
        [flam_rl, "collect", "--out", "data", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("wrote data: 3 episodes, 21 transitions\n")
    assert read(tmp_path / "data", ReadingConfig()).arrays[0].shape == (8, 48, 80, 3)


@pytest.mark.parametrize(
    ("actions", "space"),
    [
        ("discrete", Discrete(3, start=-1)),
        ("many", Discrete(40)),
        ("box", Box(-1, 1, (2, 3), np.float32)),
        ("multi", MultiDiscrete([3, 5])),
        ("binary", MultiBinary(4)),
    ],
)
def test_actions_of_any_space_are_recorded_as_they_were_done(
    actions: str, space: gym.Space, tmp_path: Path
) -> None:
    task = make_task("slides:Slides-v0", {"actions": actions})
    assert task.action_space == space
    episodes = list(record_episodes(task, 60, 4))
    found = write_dataset(tmp_path / "data", task, episodes)
    assert found.action_space == space
    for stored, episode in zip(minari.MinariDataset(tmp_path / "data"), episodes, strict=True):
        assert np.array_equal(stored.actions, episode.actions)
        assert episode.actions.dtype == space.dtype
        assert episode.actions.shape == (10, *space.shape)
        assert all(space.contains(action) for action in episode.actions)
        assert np.array_equal(stored.rewards, episode.rewards)
        assert np.array_equal(stored.observations, episode.frames)
        assert stored.truncations.tolist() == [False] * 9 + [True]
        shown = [np.flatnonzero(frame[25, :, 0] == 200)[0] for frame in episode.frames]
        off = (shown[1] - shown[0] - 4 * episode.actions[0].mean()) % 70
        assert min(off, 70 - off) <= 1
    rewards = np.concatenate([episode.rewards for episode in episodes])
    assert rewards.min() < 0 < rewards.max()
    assert len(np.unique(np.concatenate([episode.actions for episode in episodes]))) > 1
    again = list(record_episodes(make_task("slides:Slides-v0", {"actions": actions}), 60, 4))
    assert all(np.array_equal(a.actions, b.actions) for a, b in zip(episodes, again, strict=True))


def test_actions_that_are_no_array_are_refused(tmp_path: Path, capsys) -> None:
    task = make_task("slides:Slides-v0", {"actions": "dict"})
    assert isinstance(task.action_space, Dict)
    options = ["--task", "slides:Slides-v0", "--task-kwargs", '{"actions": "dict"}']
    said = fails(["collect", "--out", str(tmp_path / "x"), *options], capsys)
    assert "allowed are Discrete, Box, MultiDiscrete and MultiBinary" in said
    assert not (tmp_path / "x").exists()


def test_frames_are_rendered_and_fitted() -> None:
    task = make_task("slides:Slides-v0", {})
    with pytest.warns(UserWarning, match="different from the unwrapped version"):  # and nothing else
        check_env(task, skip_render_check=False)
    assert (task.observation_space.shape, task.own_observation_space.shape) == ((48, 80, 3), (1,))
    frame, _ = task.reset(seed=3)
    assert np.array_equal(frame, task.render())
    assert task.own_observation == pytest.approx(task.unwrapped.place / 35 - 1)
    small = fitted(task, (32, 32, 3))
    seen, _ = small.reset(seed=3)
    assert small.observation_space.contains(seen)
    assert seen.shape == (32, 32, 3)
    assert (seen[0] == 0).all()  # bars of the letterbox
    assert (fitted(task, (32, 32, 3), "crop").reset(seed=3)[0] > 0).all()
    assert np.array_equal(small.render(), frame)
    assert fitted(task, (48, 80, 3)) is task
    for tasks in (several(small, 2), gym.make_vec(small.spec, num_envs=2)):  # the spec remakes the frames
        both, _ = tasks.reset(seed=[3, 3])
        assert np.array_equal(both[1], seen)


def test_frames_that_a_task_observes_are_kept(task: gym.Env) -> None:
    assert shows_frames(task)
    assert not isinstance(make_task("flam_rl/MultiGrid-v0", {}), Frames)
    assert fitted(task, (32, 48, 3)) is task  # tiles would be broken
    pucks = make_task("flam_rl/Pucks-v0", {})
    tiny = fitted(pucks, (32, 48, 3))
    frame, info = tiny.reset(seed=1)
    own, whole = pucks.reset(seed=1)
    assert np.array_equal(tiny.own_observation, own)
    assert frame.shape == (32, 48, 3)
    assert isinstance(whole["truth"], Truth)
    assert set(info) == {"success"}  # boxes are in pixels of the task's own frames


def test_a_task_without_frames_is_refused(tmp_path: Path, capsys) -> None:
    said = fails(["collect", "--out", str(tmp_path / "x"), "--task", "slides:Blind-v0"], capsys)
    assert "observations are Box(-1.0, 1.0, (1,), float32), and it does not render 'rgb_array'" in said
    with pytest.raises(ValueError, match="render_mode must be 'rgb_array', but is None"):
        Frames(gym.make("slides:Slides-v0"))


def test_an_episode_that_does_not_end_is_cut() -> None:
    task = make_task("slides:Slides-v0", {"length": -1})
    (episode,) = record_episodes(task, 33, 0)
    assert len(episode.actions) == 33
    assert not episode.terminations.any()


@pytest.mark.parametrize(
    ("algorithm", "network", "id", "kwargs"),
    [
        (PPO, "MlpPolicy", "CartPole-v1", {"n_steps": 32, "batch_size": 32}),
        (DQN, "MlpPolicy", "CartPole-v1", {}),
        (SAC, "MlpPolicy", "Pendulum-v1", {}),
        (PPO, "CnnPolicy", "flam_rl/Pucks-v0", {"n_steps": 8, "batch_size": 8}),
    ],
)
def test_a_saved_policy_acts(algorithm, network: str, id: str, kwargs: dict, tmp_path: Path) -> None:
    model = algorithm(network, id, seed=0, device="cpu", **kwargs)
    model.save(tmp_path / "policy.zip")
    task = make_task(id, {})
    (episode, *_) = record_episodes(task, 30, 2, str(tmp_path / "policy.zip"))
    own = gym.make(id)
    observation, _ = own.reset(seed=episode.seed)
    for action in episode.actions:
        expected = model.predict(observation, deterministic=True)[0]
        assert np.array_equal(action, expected)
        observation, *_ = own.step(expected if isinstance(own.action_space, Box) else int(expected))
    if id.startswith("flam_rl"):
        assert np.array_equal(observation, episode.frames[-1])


def test_saved_policies_that_do_not_fit_are_refused(tmp_path: Path, capsys) -> None:
    PPO("MlpPolicy", "CartPole-v1", n_steps=32, batch_size=32, device="cpu").save(tmp_path / "policy.zip")
    (tmp_path / "broken.zip").write_bytes(b"no zip")
    for policy, message in (
        ("policy.zip", "was trained on observations"),
        ("broken.zip", "wasn't a zip-file"),
        ("gone.zip", "the policy gone.zip is not there"),
        ("dance", "the policy is 'dance'; on "),
        ("mixed", "allowed are random, or a Stable-Baselines3 zip"),
    ):
        arguments = ["--task", "Pendulum-v1", "--policy", policy, "--steps", "9"]
        assert message in fails(["collect", "--out", str(tmp_path / "x"), *arguments], capsys)
        assert not (tmp_path / "x").exists()


def test_height_and_width_go_together(tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        main(["collect", "--out", str(tmp_path / "x"), "--height", "64"])
    assert "give both or none" in " ".join(capsys.readouterr().err.replace("│", " ").split())


@pytest.mark.learning
@pytest.mark.parametrize(
    ("id", "package", "extra", "size"),
    [
        ("ALE/Freeway-v5", "ale_py", "atari", (210, 160)),
        ("MiniGrid-Dynamic-Obstacles-8x8-v0", "minigrid", "minigrid", (256, 256)),
        ("highway-fast-v0", "highway_env", "highway", (150, 600)),
    ],
)
def test_other_suites_are_collected_and_inspected(
    id: str, package: str, extra: str, size: tuple[int, int], tmp_path: Path
) -> None:
    need(package, extra)
    main(["collect", "--out", str(tmp_path / "data"), "--task", id, "--steps", "12", "--seed", "1"])
    main(["inspect", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (results["episodes"][0]["height"], results["episodes"][0]["width"]) == size
    frames = np.load(tmp_path / "out" / "frames.npz")["0"]
    assert frames.std() > 5  # not black
    assert (frames[0] != frames[-1]).any()
    with pytest.raises(ValueError, match="no true entities"):
        read_entities(tmp_path / "data")
    small = ["--task", id, "--steps", "4", "--height", "64", "--width", "64", "--seed", "1"]
    main(["collect", "--out", str(tmp_path / "small"), *small])
    assert read(tmp_path / "small", ReadingConfig()).arrays[0].shape[1:] == (64, 64, 3)


@pytest.mark.parametrize(
    ("id", "package", "line"),
    [
        ("ALE/Freeway-v5", "ale_py", "needs the package ale_py: pip install 'flam_rl[atari]'"),
        ("MiniGrid-Empty-8x8-v0", "minigrid", "needs the package minigrid: pip install 'flam_rl[minigrid]'"),
        ("highway-v0", "highway_env", "needs the package highway_env: pip install 'flam_rl[highway]'"),
    ],
)
def test_a_missing_suite_is_said_with_the_line_that_installs_it(
    id: str, package: str, line: str, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(gym.registry, id, raising=False)
    assert line in fails(["collect", "--out", str(tmp_path / "x"), "--task", id], capsys)


def test_a_suite_that_only_a_data_set_names_is_not_imported() -> None:
    code = (
        "import sys; from flam_rl.commands.tasks import find_task\n"
        "print(find_task('ALE/Freeway-v5', {}, None, 'the data set'), 'ale_py' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "None False\n"
    assert find_task("slides:Slides-v0", {}, None, "the data set") is None
    assert "slides" not in sys.modules
