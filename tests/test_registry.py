"""What tasks say of themselves, and tasks that another package brings."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from suites import make

from flam_rl.envs.tasks.registry import find, is_known

OWN = sorted(id for id, spec in gym.registry.items() if spec.namespace == "flam_rl")
SIMS = {"multigrid", "pymunk", "envpool", "mpe2", "pettingzoo", "pygame", "ale_py", "minigrid", "highway_env"}
SLIDE = '''
"""One file: a square that slides over a wide frame, pushed by a number."""

import gymnasium as gym
import numpy as np

from flam_rl.envs.tasks.registry import Task

TASK = Task("other/Slide-v0", "other_slide:Slide", "other-slide", behaviors=("sweep",), expert=True)


class Slide(gym.Env):
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}
    observation_space = gym.spaces.Box(0, 255, (48, 80, 3), np.uint8)
    action_space = gym.spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self, length=12, render_mode="rgb_array"):
        TASK.sim("json")
        self.length, self.render_mode = length, render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place, self.steps = float(self.np_random.uniform(0, 70)), 0
        return self.render(), {}

    def step(self, action):
        self.place = float(np.clip(self.place + 4 * action[0], 0, 70))
        self.steps += 1
        return self.render(), -abs(self.place - 35) / 35, False, self.steps >= self.length, {}

    def render(self):
        frame = np.full((48, 80, 3), 40, np.uint8)
        frame[20:30, round(self.place) : round(self.place) + 10] = 200
        return frame

    def expert_action(self):
        return np.clip([(35 - self.place) / 4], -1, 1).astype(np.float32)

    def make_behavior(self, name, rng):
        way = rng.choice([-1.0, 1.0])
        return lambda: np.array([way], np.float32)
'''
SETUP = """
[metadata]
name = other-slide
version = 1.0

[options]
py_modules = other_slide

[options.entry_points]
flam_rl.tasks =
    other/Slide-v0 = other_slide:TASK
    other/Gone-v0 = other_gone:TASK
    no id at all = other_slide:TASK
    other/Wrong-v0 = other_slide:Slide
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds another package with tasks, as pip installs it."""
    source, site = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("site")
    (source / "setup.cfg").write_text(SETUP)
    (source / "pyproject.toml").write_text(
        '[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n'
    )
    (source / "other_slide.py").write_text(SLIDE)
    install = ["install", "--no-deps", "--no-build-isolation", "--quiet", "--target", str(site), str(source)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True, capture_output=True)
    return site


def run(site: Path, code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=site,
        capture_output=True,
        text=True,
    )


def test_another_package_brings_a_task(site: Path) -> None:
    for first in ("import flam_rl, other_slide", "import other_slide", "import flam_rl"):
        done = run(
            site,
            f"{first}; import gymnasium as gym, sys; print('other_slide' in sys.modules)\n"
            "env = gym.make('other/Slide-v0', length=5)\n"
            "print(type(env.unwrapped).__name__, env.unwrapped.length, env.spec.to_json()[:24])",
        )
        assert done.returncode == 0, done.stderr
        loaded, made = done.stdout.splitlines()
        assert loaded == str("other_slide" in first)  # not before it is made
        assert made.startswith("Slide 5 {")


@pytest.mark.learning
def test_it_is_collected_and_its_record_is_known(site: Path) -> None:
    done = run(
        site,
        "from flam_rl.cli import main; from flam_rl.envs.tasks.registry import find, is_known\n"
        "print(is_known('other/Slide-v0'), find('other/Slide-v0').behaviors)\n"
        "main(['collect', '--out', 'data', '--task', 'other/Slide-v0', '--steps', '30'])",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == ["True ('sweep',)", "wrote data: 3 episodes, 36 transitions"]
    metadata = json.loads((site / "data" / "metadata.json").read_text())
    assert json.loads(metadata["env_spec"])["id"] == "other/Slide-v0"


@pytest.mark.learning
def test_what_another_package_brings_wrong_is_said(site: Path) -> None:
    done = run(
        site,
        "import flam_rl; print('fine'); from flam_rl.envs.tasks.registry import find; find('other/Wrong-v0')",
    )
    assert done.stdout == "fine\n"
    assert "the entry point 'no id at all' of flam_rl.tasks is left out" in done.stderr
    assert "allowed is a Task of this id" in done.stderr.splitlines()[-1]
    done = run(
        site, "from flam_rl.cli import main; main(['collect', '--out', 'x', '--task', 'other/Gone-v0'])"
    )
    assert done.returncode == 2
    assert "the task 'other/Gone-v0' with {} cannot be made: No module named 'other_gone'" in done.stderr


def test_importing_flam_rl_imports_no_sim() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, flam_rl; print(' '.join(sys.modules))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(done.stdout.split()) & (SIMS | {"torch"})


def test_find_and_is_known() -> None:
    assert find("flam_rl/Pucks-v0").id == "flam_rl/Pucks-v0"
    assert find("CartPole-v1") is None
    assert not is_known("CartPole-v1")


@pytest.mark.learning
@pytest.mark.parametrize("id", OWN)
def test_the_record_says_what_the_task_can_do(id: str) -> None:
    record = find(id)
    task = make(id).unwrapped
    if isinstance(task.action_space, gym.spaces.Discrete):
        assert len(record.actions) == task.action_space.n
    assert set(record.keys.values()) <= set(range(len(record.actions)))
    frame, _ = task.reset(seed=0)
    assert frame.dtype == np.uint8
    assert hasattr(task, "expert_action") == record.expert
    rng = np.random.default_rng(0)
    for name in record.behaviors:
        act = task.make_behavior(name, rng)
        assert task.action_space.contains(act())
    if record.expert:
        assert task.action_space.contains(task.expert_action())
    for arguments in record.variants.values():
        other = make(id, **arguments)
        assert other.reset(seed=0)[0].shape == frame.shape


@pytest.mark.parametrize("id", OWN)
def test_passes_the_env_checker(id: str) -> None:
    check_env(make(id).unwrapped, skip_render_check=False)
