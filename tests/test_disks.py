"""Disks that are read-only, full or fill up: one line, status 2, and nothing half-written left."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from failing import COMMANDS, arguments, fails, names

import flam_rl
from flam_rl.core.world import World
from flam_rl.data.minari_writing import write_dataset
from flam_rl.files import written_whole
from flam_rl.grounding.adapter import ActionAdapter
from flam_rl.models.tiles.clips import tokenize
from flam_rl.results import write_results
from flam_rl.types import Episode, Video


@pytest.fixture
def data(tmp_path: Path, task: gym.Env, episodes: list[Episode]) -> Path:
    write_dataset(tmp_path / "data", task, episodes[:12])
    return tmp_path / "data"


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True
    )
    if made.returncode:
        pytest.skip("mounting is not permitted here; the limit on file sizes is tested instead")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_read_only_disk_is_refused_at_once(command: str, mount: Path, data: Path, capsys) -> None:
    subprocess.run(["mount", "-o", "remount,ro", str(mount)], check=True)
    said = fails(arguments(command, mount / "run", data), capsys)
    assert "cannot be written: Read-only file system" in said
    assert names(mount) == set()


def test_a_folder_of_the_kernel_is_refused(data: Path, capsys) -> None:
    assert "cannot be written" in fails(arguments("train", Path("/proc/run"), data), capsys)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_full_disk_is_refused_at_once(command: str, mount: Path, data: Path, capsys) -> None:
    with pytest.raises(OSError, match="No space left"):
        (mount / "full").write_bytes(bytes(2**20))
    said = fails(arguments(command, mount / "run", data), capsys)
    assert "cannot be written: No space left on device" in said
    assert names(mount) == {"full"}


def test_a_disk_that_fills_up_while_recording(mount: Path, capsys) -> None:
    said = fails(["collect", "--out", str(mount / "data"), "--steps", "3000"], capsys)
    assert "No space left on device" in said
    assert names(mount) == set()


def test_a_disk_that_fills_up_while_training(mount: Path, data: Path, capsys) -> None:
    tiny = (
        "--tokenizer-training.steps 1 --world.steps 4 --world.checkpoint-every 1 --world.frames 32 --labels 0"
    )
    said = fails([*arguments("train", mount / "run", data), *tiny.split()], capsys)
    assert "No space left on device" in said
    assert not [name for name in names(mount) if ".part" in name or "checkpoint" in name]


def test_a_disk_that_fills_up_while_an_agent_is_saved(mount: Path, capsys) -> None:
    (mount / "filling").write_bytes(bytes(300_000))
    tiny = "--imagination.steps 256 --imagination.num-envs 8 --imagination.rollout 16 --imagination.batch 64"
    said = fails(["agent", "--out", str(mount), "--episodes", "1", *tiny.split()], capsys)
    assert "No space left on device" in said
    assert "policy.zip" in said
    assert not [name for name in names(mount) if ".part" in name or "policy" in name]


def test_nothing_that_is_written_whole_leaves_a_part_on_a_full_disk(
    mount: Path, world: World, video: Video, labelled
) -> None:
    (mount / "full").write_bytes(bytes(340_000))
    before = names(mount)
    adapter = ActionAdapter(world.labels.agents, (1.0,), (1.0,), 1)
    for write in (
        lambda: flam_rl.save_world(world, mount / "world"),
        lambda: write_results(mount, {"long": "x" * 10**6}, 0),
        lambda: [adapter.save(mount / f"adapter{i}.safetensors") for i in range(9)],
        lambda: tokenize(world.model.tokenizer, Video(video.episodes * 2), mount / "codes.npy"),
    ):
        with pytest.raises(OSError, match="No space left on device"):
            write()
        for left in names(mount) - before:
            assert left.startswith("adapter"), left
            (mount / left).unlink()


def test_a_file_larger_than_is_permitted(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    command = [
        sys.executable,
        "-m",
        "flam_rl.cli",
        "collect",
        "--steps",
        "600",
        "--out",
        str(tmp_path / "data"),
    ]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("flam-rl: ")
    assert "File too large" in done.stderr.splitlines()[-1]
    assert names(tmp_path) == set()


def test_an_interrupted_write_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("before")

    def write(interrupted: bool) -> None:
        with written_whole(tmp_path / "file.txt") as scratch:
            assert scratch.suffix == ".txt"
            scratch.write_text("after")
            if interrupted:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(True)
    assert names(tmp_path) == {"file.txt"}
    assert (tmp_path / "file.txt").read_text() == "before"
    write(False)
    assert (tmp_path / "file.txt").read_text() == "after"
