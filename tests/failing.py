"""Commands that are to fail with one line and status 2."""

from __future__ import annotations

from pathlib import Path

import pytest

from flam_rl.cli import main

COMMANDS = ["collect", "inspect", "train", "evaluate", "agent", "demo", "benchmark"]


def fails(args: list[str], capsys: pytest.CaptureFixture) -> str:
    """What is said of an error of use."""
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "Traceback" not in error
    lines = [line for line in error.splitlines() if line.startswith("flam-rl: ")]
    assert lines == error.splitlines()[-1:]
    return lines[0]


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def arguments(command: str, out: Path, data: Path) -> list[str]:
    given = [command, "--out", str(out)]
    if command == "benchmark":
        given += ["--budget", "tiny", "--work", str(out)]
    return given + (["--data", str(data)] if command in ("train", "inspect") else [])
