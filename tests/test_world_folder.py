"""A world folder from anyone: what is wrong with it is a ValueError that names file, field, what was found and what is
allowed, before memory is taken for it."""

from __future__ import annotations

import json
import random
import re
import subprocess
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import flam_rl
from flam_rl.core.registry import MODELS

Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def folder(world, tmp_path: Path) -> Path:
    flam_rl.save_world(world, tmp_path / "world")
    return tmp_path / "world"


def change_config(folder: Path, edit: Edit) -> None:
    config = json.loads((folder / "config.json").read_text())
    edit(config)
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder: Path, name: str, edit: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / name)
    edit(tensors)
    save_file(tensors, folder / name)


def refused(folder: Path, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        flam_rl.load_world(folder)
    assert str(error.value).startswith(str(folder))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (
            lambda c: c["settings"]["tokenizer"].update(patch=0),
            "tokenizer: .*patch is 0; allowed is 1 to 256",
        ),
        (lambda c: c["settings"]["tokenizer"].update(patch="8"), "tokenizer.patch: .*integer; found '8'"),
        (lambda c: c["settings"]["tokenizer"].update(patch=7), "64x64 do not divide into patches of 7"),
        (lambda c: c["settings"]["tokenizer"].update(patch=True), "tokenizer.patch: .*integer; found True"),
        (
            lambda c: c["settings"]["tokenizer"].update(codebook_size=10**15),
            "codebook_size is 10+; allowed is 1 to 32768",
        ),
        (
            lambda c: c["settings"]["tokenizer"].update(codebook_size=2**15, frame_size=[4096, 4096]),
            "numbers; allowed are",
        ),
        (
            lambda c: c["settings"]["tokenizer"].update(frame_size=[64]),
            "tokenizer.frame_size.1: the field is missing",
        ),
        (
            lambda c: c["settings"]["tokenizer"].update(frame_size=[64, -64]),
            "frame_size is .*; allowed are sides of 1 to 4096",
        ),
        (
            lambda c: c["settings"]["flam"]["factorizer"].update(factors=10**9),
            "factors is 10+; allowed is 1 to 256",
        ),
        (
            lambda c: c["settings"]["flam"]["factorizer"].update(factor_dim=63),
            "factor_dim is 63; allowed is a multiple of 4",
        ),
        (
            lambda c: c["settings"]["flam"]["aggregator"].update(layers=10**9),
            "layers is 10+; allowed is 1 to 64",
        ),
        (
            lambda c: c["settings"]["flam"]["aggregator"].update(kind="paper"),
            "flam.aggregator.kind: .*'competitive'.*'paper'",
        ),
        (lambda c: c["settings"]["flam"].update(pull=float("nan")), "flam.pull: .*finite number; found nan"),
        (
            lambda c: c["settings"]["flam"].update(flavour="mint"),
            "flam.flavour: no field of this name is allowed; found 'mint'",
        ),
        (lambda c: c["info"].update(horizon="abc"), "info.horizon: .*integer; found 'abc'"),
        (lambda c: c["info"].update(horizon=-5), "horizon is -5; allowed is 1 to 1000000"),
        (lambda c: c["info"].update(task=["a"]), r"info.task: .*string; found \['a'\]"),
        (lambda c: c["info"].update(task_kwargs=3), "info.task_kwargs: .*object; found 3"),
        (
            lambda c: c["info"].update(metrics={"psnr": {"1": "high"}}),
            "info.metrics.psnr.1: .*number; found 'high'",
        ),
        (lambda c: c.update(model="gan"), "model: .*'flam'.*found 'gan'"),
        (lambda c: c["settings"].update(tokenizer=[8]), r"tokenizer: .*object; found \[8\]"),
        (lambda c: c["settings"].pop("flam"), "settings.flam: the field is missing"),
        (lambda c: c.update(version="2"), "version: .*integer; found '2'"),
        (
            lambda c: c["labels"]["agents"].update(factors=[4]),
            r"labels.agents.factors is \[4\]; allowed are factors 0 to 3",
        ),
        (
            lambda c: c["labels"]["agents"].update(numbers=[[0], [0]]),
            r"numbers is \(\(0,\), \(0,\)\); allowed are 0 to 0, each once, one or more for each of 1 agents",
        ),
        (
            lambda c: c["labels"].update(reward_sees=[99]),
            r"labels.reward_sees is \[99\]; allowed are factors 0 to 3",
        ),
        (
            lambda c: c["labels"].update(reward_sees=[]),
            r"labels.reward_sees is \[\]; allowed are factors 0 to 3",
        ),
        (lambda c: c["labels"].update(termination_sees=[2, 2]), r"termination_sees is \[2, 2\]; .*each once"),
        (lambda c: c["labels"]["agents"].update(actions=4), "labels.agents.actions: .*object; found 4"),
        (
            lambda c: c["labels"]["agents"]["actions"].update(count=[0]),
            r"labels.agents.actions: .*count is \(0,\).*1 or more",
        ),
        (
            lambda c: c["labels"]["agents"]["actions"].update(count=[70_000]),
            "need 70000 inputs.*allowed is 1 to 65536",
        ),
        (
            lambda c: c["labels"]["agents"]["actions"].update(start=[]),
            "have 1 numbers; count, start, low and high are of 1, 0",
        ),
        (
            lambda c: c["labels"]["agents"]["actions"].update(kind="box"),
            "box actions of shape .* have 1 numbers",
        ),
        (lambda c: c["labels"].update(reward="much"), "labels.reward: .*'event' or 'dense'"),
    ],
)
def test_settings_that_cannot_be_are_named(folder: Path, edit: Edit, message: str) -> None:
    change_config(folder, edit)
    refused(folder, rf"config\.json: .*{message}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 200_000, "recursion limit"),
        ('{"version": 4, "info": ' + '{"a":' * 200_000, "recursion limit"),
        (json.dumps({"version": 4, "padding": "x" * 2**21}), r"is of \d+ bytes; allowed are 1048576"),
        ("{", "Invalid JSON"),
        ("[]", r"object; found \[\]"),
        ("null", "object; found None"),
        ('{"version": ' + "9" * 10_000 + "}", "version"),
        ("\0", "Invalid JSON"),
    ],
)
def test_what_is_no_config_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "config.json").write_text(text)
    refused(folder, rf"config\.json: .*{message}")


