"""Errors of use: one line and status 2, at the start where they can be known there, and nothing half-written left."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch
from failing import COMMANDS, arguments, fails, names
from tiles import tile_world

import flam_rl
from flam_rl.cli import main
from flam_rl.core.info import WorldInfo
from flam_rl.data.minari_writing import write_dataset
from flam_rl.models.tiles.code_model import CodeFacts, FLAMConfig
from flam_rl.models.tiles.tokenizer import Tokenizer, TokenizerConfig
from flam_rl.results import read_json
from flam_rl.types import Episode, Video


@pytest.fixture
def data(tmp_path: Path, task: gym.Env, episodes: list[Episode]) -> Path:
    write_dataset(tmp_path / "data", task, episodes[:12])
    return tmp_path / "data"


@pytest.mark.parametrize("command", COMMANDS)
def test_an_out_below_a_file_is_refused_at_once(command: str, tmp_path: Path, data: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    before = names(tmp_path)
    said = fails(arguments(command, tmp_path / "file" / "run", data), capsys)
    assert "cannot be written: Not a directory" in said
    assert names(tmp_path) == before


def test_a_task_that_is_not_installed(
    tmp_path: Path, data: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "multigrid", None)
    for name in [
        name for name in sys.modules if name.startswith(("multigrid.", "flam_rl.envs.tasks.multigrid"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    for command in ("collect", "train", "evaluate", "agent", "demo"):
        said = fails(arguments(command, tmp_path / "run", data), capsys)
        assert "needs the package multigrid: pip install 'flam_rl[multigrid]'" in said
        assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("flam_rl/Nothing-v0", "Nothing"),
        ("nowhere:Env-v0", "nowhere"),
        ("no id at all", "Malformed|malformed"),
    ],
)
def test_a_task_that_cannot_be_made(task: str, message: str, tmp_path: Path, capsys) -> None:
    said = fails(["collect", "--out", str(tmp_path / "x"), "--task", task], capsys)
    assert any(part in said for part in message.split("|"))
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    "args", [["--debug", "evaluate", "--world", "no"], ["evaluate", "--world", "no", "--debug"]]
)
def test_debug_shows_where_an_error_was_raised(args: list[str], tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([*args, "--out", str(tmp_path)])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "in load_world" in error
    assert error.splitlines()[-1].startswith("flam-rl: no world 'no'")


def test_help_names_debug(capsys) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    assert "--debug" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("--flam.factorizer.factors 64", "factors is 64; allowed is 1 to 63"),
        ("--model flam --tokenizer.patch 7", "frames of 64x64 do not divide into patches of 7"),
        ("--model genie --tokenizer.patch 64", "do not divide into patches of 2x2"),
        ("--labels 1000000", "label budget is 1000000"),
        ("--task CartPole-v1", "the task 'CartPole-v1' with {'agents': 4} cannot be made"),
        ("--model oracle --flam.factorizer.factors 3", "the oracle has 3 entities"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_training(
    args: str, message: str, tmp_path: Path, data: Path, capsys
) -> None:
    assert message in fails(
        [*arguments("train", tmp_path / "run", data), "--labels", "100", *args.split()], capsys
    )
    assert names(tmp_path / "run") <= {"frames.bin", "frames.json"}  # for the same data read again


@pytest.mark.parametrize(
    ("command", "args", "message"),
    [
        ("train", "--factors 0", "factors is 0; allowed is 1 to 256"),
        ("train", "--flam.factorizer.factors 0", "--flam.factorizer: factors is 0; allowed is 1 to 256"),
        ("train", "--flam.factorizer.factor-dim 30", "factor_dim is 30; allowed is a multiple of 4"),
        ("train", "--tokenizer.codebook-size 1000000", "codebook_size is 1000000; allowed is 1 to 32768"),
        ("train", "--labels -1", "labels is -1; allowed is 0"),
        ("train", "--episodes 0", "episodes is 0; allowed is 1"),
        ("train", "--held-out 1", "held_out is 1.0; allowed is 0 to 0.9"),
        ("train", "--world.steps -1", "--world: steps is -1; allowed is 1 to 1000000000000"),
        ("train", "--world.steps many", "--world.steps: invalid literal for int() with base 10: 'many'"),
        ("train", "--world.clip-lengths 1", "clip_lengths are (1,); allowed are"),
        ("train", "--model gan", "invalid choice 'gan' for argument '--model'. Expected one of ("),
        ("evaluate", "--episodes 0", "episodes is 0; allowed is 1"),
        ("collect", "--steps 0", "steps is 0; allowed is 1"),
        ("agent", "--imagination.checks 0", "checks is 0; allowed is 1"),
        ("demo", "--labels 1", "labels is 1; allowed is 2"),
    ],
)
def test_values_that_are_not_allowed_are_refused(
    command: str, args: str, message: str, tmp_path: Path, capsys
) -> None:
    assert message in fails([*arguments(command, tmp_path / "run", tmp_path), *args.split()], capsys)
    assert not (tmp_path / "run").exists()


def test_options_that_are_missing_or_unknown_are_listed(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--colour", "red"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "--data PATH" in error
    assert "--colour" in error
    assert "Traceback" not in error


def test_the_place_of_the_world_is_looked_at_before_training(tmp_path: Path, data: Path, capsys) -> None:
    (tmp_path / "run" / "world").mkdir(parents=True)
    (tmp_path / "run" / "world" / "thesis.tex").write_text("...")
    said = fails([*arguments("train", tmp_path / "run", data), "--labels", "0"], capsys)
    assert "exists and is not a world" in said
    assert names(tmp_path / "run") == {"world", "world/thesis.tex"}


def test_labels_that_tell_nothing_are_refused_before_training(tmp_path: Path, capsys) -> None:
    buffers = [
        minari.data_collector.EpisodeBuffer(
            id=index,
            observations=np.random.default_rng(index).integers(0, 256, (9, 64, 64, 3), np.uint8),
            actions=np.zeros((8, 2), np.float32),
            rewards=np.zeros(8),
            terminations=np.zeros(8, bool),
            truncations=np.arange(8) == 7,
        )
        for index in range(4)
    ]
    storage = minari.dataset.minari_storage.MinariStorage.new(
        tmp_path / "data",
        observation_space=gym.spaces.Box(0, 255, (64, 64, 3), np.uint8),
        action_space=gym.spaces.Box(-1, 1, (2,), np.float32),
        data_format="parquet",
        jpeg_encoding=False,
    )
    storage.update_metadata({"dataset_id": "steer/me-v0", "minari_version": minari.__version__})
    storage.update_episodes(buffers)
    said = fails([*arguments("train", tmp_path / "run", tmp_path / "data"), "--labels", "8"], capsys)
    assert "labels must hold two different actions or more" in said
    assert "all 8 are [0. 0.]" in said
    assert not (tmp_path / "run" / "logs").exists()


def test_the_oracle_is_refused_films_before_training(tmp_path: Path, video: Video, capsys) -> None:
    from films import write_film

    (tmp_path / "films").mkdir()
    for index, episode in enumerate(video.episodes[:2]):
        write_film(tmp_path / "films" / f"{index}.mp4", episode[:9])
    said = fails([*arguments("train", tmp_path / "run", tmp_path / "films"), "--model", "oracle"], capsys)
    assert "is given true actions; films come without" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.learning
def test_evaluate_of_a_world_of_another_size(tmp_path: Path, data: Path, capsys) -> None:
    config, tokenizer = FLAMConfig(), Tokenizer(TokenizerConfig(), (64, 96))
    model = flam_rl.models.tiles.flam.FLAM(config, CodeFacts.blank(config, tokenizer.grid, 64, 192, 32))
    tokenizer.quantizer._codebook.embed.normal_()
    info = WorldInfo("flam_rl/MultiGrid-v0", {"agents": 4})
    wide = tile_world(tokenizer, model, torch.zeros((2, 4, 96), dtype=torch.uint8), info)
    flam_rl.save_world(wide, tmp_path / "wide")
    evaluate = ["evaluate", "--world", str(tmp_path / "wide"), "--out", str(tmp_path / "out")]
    assert "allowed are uint8 frames of (64, 96, 3)" in fails(evaluate, capsys)
    assert not (tmp_path / "out").exists()
    main([*evaluate, "--data", str(data)])
    results = read_json(tmp_path / "out" / "results.json")
    assert results["psnr"]["1"] > 0
    assert results["reward_rate"] is None


def test_a_damaged_run_is_named(tmp_path: Path, data: Path, capsys) -> None:
    run = tmp_path / "run"
    (run / "unfinished").mkdir(parents=True)
    (run / "config.json").write_text("{")
    tiny = "--model flam --tokenizer-training.steps 1 --world.steps 4 --labels 0"
    given = [*arguments("train", run, data), *tiny.split()]
    assert f"{run / 'config.json'}: damaged, no JSON" in fails(given, capsys)
    os.unlink(run / "config.json")
    assert "holds an interrupted run, but no config.json" in fails(given, capsys)
    (run / "unfinished").rmdir()
    (run / "logs").touch()  # no folder: it ends when it has begun
    fails(given, capsys)
    (run / "logs").unlink()
    (run / "unfinished" / "world.pt").write_bytes(b"")
    said = fails(given, capsys)
    assert f"{run / 'unfinished' / 'world.pt'}: damaged, or of another run" in said
    assert "delete it to start anew" in said
