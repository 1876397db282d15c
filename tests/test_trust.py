"""A world or a data set from anyone names a task: nothing of it is imported or run unless the user names it too."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path

import gymnasium as gym
import pytest

import flam_rl
from flam_rl.cli import main
from flam_rl.data.minari_writing import write_dataset
from flam_rl.data.reading import read
from flam_rl.envs.tasks.registry import is_known
from flam_rl.types import Episode

TRAP = """
from pathlib import Path
import gymnasium
Path("sprung").write_text("")

class Trap(gymnasium.Env):
    observation_space = gymnasium.spaces.Box(0, 1, (2,))
    action_space = gymnasium.spaces.Discrete(2)

    def __init__(self, **arguments):
        pass

gymnasium.register("Trap-v0", entry_point=Trap)
"""
NAME = "trap:Trap-v0"
TINY_PPO = [
    "--imagination.steps",
    "256",
    "--imagination.num-envs",
    "8",
    "--imagination.rollout",
    "16",
    "--imagination.batch",
    "64",
]
TINY_TRAINING = [
    "--model",
    "flam",
    "--tokenizer-training.steps",
    "60",
    "--world.steps",
    "2",
    "--world.frames",
    "32",
    "--world.prior-steps",
    "1",
]


@pytest.fixture
def sprung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], bool]:
    """Whether the module that a stranger's world names has been imported: it is there to be."""
    (tmp_path / "trap.py").write_text(TRAP)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "trap", raising=False)
    monkeypatch.delitem(gym.registry, "Trap-v0", raising=False)
    return lambda: "trap" in sys.modules or (tmp_path / "sprung").exists()


@pytest.fixture
def stranger(world, tmp_path: Path) -> Path:
    """A world that names code."""
    flam_rl.save_world(world, tmp_path / "world")
    config = json.loads((tmp_path / "world" / "config.json").read_text())
    config["info"] |= {"task": NAME, "task_kwargs": {}}
    (tmp_path / "world" / "config.json").write_text(json.dumps(config))
    return tmp_path / "world"


@pytest.fixture
def data(tmp_path: Path, task: gym.Env, episodes: list[Episode]) -> Path:
    """A data set that names code."""
    write_dataset(tmp_path / "data", task, episodes[:3])
    change_metadata(tmp_path / "data", lambda found: found.update(env_spec=spec_of(found["env_spec"])))
    return tmp_path / "data"


def spec_of(env_spec: str) -> str:
    return json.dumps(json.loads(env_spec) | {"id": NAME, "entry_point": "trap:Trap", "kwargs": {}})


def change_metadata(folder: Path, edit: Callable[[dict], object]) -> None:
    found = json.loads((folder / "metadata.json").read_text())
    edit(found)
    (folder / "metadata.json").write_text(json.dumps(found))


def test_the_trap_works(sprung: Callable[[], bool]) -> None:
    assert not sprung()
    gym.make(NAME)
    assert sprung()


def test_what_is_known() -> None:
    assert is_known("flam_rl/MultiGrid-v0")
    for other in (
        NAME,
        "CartPole-v1",
        "FLAM-v0",
        "flam_rl/MultiGrid",
        "flam_rl/Nothing-v0",
        "trap:flam_rl/MultiGrid-v0",
    ):
        assert not is_known(other)


@pytest.mark.parametrize("command", ["evaluate", "demo"])
def test_a_command_that_needs_the_task_says_how_to_allow_it(
    command: str, stranger: Path, sprung: Callable[[], bool], capsys
) -> None:
    with pytest.raises(SystemExit):
        main([command, "--world", str(stranger), "--out", "out"])
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"the world {stranger} names the task '{NAME}' with {{}}, which is not flam_rl's own" in said
    assert f"--task {NAME} allows it" in said
    assert not sprung()
    assert not Path("out").exists()


@pytest.mark.learning
def test_evaluate_on_data_goes_on_without_the_task(
    stranger: Path, data: Path, sprung: Callable[[], bool], caplog
) -> None:
    with caplog.at_level(logging.WARNING):
        main(["evaluate", "--world", str(stranger), "--data", str(data), "--out", "out"])
    assert f"--task {NAME} allows it; going on without it" in caplog.text
    assert not sprung()
    results = json.loads(Path("out/results.json").read_text())
    assert results["reward_rate"] is None
    assert results["psnr"]["1"] > 20


@pytest.mark.learning
def test_an_agent_is_trained_without_the_task(stranger: Path, sprung: Callable[[], bool], caplog) -> None:
    with caplog.at_level(logging.WARNING):
        main(["agent", "--world", str(stranger), "--out", "out", *TINY_PPO])
    assert f"--task {NAME} allows it; going on without it" in caplog.text
    assert not sprung()
    assert json.loads(Path("out/results.json").read_text())["task"] is None


@pytest.mark.learning
def test_a_world_is_trained_from_data_without_the_task(
    data: Path, sprung: Callable[[], bool], caplog
) -> None:
    with caplog.at_level(logging.WARNING):
        main(["train", "--data", str(data), "--out", "out", "--labels", "0", *TINY_TRAINING])
    assert f"the data set {data} names the task '{NAME}'" in caplog.text
    assert not sprung()
    trained = flam_rl.load_world("out")
    assert trained.info.task == NAME
    env = gym.make("FLAM-v0", world=trained, control="all")
    env.reset(seed=0)
    env.step(env.action_space.sample())
    assert not sprung()


def test_data_without_its_spaces_is_not_opened(data: Path, sprung: Callable[[], bool], capsys) -> None:
    """Minari would make the env to know them."""
    read(data)
    for key in ("observation_space", "action_space"):
        change_metadata(data, lambda found, key=key: found.pop(key))
        with pytest.raises(
            ValueError, match=r"metadata\.json.* has no .*_space, and the environment .* is not made"
        ):
            read(data)
        with pytest.raises(SystemExit):
            main(["train", "--data", str(data), "--out", "out", "--labels", "0"])
        assert "_space" in capsys.readouterr().err.splitlines()[-1]
    assert not sprung()


@pytest.mark.parametrize("text", ["{", "[]", "[" * 100_000, '{"env_spec": 5}', '{"env_spec": "[1]"}'])
def test_damaged_metadata_is_named(text: str, data: Path, capsys) -> None:
    (data / "metadata.json").write_text(text)
    with pytest.raises(SystemExit):
        main(["train", "--data", str(data), "--out", str(data.parent / "out"), "--labels", "0"])
    assert f"{data / 'metadata.json'}" in capsys.readouterr().err.splitlines()[-1]


def test_what_the_user_names_is_made(stranger: Path, sprung: Callable[[], bool], capsys) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--world", str(stranger), "--task", NAME, "--out", "out"])
    assert (
        "its observations are Box(0.0, 1.0, (2,), float32), and it does not render" in capsys.readouterr().err
    )
    assert sprung()
