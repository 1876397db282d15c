"""The house: which room may import which, and that importing it is cheap."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, symlinks as they are."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("flam_rl", "envs", "agents"):
        unneeded = shutil.ignore_patterns("__pycache__", "*.safetensors")
        shutil.copytree(ROOT / name, folder / name, symlinks=True, ignore=unneeded)
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


@pytest.mark.parametrize(
    ("room", "line"),
    [
        ("flam_rl/core", "from ..models import rivals"),
        ("flam_rl/data", "import flam_rl.training.run"),
        ("flam_rl/models/tiles", "from ...grounding.adapter import ActionAdapter"),
        ("flam_rl/grounding", "from ..data import minari"),
        ("flam_rl/evaluation", "def measure():\n    from ..training import run"),
        ("envs/tasks", "from ...models.tiles import flam"),
        ("agents", "from ..commands import train"),
    ],
)
def test_imports_in_a_wrong_direction_are_found(copy: Path, room: str, line: str) -> None:
    wrong = copy / room / "wrong.py"
    wrong.write_text(line + "\n")
    ran = subprocess.run([sys.executable, "-c", LINT, "--no-cache"], cwd=copy, capture_output=True, text=True)
    wrong.unlink()
    assert ran.returncode == 1, ran.stdout
    name = ".".join(wrong.relative_to(copy).with_suffix("").parts)
    assert f"{name} -> " in ran.stdout


def test_importing_loads_nothing_beyond_gymnasium() -> None:
    code = (
        "import sys, gymnasium; before = set(sys.modules); import flam_rl; "
        "print(*{name.split('.')[0] for name in set(sys.modules) - before})"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert set(ran.stdout.split()) - sys.stdlib_module_names == {"flam_rl"}


@pytest.mark.parametrize("name", ["envs", "agents"])
def test_folders_at_the_top_say_what_to_import_instead(name: str) -> None:
    ran = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1] == f"ImportError: import flam_rl.{name} instead of {name}"
