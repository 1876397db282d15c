"""results.json says what made it, and evaluation how it stands to the world's card."""

from __future__ import annotations

import json
import math
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import flam_rl
from flam_rl import results
from flam_rl.evaluation.card import card_figures, compare, comparison_text
from flam_rl.results import made_by, read_json, source_text, write_json, write_results

ROOT = Path(__file__).parent.parent


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@y", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def source_in(tree: Path, cwd: Path, **environment: str) -> dict:
    """What the package in `tree` says of itself to someone who runs it in `cwd`."""
    code = "import json, flam_rl.results as r; print(json.dumps([r.__file__, r.source()]))"
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    file, found = json.loads(run.stdout)
    assert Path(file).is_relative_to(tree)
    return found


def copy_code(tree: Path) -> None:
    """The modules that `source` needs."""
    (tree / "flam_rl").mkdir(parents=True)
    for name in ("__init__.py", "results.py", "files.py", "types.py"):
        shutil.copy(ROOT / "flam_rl" / name, tree / "flam_rl")


def test_made_by_says_what_can_change_a_figure() -> None:
    made = made_by(7)
    assert made["version"] == flam_rl.__version__
    assert made["python"] == platform.python_version()
    assert (made["torch"], made["numpy"]) == (torch.__version__, np.__version__)
    assert made["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert made["cpu"] in Path("/proc/cpuinfo").read_text() or made["cpu"] == platform.machine()
    assert made["threads"] == torch.get_num_threads()
    assert made["seed"] == 7
    if (ROOT / ".git").exists():
        assert made["commit"] == git(ROOT, "rev-parse", "HEAD")
    assert (
        source_text({"version": "1", "commit": "0" * 40, "dirty": True})
        == f"flam_rl 1, commit {'0' * 12} with changes"
    )
    assert source_text({"version": "1", "commit": None, "dirty": None}) == "flam_rl 1"


@pytest.mark.learning
def test_the_commit_is_the_packages_own_and_not_that_of_the_current_folder(tmp_path: Path) -> None:
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    copy_code(mine)
    (mine / "docs").mkdir()
    (mine / "docs" / "results.json").write_text("{}")
    theirs.mkdir()
    (theirs / "thesis.tex").write_text("...")
    for tree in (mine, theirs):
        git(tree, "init")
        git(tree, "add", ".")
        git(tree, "commit", "-m", "first")
    clean = {"commit": git(mine, "rev-parse", "HEAD"), "dirty": False}
    assert source_in(mine, theirs, GIT_DIR=str(theirs / ".git")) == clean
    (mine / "docs" / "results.json").write_text('{"written": "by the run before"}')
    (mine / "runs").mkdir()
    (mine / "runs" / "untracked").write_text("")
    assert source_in(mine, theirs) == clean
    (mine / "flam_rl" / "files.py").write_text((ROOT / "flam_rl" / "files.py").read_text() + "\n")
    assert source_in(mine, theirs) == clean | {"dirty": True}


@pytest.mark.learning
def test_outside_of_a_checkout_there_is_no_commit(tmp_path: Path) -> None:
    project = tmp_path / "project"
    copy_code(project / ".venv" / "site-packages")
    git(tmp_path, "init", str(project))
    (project / "thesis.tex").write_text("...")
    git(project, "add", "thesis.tex")
    git(project, "commit", "-m", "first")
    assert source_in(project / ".venv" / "site-packages", project) == {"commit": None, "dirty": None}
    copy_code(tmp_path / "plain")
    assert source_in(tmp_path / "plain", tmp_path) == {"commit": None, "dirty": None}


@pytest.mark.parametrize(
    ("argv", "command"),
    [
        (
            ["/home/me/.venv/bin/python3", "/home/me/.venv/bin/flam-rl", "demo", "--out", "a b"],
            "flam-rl demo --out 'a b'",
        ),
        (["/usr/bin/python", "-m", "flam_rl.cli", "train"], "python -m flam_rl.cli train"),
        (["python", "scripts/benchmark_speed.py", "--quick"], "python scripts/benchmark_speed.py --quick"),
    ],
)
def test_the_command_is_as_its_user_typed_it(
    argv: list[str], command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "orig_argv", argv)
    token = results.COMMAND.set(None)
    assert made_by(None)["command"] == command
    results.COMMAND.reset(token)


def test_results_are_written_with_what_made_them(tmp_path: Path) -> None:
    path = write_results(tmp_path / "new" / "folder", {"psnr": 1.0}, [0, 1])
    found = read_json(path)
    assert found["psnr"] == 1.0
    assert found["made_by"] == made_by([0, 1])
    assert [path.name for path in path.parent.iterdir()] == ["results.json"]
    assert read_json(write_json(tmp_path / "config.json", {"a": 1})) == {"a": 1}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 200_000])
def test_damaged_results_are_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"results\.json: (damaged|found a list)"):
        read_json(tmp_path / "results.json")


CARD = {
    "psnr": {"1": 67.9, "5": 67.5, "15": None},
    "dci": {"disentanglement": 1.0, "informativeness": 0.998},
    "disentanglement": {"disentanglement": 1.0, "informativeness": 0.945},
    "imagination_validity": {"1": 0.996},
    "masks": {"foreground_ari": 1.0},
    "transfer": None,
    "reward_rate": {"real": 0.115},
}


def test_a_world_that_falls_short_of_its_card_is_told() -> None:
    measured = {
        "psnr": {"1": 65.91, "5": 65.49, "15": 24.2},
        "dci": {"disentanglement": 0.981, "informativeness": 0.977},
        "disentanglement": {"disentanglement": 0.99, "informativeness": 0.9},
        "imagination_validity": {"1": 0.965},
        "masks": {"foreground_ari": 0.2},
        "transfer": {"same_heading": 0.1},
        "reward_rate": None,
    }
    found = compare(measured, CARD)
    assert found["falls_short"] == [
        "psnr 5",
        "dci informativeness",
        "disentanglement informativeness",
        "imagination_validity 1",
    ]
    assert {"name": "psnr 1", "measured": 65.91, "card": 67.9, "tolerance": 2.0} in found["figures"]
    assert {"name": "reward_rate real", "measured": None, "card": 0.115, "tolerance": None} in found[
        "figures"
    ]
    text = comparison_text(found)
    assert (
        "the world FALLS SHORT of its card: psnr 5, dci informativeness, disentanglement informativeness, imag"
        in text
    )
    assert "lower by 2.010, more than 2.0" in text
    json.dumps(found, allow_nan=False)


def test_a_world_that_is_as_its_card_says() -> None:
    better = CARD | {"psnr": {"1": 99.0, "5": 67.5, "15": None}}
    assert compare(better, CARD)["falls_short"] == []
    assert "no figure falls short of the card" in comparison_text(compare(better, CARD))
    assert "no figures to compare with" in comparison_text(compare(better, {}))
    assert compare(CARD | {"dci": {"disentanglement": math.nan}}, CARD)["falls_short"] == [
        "dci disentanglement"
    ]


def test_a_card_holds_what_was_measured() -> None:
    results = CARD | {"dci": {"disentanglement": math.nan}, "wall_s": 3.0}
    assert card_figures(results) == CARD | {"dci": {"disentanglement": None}}
