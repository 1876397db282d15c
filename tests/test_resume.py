"""A checkpoint of an interrupted run that is damaged, or another run's: one ValueError that says what to do."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import flam_rl
from flam_rl.core.world import World
from flam_rl.models.tiles.clips import Clips, Codes, tokenize
from flam_rl.models.tiles.code_model import FLAMConfig
from flam_rl.models.tiles.tokenizer import TokenizerConfig
from flam_rl.models.tiles.tokenizer_training import TokenizerTrainingConfig, train_tokenizer
from flam_rl.models.tiles.training import WorldTrainingConfig, make_model, train_world
from flam_rl.training.checkpoints import Checkpoints
from flam_rl.training.run import Log
from flam_rl.types import Video

BRIEF = WorldTrainingConfig(steps=4, frames=32, checkpoint_every=2)


@pytest.fixture(scope="module")
def codes(video: Video) -> Codes:
    return tokenize(flam_rl.load_world("multigrid").model.tokenizer, Video(video.episodes[:6]))


@pytest.fixture(scope="module")
def saved(codes: Codes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("run") / "world.pt"
    go_on(flam_rl.load_world("multigrid"), codes, path)
    return path


def go_on(world: World, codes: Codes, path: Path, config: WorldTrainingConfig = BRIEF) -> None:
    model = make_model("flam", world.model.tokenizer, codes.episodes, FLAMConfig(), 0)
    with Log(None) as log:
        train_world(
            model,
            Clips(codes, 0),
            config,
            log,
            checkpoints=Checkpoints(path.parent, config.checkpoint_every),
        )


def refused(
    world: World, codes: Codes, path: Path, message: str, config: WorldTrainingConfig = BRIEF
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        go_on(world, codes, path, config)
    assert str(error.value).startswith(f"{path}: damaged, or of another run (")
    assert str(error.value).endswith("delete it to start anew")


def test_a_checkpoint_leaves_no_scratch_and_is_gone_on_from(
    world: World, codes: Codes, saved: Path, tmp_path: Path
) -> None:
    assert {path.name for path in saved.parent.iterdir()} == {"world.pt", "seconds.txt"}
    go_on(world, codes, Path(shutil.copy(saved, tmp_path)))


@pytest.mark.parametrize(
    "content",
    [b"", b"PK\x03\x04", b"not a checkpoint", b"\x80\x02cos\nsystem\n(S'touch sprung'\ntR.", b"{}" * 999],
)
def test_a_foreign_file_is_refused_and_not_run(
    world: World, codes: Codes, tmp_path: Path, content: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "world.pt").write_bytes(content)
    refused(world, codes, tmp_path / "world.pt", "delete it")
    assert not (tmp_path / "sprung").exists()


def test_a_checkpoint_cut_short_is_refused(world: World, codes: Codes, saved: Path, tmp_path: Path) -> None:
    content = saved.read_bytes()
    for share in (0.01, 0.5, 0.9, 0.9999):
        (tmp_path / "world.pt").write_bytes(content[: int(share * len(content))])
        refused(world, codes, tmp_path / "world.pt", "delete it")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s.update(step="3"), "step is '3'; allowed is 1 to 4"),
        (lambda s: s.update(step=-1), "step is -1; allowed is 1 to 4"),
        (lambda s: s.update(step=10**15), "step is 10+; allowed is 1 to 4"),
        (lambda s: s.pop("optimizer"), "optimizer"),
        (
            lambda s: s["model"]["weight_V"].fill_(float("nan")),
            "'weight_V' has .* numbers that are NaN or infinite",
        ),
        (
            lambda s: s["model"].update(weight_V=s["model"]["weight_V"].double()),
            "'weight_V' is torch.float64 of shape",
        ),
        (lambda s: s["model"].pop("weight_V"), "'weight_V' is missing"),
        (lambda s: s["model"].update(more=torch.zeros(1)), "'more' is there, but nothing"),
        (lambda s: s["optimizer"]["state"][0]["exp_avg"].fill_(float("inf")), "'exp_avg' has .* infinite"),
        (
            lambda s: s["optimizer"]["state"][0].update(exp_avg=torch.zeros(7)),
            r"'exp_avg' has shape \(7,\); allowed",
        ),
        (lambda s: s["optimizer"]["param_groups"][0]["params"].pop(), "doesn't match the size"),
        (lambda s: s.update(clips=torch.zeros(3)), "RNG"),
    ],
)
def test_a_checkpoint_of_another_run_says_what_does_not_fit(
    world: World,
    codes: Codes,
    saved: Path,
    tmp_path: Path,
    edit: Callable[[dict[str, Any]], Any],
    message: str,
) -> None:
    state = torch.load(saved, weights_only=True)
    edit(state)
    torch.save(state, tmp_path / "world.pt")
    refused(world, codes, tmp_path / "world.pt", message)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda s: s["schedule"].update(T_max=9), "T_max of a schedule is 9; allowed is 4"),
        (lambda s: s["schedule"].update(last_epoch=2), "a schedule is at step 2; allowed is 4"),
        (lambda s: s["schedule"].pop("eta_min"), "eta_min of a schedule is None; allowed is 2e-05"),
        (lambda s: s.update(patches=torch.zeros(3)), "RNG"),
        (lambda s: s["tokenizer"].popitem(), "is missing"),
    ],
)
def test_a_checkpoint_of_the_tokenizer_says_what_does_not_fit(
    video: Video, tmp_path: Path, edit: Callable[[dict[str, Any]], Any], message: str
) -> None:
    few, path = Video(video.episodes[:1]), tmp_path / "tokenizer.pt"

    def train() -> None:
        with Log(None) as log:
            config = TokenizerTrainingConfig(steps=4)
            device = torch.device("cpu")
            train_tokenizer(few, TokenizerConfig(), config, 0, device, log, Checkpoints(tmp_path))

    train()
    state = torch.load(path, weights_only=True)
    edit(state)
    torch.save(state, path)
    with pytest.raises(ValueError, match=message) as error:
        train()
    assert str(error.value).startswith(f"{path}: damaged, or of another run (")


@pytest.mark.learning
def test_any_damage_is_harmless_or_said(world: World, codes: Codes, saved: Path, tmp_path: Path) -> None:
    rng = random.Random(0)
    content = saved.read_bytes()
    path = tmp_path / "world.pt"
    said: list[str] = []
    for _ in range(60):
        changed = bytearray(content)
        # Half of it at the end, where the zip's table of contents is.
        low = len(content) - 8000 if rng.random() < 0.5 else 0
        at = rng.randrange(low, len(content))
        changed[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(0, 9))
        path.write_bytes(changed)
        try:
            go_on(world, codes, path, WorldTrainingConfig(steps=4, frames=32, checkpoint_every=1000))
        except ValueError as error:
            said.append(str(error))
    assert all(message.startswith(f"{path}: damaged, or of another run (") for message in said)
    assert len(said) > 20
