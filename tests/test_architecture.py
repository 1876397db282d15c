"""The house: which room may import which, and that importing it is cheap."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
BASE = {"actions", "types", "files", "progress", "results"}
ROOMS = {
    "actions": set(),
    "types": {"actions"},
    "files": set(),
    "progress": set(),
    "results": {"types", "files", "__version__"},
    "core": BASE,
    "data": BASE | {"core"},
    "training": BASE | {"core"},
    "models": BASE | {"core", "data", "training"},
    "grounding": BASE | {"core", "models", "training"},
    "evaluation": BASE | {"core", "models", "data"},
    "envs": {"actions", "types", "core"},
    "agents": BASE | {"core", "models", "training", "grounding", "envs"},
    "benchmark": BASE | {"core", "models", "data", "training", "grounding", "evaluation", "envs", "agents"},
}


def imported_rooms(path: Path, module: str) -> set[str]:
    """Rooms of flam_rl that a file imports, relative imports resolved."""
    found = set()
    package = module.split(".") if path.name == "__init__.py" else module.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            names = [*base, *(node.module or "").split(".")]
            if names[0] == "flam_rl":
                found |= {names[1]} if len(names) > 1 and names[1] else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {a.name.split(".")[1] for a in node.names if a.name.startswith("flam_rl.")}
    return found


def sources(room: str) -> list[Path]:
    folder = ROOT / room if room in ("envs", "agents") else ROOT / "flam_rl" / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("room", ROOMS)
def test_imports_point_one_way(room: str) -> None:
    base = ROOT if room in ("envs", "agents") else ROOT / "flam_rl"
    assert sources(room)
    for path in sources(room):
        module = "flam_rl." + ".".join(path.relative_to(base).with_suffix("").parts)
        module = module.removesuffix(".__init__")
        forbidden = imported_rooms(path, module) - ROOMS[room] - {room, "__future__"}
        assert not forbidden, f"{path} imports {forbidden}"


def test_import_checker_sees_relative_imports(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("from ..data.minari import episodes\nimport flam_rl.training.run\n")
    assert imported_rooms(path, "flam_rl.models.module") == {"data", "training"}


def test_import_is_fast_and_without_torch() -> None:
    code = (
        "import time, sys; began = time.perf_counter(); import flam_rl; "
        "print(time.perf_counter() - began, 'torch' in sys.modules)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        for _ in range(3)
    ]
    seconds, torch_loaded = zip(*(run.stdout.split() for run in runs), strict=True)
    assert set(torch_loaded) == {"False"}
    assert min(map(float, seconds)) < 0.5
