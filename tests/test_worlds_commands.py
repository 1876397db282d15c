"""What tells people which worlds there are, what they are, and what this machine can do."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from failing import fails
from films import write_film

import flam_rl
from flam_rl.cli import COMMANDS, main
from flam_rl.commands import doctor
from flam_rl.core.card import card_of
from flam_rl.core.info import Origin
from flam_rl.results import made_by


@pytest.fixture(autouse=True)
def _no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of whoever runs the tests is listed."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def test_worlds_are_listed_with_their_figures(capsys) -> None:
    main(["worlds"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == flam_rl.shipped_worlds()
    assert "flam_rl/Pucks-v0" in lines[2]
    assert "41.1 / 40.0 / 36.0" in lines[2]
    assert len({line.find("shipped") for line in lines[1:-1]}) == 1  # aligned
    assert lines[-1] == "next: flam-rl info multigrid"


def test_worlds_are_listed_for_programs(capsys) -> None:
    main(["worlds", "--json"])
    rows = {row["world"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows.keys() == set(flam_rl.shipped_worlds())
    pucks = rows["pucks"]
    assert pucks["psnr"] == flam_rl.load_world("pucks").info.metrics["psnr"]
    assert (pucks["factors"], pucks["labels"], pucks["damaged"]) == (4, 0, None)
    assert 1e6 < pucks["bytes"] < 25e6


def test_a_cached_world_that_is_damaged_is_listed_with_the_reason(tmp_path: Path, capsys) -> None:
    folder = tmp_path / "hub" / "models--ada--pucks" / "snapshots" / ("a" * 40)
    world = flam_rl.load_world("pucks")
    flam_rl.save_world(world, folder)
    (folder / "config.json").write_text("{")
    main(["worlds"])
    said = capsys.readouterr().out
    assert f"hf://ada/pucks@{'a' * 40}: {folder / 'config.json'}: " in said
    assert "Invalid JSON" in said


@pytest.mark.parametrize("args", [["info", "pucks"], ["info", "--world", "pucks"]])
def test_info_says_what_made_the_figures(args: list[str], capsys) -> None:
    main(args)
    said = capsys.readouterr().out
    origin = flam_rl.load_world("pucks").info.origin
    assert origin is not None
    assert origin.commit is not None
    for told in (
        origin.commit[:12],
        origin.machine,
        origin.command,
        "11,552 frames without actions",
        "labels",
    ):
        assert told in said, told
    assert origin.figures in said
    assert said.splitlines()[-1] == "next: flam-rl play --world pucks"


def test_info_for_programs_holds_all_of_it(capsys) -> None:
    main(["info", "multigrid", "--json"])
    said = json.loads(capsys.readouterr().out)
    info = flam_rl.load_world("multigrid").info
    assert said["info"]["metrics"] == info.metrics
    assert said["info"]["origin"]["commit"] == info.origin.commit
    assert said["facts"]["labels"] == "1,000 transitions of Discrete(4); agent's factors [3]"


def test_what_a_world_says_of_itself_cannot_steer_a_terminal(tmp_path: Path, capsys) -> None:
    world = flam_rl.load_world("pucks")
    origin = replace(world.info.origin, command="\x1b[2J\x1b]0;mine\x07rm", figures="a\x9b1mb\r\nc")
    world.info = replace(world.info, task="\x1b[31mtask", origin=origin)
    flam_rl.save_world(world, tmp_path / "world")
    main(["info", str(tmp_path / "world")])
    said = capsys.readouterr().out
    assert "[2J]0;minerm" in said
    assert all(letter.isprintable() or letter == "\n" for letter in said)


def test_a_card_says_where_its_figures_come_from() -> None:
    world = flam_rl.load_world("pucks")
    origin = Origin.from_made_by(made_by(7), 1234, 90.0, "PSNR (dB)  1: 40.000")
    world.info = replace(world.info, origin=origin, license="cc-by-4.0")
    card = card_of(world)
    metadata, text = card.removeprefix("---\n").split("\n---\n", 1)
    assert (
        "library_name: flam_rl\npipeline_tag: reinforcement-learning\nlicense: cc-by-4.0\n" in metadata + "\n"
    )
    for told in (
        "1,234 frames",
        "1.5 minutes",
        "seed 7",
        origin.machine,
        "PSNR (dB)  1: 40.000",
        "## Limits",
    ):
        assert told in text, told
    world.info = replace(world.info, origin=None)
    assert "nothing was measured" in card_of(world)


def test_the_metadata_of_a_card_is_what_the_hub_reads(tmp_path: Path) -> None:
    cards = pytest.importorskip("huggingface_hub")
    flam_rl.save_world(flam_rl.load_world("multigrid"), tmp_path / "world")
    data = cards.ModelCard.load(tmp_path / "world" / "README.md").data
    assert (data.library_name, data.pipeline_tag, data.license) == (
        "flam_rl",
        "reinforcement-learning",
        "mit",
    )
    assert {"flam_rl", "world-model", "flam"} <= set(data.tags)


@pytest.mark.parametrize("license", ["MIT license", "", "mit\ntags: [x]", "a" * 99])
def test_a_licence_is_an_identifier(license: str) -> None:
    info = flam_rl.load_world("pucks").info
    with pytest.raises(ValueError, match="allowed is an identifier of the Hub, as mit"):
        replace(info, license=license)


def test_doctor_says_what_is_there_and_what_installs_the_rest(tmp_path: Path, monkeypatch, capsys) -> None:
    version = importlib.metadata.version

    def without_pymunk(name: str) -> str:
        if name == "pymunk":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "fastapi" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", without_pymunk)
    monkeypatch.setattr(doctor, "SECONDS", 0.2)
    main(["doctor", "--out", str(tmp_path / "out")])
    said = capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    for key in ("python", "torch", "cpu"):
        assert results["made_by"][key] in said
    rows = {line.split()[0]: line for line in said.splitlines() if line}
    assert "needs pymunk>=7" in rows["pucks"]
    assert rows["pucks"].endswith("pip install 'flam_rl[pucks]'")
    assert "needs fastapi>=0.115" in rows["play"]
    assert "installed" in rows["multigrid"]
    assert "pip install" not in rows["multigrid"]
    assert results["missing"]["pucks"] == ["pymunk>=7"]
    assert results["missing"]["multigrid"] == []
    one, many = (results["env_steps_per_second"][worlds] for worlds in ("1", "256"))
    assert 0 < one < many
    assert said.splitlines()[-2:] == [f"wrote {tmp_path / 'out' / 'results.json'}", "next: flam-rl worlds"]


def test_doctor_looks_at_out_first(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written: Not a directory" in fails(
        ["doctor", "--out", str(tmp_path / "file" / "x")], capsys
    )


def test_collect_and_inspect_end_with_what_they_wrote_and_a_next_command(tmp_path: Path, capsys) -> None:
    write_film(tmp_path / "my film.mp4", np.zeros((5, 64, 64, 3), np.uint8))
    main(["inspect", "--data", str(tmp_path / "my film.mp4"), "--out", str(tmp_path / "seen")])
    wrote, following = capsys.readouterr().out.splitlines()[-2:]
    assert wrote == f"wrote {tmp_path / 'seen' / 'results.json'}, contact_sheet.png and frames.npz"
    assert following == f"next: flam-rl train --data '{tmp_path / 'my film.mp4'}' --out runs/mine"
    main(["collect", "--out", str(tmp_path / "data"), "--steps", "10"])
    wrote, following = capsys.readouterr().out.splitlines()[-2:]
    assert wrote.startswith(f"wrote {tmp_path / 'data'}: ")
    assert following == f"next: flam-rl train --data {tmp_path / 'data'} --out runs/mine"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    assert stopped.value.code == 0
    help = " ".join(capsys.readouterr().out.split())
    assert f"Example: flam-rl {command} " in help or f"Examples: flam-rl {command} " in help


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_shell_completion_knows_every_command(shell: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        main(["--tyro-print-completion", shell])
    assert stopped.value.code in (0, None)
    script = capsys.readouterr().out
    for command in COMMANDS:
        assert command in script
    assert "--world" in script
    if shutil.which(shell):
        (tmp_path / "script").write_text(script)
        subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)
