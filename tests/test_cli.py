"""The flam-rl command end to end, on tiny budgets."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from films import scene, write_film

from flam_rl.actions import ActionSpace
from flam_rl.cli import main
from flam_rl.core.checkpoint import load_world
from flam_rl.core.world import World
from flam_rl.models.build import build_world

TINY_TRAINING = [
    "--tokenizer-training.steps",
    "200",
    "--world.steps",
    "8",
    "--world.prior-steps",
    "5",
    "--world.frames",
    "64",
    "--episodes",
    "3",
]
TINY_PPO = [
    "--imagination.steps",
    "1024",
    "--imagination.num-envs",
    "16",
    "--imagination.rollout",
    "16",
    "--imagination.batch",
    "128",
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    main(["collect", "--out", str(folder / "data"), "--steps", "700"])
    main(
        [
            "train",
            "--data",
            str(folder / "data"),
            "--out",
            str(folder / "run"),
            "--labels",
            "300",
            *TINY_TRAINING,
        ]
    )
    return folder


@pytest.mark.learning
def test_train_leaves_a_world_with_results_and_logs(run: Path) -> None:
    results = json.loads((run / "run" / "results.json").read_text())
    for key in (
        "psnr",
        "ssim",
        "reconstruction_psnr",
        "token_accuracy_changed",
        "kl_per_factor",
        "imagination_validity",
        "reward_rate",
        "wall_s",
        "peak_memory_mib",
    ):
        assert results[key] is not None, key
    assert list((run / "run" / "logs").glob("events*"))
    assert (run / "run" / "world" / "model.safetensors").exists()
    assert not (run / "run" / "unfinished").exists()
    made = results["made_by"]
    assert made["seed"] == 0
    assert made["command"].startswith(
        f"flam-rl train --data {run / 'data'} --out {run / 'run'} --labels 300 "
    )
    world = load_world(run / "run")
    assert set(world.info.metrics) == {
        "psnr",
        "dci",
        "disentanglement",
        "imagination_validity",
        "masks",
        "transfer",
        "reward_rate",
    }
    assert world.info.metrics["reward_rate"] == results["reward_rate"]
    assert world.labels is not None
    assert world.labels.agents.actions == ActionSpace.discrete(4)
    card = (run / "run" / "world" / "README.md").read_text()
    assert f"flam_rl {made['version']}" in card
    assert (made["commit"] or "")[:12] in card
    assert made["cpu"] in card
    assert made["instruction_set"] in card


@pytest.mark.learning
def test_deterministic_training_trains_the_same_world(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(*args: object, **kwargs: object) -> World:
        assert torch.are_deterministic_algorithms_enabled()
        return build_world(*args, **kwargs)

    monkeypatch.setattr("flam_rl.commands.train.build_world", build)
    main(
        [
            "train",
            "--data",
            str(run / "data"),
            "--out",
            str(tmp_path),
            "--deterministic",
            "--labels",
            "0",
            *TINY_TRAINING,
        ]
    )
    assert not torch.are_deterministic_algorithms_enabled()
    found, expected = (load_world(folder / "world").model.state_dict() for folder in (tmp_path, run / "run"))
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


@pytest.mark.learning
def test_train_a_rival_and_step_it(run: Path, tmp_path: Path) -> None:
    main(
        [
            "train",
            "--model",
            "adaworld",
            "--data",
            str(run / "data"),
            "--out",
            str(tmp_path),
            "--labels",
            "0",
            *TINY_TRAINING,
        ]
    )
    world = load_world(tmp_path)
    assert world.latent_actions == 1
    env = gym.make("FLAM-v0", world=world)
    env.reset(seed=0)
    observation, *_ = env.step(env.action_space.sample())
    assert observation in env.observation_space


@pytest.mark.learning
def test_evaluate_on_fresh_video(run: Path, capsys) -> None:
    out = run / "evaluated"
    main(
        [
            "evaluate",
            "--world",
            str(run / "run"),
            "--seed",
            "3",
            "--steps",
            "600",
            "--episodes",
            "3",
            "--out",
            str(out),
        ]
    )
    results = json.loads((out / "results.json").read_text())
    assert results["seed"] == results["made_by"]["seed"] == 3
    said = capsys.readouterr().out
    assert said.splitlines()[-1] == f"next: flam-rl agent --world {run / 'run'} --out runs/agent"
    assert "the world FALLS SHORT of its card" in said or "no figure falls short of the card" in said
    compared = {figure["name"]: figure for figure in results["card"]["figures"]}
    assert compared["psnr 15"]["card"] == load_world(run / "run").info.metrics["psnr"]["15"]
    assert compared["psnr 15"]["measured"] == results["psnr"]["15"]
    assert "reward_rate real" in compared
    assert set(results["psnr"]) == {"1", "5", "15", "floors"}
    assert set(results["psnr"]["floors"]["last_frame"]) == {"1", "5", "15"}
    assert set(results["foreground"]) == {"1", "5", "15"}
    assert results["tracking"]["entity_frames"] == 4 * results["frames"]
    assert {"random_identities", "nothing"} == set(results["tracking"]["floors"])
    assert re.search(r"^tracking +hota 0\.\d", said, re.M)
    assert re.search(r"^floor: last frame copied +1: 2\d\.", said, re.M)
    assert set(results["dci"]) == {"disentanglement", "completeness", "informativeness", "floors"}
    assert set(results["dci"]["floors"]) == {"chance", "factors_alone"}
    assert len(results["correspondence"]) == 4
    assert set(results["imagination_validity"]) == {"1", "10", "40", "floors"}
    assert set(results["reward_rate"]) == {"imagined", "real"}
    assert imageio.imread(out / "prediction.png").std() > 0
    assert imageio.imread(out / "correspondence.png").std() > 0


@pytest.mark.learning
def test_demo_writes_what_it_promises(tmp_path: Path, capsys) -> None:
    main(
        [
            "demo",
            "--out",
            str(tmp_path),
            "--episodes",
            "3",
            "--expert-episodes",
            "5",
            "--seed",
            "1",
            *TINY_PPO,
        ]
    )
    assert capsys.readouterr().out.splitlines()[-1] == "next: flam-rl play --world multigrid"
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["label_budget"] == 1000
    assert (results["seed"], results["episodes"]) == (1, 3)
    assert set(results["policies"]) == {"random", "bc", "latent_bc", "imagination", "expert"}
    for score in results["policies"].values():
        assert score["ci95"][0] <= score["success_rate"] <= score["ci95"][1]
    assert results["policies"]["expert"]["success_rate"] == 1.0
    assert imageio.imread(tmp_path / "demo.gif").shape[-1] == 3
    assert imageio.imread(tmp_path / "plot.png").std() > 0


@pytest.mark.learning
def test_agent_trains_in_a_world_and_is_scored(tmp_path: Path, capsys) -> None:
    main(["agent", "--out", str(tmp_path), "--episodes", "2", *TINY_PPO])
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"wrote {tmp_path / 'results.json'} and {tmp_path / 'policy.zip'}",
        "next: flam-rl play --world multigrid",
    ]
    assert json.loads((tmp_path / "results.json").read_text())["task"]["mean_return"] >= 0
    assert (tmp_path / "policy.zip").exists()


@pytest.mark.learning
def test_train_on_a_single_film_and_evaluate_on_others(tmp_path: Path, video) -> None:
    film = np.concatenate([episode[:30] for episode in video.episodes[:5]])
    write_film(tmp_path / "film.mp4", film)
    size = ["--files.height", "48", "--files.width", "64", "--files.fit", "crop", "--files.no-split-cuts"]
    main(
        [
            "train",
            "--model",
            "flam",
            "--data",
            str(tmp_path / "film.mp4"),
            "--out",
            str(tmp_path / "run"),
            *size,
            *TINY_TRAINING,
        ]
    )
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["dci"] is None
    assert results["psnr"]["1"] > 5
    assert results["training_frames"] == len(film) - round(0.1 * len(film))
    assert not (tmp_path / "run" / "world" / "labels.safetensors").exists()
    assert not (tmp_path / "run" / "frames.bin").exists()
    assert load_world(tmp_path / "run").frame_size == (48, 64)
    write_film(tmp_path / "wide.mp4", scene(40, 48, 128))
    out = tmp_path / "evaluated"
    main(
        [
            "evaluate",
            "--world",
            str(tmp_path / "run"),
            "--data",
            str(tmp_path / "wide.mp4"),
            "--out",
            str(out),
        ]
    )
    assert json.loads((out / "results.json").read_text())["frames"] == 40


def test_frame_sizes_that_make_no_patches_are_refused_at_the_start(tmp_path: Path, capsys) -> None:
    write_film(tmp_path / "film.mp4", scene(4))
    train = ["train", "--model", "flam", "--data", str(tmp_path), "--out", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        main([*train, "--files.height", "60"])
    assert "frames of 60x64 do not divide into patches of 8x8 pixels; give for example --files.height 64" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["evaluate", "--world", "atlantis", "--out", "x"], "no world 'atlantis'"),
        (
            ["train", "--data", "nowhere", "--out", "x"],
            "no readable video below nowhere: there is no such file",
        ),
        (["demo", "--world", "atlantis", "--out", "x"], "no world 'atlantis'"),
    ],
)
def test_errors_of_use_are_one_line_and_status_2(
    args: list[str], message: str, capsys, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error
