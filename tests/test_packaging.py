"""The wheel holds what the tree holds, and works outside of it."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

import flam_rl

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "--quiet",
        "-w",
        str(out),
        ".",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_wheel_holds_what_the_tree_holds(wheel: Path) -> None:
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    listed = subprocess.run(
        ["git", "ls-files", "flam_rl", "envs", "agents"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()
    tree = {f"flam_rl/{name}" if not name.startswith("flam_rl/") else name for name in listed}
    tree -= {"flam_rl/envs", "flam_rl/agents"}  # the symlinks
    assert packed == tree


@pytest.mark.learning
def test_wheel_and_sdist_are_what_a_registry_takes(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(tmp_path), "."]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    built = sorted(path.name for path in tmp_path.iterdir())
    assert [name.removeprefix(f"flam_rl-{flam_rl.__version__}") for name in built] == [
        "-py3-none-any.whl",
        ".tar.gz",
    ]
    check = [sys.executable, "-m", "twine", "check", "--strict", *(str(path) for path in tmp_path.iterdir())]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2


def test_the_citation_is_of_this_version() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == flam_rl.__version__
    assert citation["license"] == "MIT"
    assert citation["title"] == "flam_rl"
    (paper,) = citation["references"]
    assert paper["identifiers"][0]["value"] == "arXiv:2602.16229"


def test_every_shipped_picture_has_its_licence_stated() -> None:
    said = (ROOT / "docs" / "images" / "README.md").read_text()
    pictures = [path for path in (ROOT / "docs" / "images").iterdir() if path.suffix != ".md"]
    assert pictures
    assert [path.name for path in pictures if f"`{path.name}`" not in said] == []
    assert "MIT licence" in said


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the wheel is installed, apart from the repository."""
    site = tmp_path_factory.mktemp("site")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--no-deps",
        "--quiet",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, capture_output=True)
    return site


@pytest.mark.learning
@pytest.mark.parametrize(
    "code",
    [
        "import gymnasium as gym, flam_rl; env = gym.make('FLAM-v0')",
        "import gymnasium as gym; env = gym.make('flam_rl:FLAM-v0')",
    ],
)
def test_wheel_works_outside_of_the_repository(site: Path, tmp_path: Path, code: str) -> None:
    code += (
        "; import flam_rl; env.reset(seed=0); env.step(env.action_space.sample()); print(flam_rl.__file__)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(str(site))