def test_bytes_that_are_no_text_are_refused(folder: Path) -> None:
    (folder / "config.json").write_bytes(b"\xff\xfe\x80")
    refused(folder, r"config\.json: .*Invalid JSON")


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("name", "tensor"),
    [("model.safetensors", "code_model.factorizer.slots_KS"), ("labels.safetensors", "reward.value")],
)
def test_numbers_that_are_none_are_refused(folder: Path, name: str, tensor: str, number: float) -> None:
    change_tensors(folder, name, lambda tensors: tensors[tensor].view(-1)[:1].fill_(number))
    refused(
        folder, rf"{name}: tensor '{tensor}' has 1 numbers that are NaN or infinite; allowed are finite ones"
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_nothing_is_cast(folder: Path, dtype: torch.dtype) -> None:
    name = "code_model.weight_V"
    change_tensors(folder, "model.safetensors", lambda t: t.update({name: t[name].to(dtype)}))
    refused(
        folder,
        rf"model\.safetensors: .*'{name}' is {dtype} of shape \(\d+,\); allowed is torch.float32 of shape \(\d+,\)",
    )


def test_tensors_that_are_missing_or_too_many_are_named(folder: Path) -> None:
    change_tensors(folder, "labels.safetensors", lambda tensors: tensors.update(more=torch.zeros(1)))
    refused(folder, r"labels\.safetensors: .*'more' is there, but nothing of that name is allowed")
    change_tensors(
        folder, "labels.safetensors", lambda tensors: (tensors.pop("more"), tensors.pop("reward.value"))
    )
    refused(folder, r"labels\.safetensors: .*'reward.value' is missing")


def test_what_a_head_sees_is_said_twice_alike(folder: Path) -> None:
    change_tensors(folder, "labels.safetensors", lambda tensors: tensors["reward.sees"].fill_(99))
    refused(
        folder,
        r"labels\.safetensors: tensor 'reward.sees' is \[99\]; allowed is \[\d\], as config\.json says",
    )


@pytest.mark.parametrize(
    ("starts", "message"),
    [
        (torch.full((3, 4, 64), 255, dtype=torch.uint8), r"codes 255 to 255; allowed are 0 to \d+"),
        (torch.full((3, 4, 64), -1, dtype=torch.int16), r"codes -1 to -1; allowed are 0 to \d+"),
        (
            torch.zeros((0, 4, 64), dtype=torch.uint8),
            r"shape \(0, 4, 64\); allowed is \(1 clip or more, 4 frames, 64 codes\)",
        ),
        (torch.zeros((3, 4, 63), dtype=torch.uint8), r"shape \(3, 4, 63\); allowed"),
        (torch.zeros((3, 5, 64), dtype=torch.uint8), r"shape \(3, 5, 64\); allowed"),
        (torch.zeros((4, 64), dtype=torch.uint8), r"shape \(4, 64\); allowed"),
        (torch.zeros((3, 4, 64)), "is torch.float32; allowed are"),
        (torch.full((3, 4, 64), float("nan")), "is torch.float32; allowed are"),
    ],
)
def test_starts_that_cannot_be_played_are_refused(folder: Path, starts: torch.Tensor, message: str) -> None:
    save_file({"starts": starts}, folder / "starts.safetensors")
    refused(folder, rf"starts\.safetensors: tensor 'starts' .*{message}")


@pytest.mark.learning
def test_a_size_that_the_files_do_not_hold_takes_no_memory(folder: Path) -> None:
    """Half a gigabyte asked for by a config whose files hold 4 MB."""
    change_config(folder, lambda config: config["settings"]["tokenizer"].update(hidden=2**14, code_dim=4096))
    code = f"""
import resource, torch, flam_rl
flam_rl.load_world("multigrid")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    flam_rl.load_world({str(folder)!r})
except ValueError as error:
    print(error)
    print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    message, grown = said.strip().splitlines()
    assert "model.safetensors: does not fit config.json" in message
    assert float(grown) < 20


def test_a_world_means_the_same_whatever_the_default_type_is(world, folder: Path) -> None:
    torch.set_default_dtype(torch.float64)
    try:
        loaded = flam_rl.load_world(folder)
        assert torch.get_default_dtype() == torch.float64
    finally:
        torch.set_default_dtype(torch.float32)
    before, after = world.state_dict(), loaded.state_dict()
    assert all(
        torch.equal(before[key], after[key]) and before[key].dtype == after[key].dtype for key in before
    )


VALUES = (
    *(
        None,
        True,
        0,
        -1,
        1,
        3,
        7,
        10**6,
        10**15,
        10**40,
        -(10**19),
        0.5,
        1e308,
        -0.0,
        float("nan"),
        float("inf"),
    ),
    *("", "abc", "os:system", "\0", [], [1], [[]], {}, {"a": 1}, [64, 64], [0, 1], [1e9], *MODELS),
)


def mutate_json(config: Any, rng: random.Random) -> None:
    """Change, remove or add something at a random place of `config`."""
    place = config
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        key = rng.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
            place = place[key]
            continue
        change = rng.random()
        if change < 0.15 and isinstance(place, dict):
            place[rng.choice(["x", "patch", "version", "labels"])] = deepcopy(rng.choice(VALUES))
        elif change < 0.25:
            del place[key]
        else:
            place[key] = deepcopy(rng.choice(VALUES))
        return


def mutate_bytes(content: bytes, rng: random.Random) -> bytes:
    """Some bytes flipped, the end cut off, or something put in."""
    kind = rng.randrange(4)
    # Headers are where lengths and types are said.
    at = rng.randrange(min(len(content), 4096) if rng.random() < 0.7 else len(content))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content[:at] + rng.randbytes(rng.randrange(1, 20)) + content[at:]
    changed = bytearray(content)
    for _ in range(rng.randrange(1, 4)):
        changed[rng.randrange(at, min(len(changed), at + 20))] = rng.randrange(256)
    return bytes(changed)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.learning) for seed in (1, 2, 3))])
def test_any_damage_is_harmless_or_said(folder: Path, seed: int) -> None:
    rng = random.Random(seed)
    whole = {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".md"}
    refused, played = set(), 0
    for _ in range(100):
        name = rng.choice(list(whole) + ["config.json"] * 3)
        if name == "config.json" and rng.random() < 0.7:
            config = json.loads(whole[name])
            for _ in range(rng.randrange(1, 3)):
                mutate_json(config, rng)
            (folder / name).write_text(json.dumps(config))
        else:
            (folder / name).write_bytes(mutate_bytes(whole[name], rng))
        try:
            loaded = flam_rl.load_world(folder)
        except ValueError as error:
            refused.add(re.sub(r"\d+", "", str(error)))
        else:
            played += 1
            assert all(tensor.isfinite().all() for tensor in loaded.state_dict().values())
            assert torch.isfinite(loaded.start(2).factors).all()
        (folder / name).write_bytes(whole[name])
    assert all(message.startswith(re.sub(r"\d+", "", str(folder))) for message in refused)
    assert len(refused) > 20
    assert played > 2


def test_nothing_in_a_world_folder_is_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "trap.py").write_text("from pathlib import Path\nPath('sprung').write_text('')\n")
    (folder / "trap.py").write_text((tmp_path / "trap.py").read_text())
    monkeypatch.delitem(sys.modules, "trap", raising=False)  # of another test
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    change_config(folder, lambda config: config["info"].update(task="trap:Trap-v0"))
    assert flam_rl.load_world(folder).info.task == "trap:Trap-v0"
    assert "trap" not in sys.modules
    assert not (tmp_path / "sprung").exists()
