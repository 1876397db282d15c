"""Disks that are read-only, full or fill up, folders that may not be written or go: one line, status 2, nothing half-written left,
and what was begun goes on when there is space again."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from failing import COMMANDS, arguments, fails, names
from films import scene, write_film

import flam_rl
from flam_rl.cli import main
from flam_rl.core.checkpoint import load_world
from flam_rl.core.world import World
from flam_rl.data.minari_writing import write_dataset
from flam_rl.files import written_whole
from flam_rl.grounding.adapter import ActionAdapter
from flam_rl.models.tiles.clips import tokenize
from flam_rl.results import read_json, write_results
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


def enlarge(mount: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=60m", str(mount)], check=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


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


@pytest.mark.learning
def test_a_disk_that_fills_up_while_recording_goes_on_with_space(mount: Path, tmp_path: Path, capsys) -> None:
    given = ["collect", "--out", str(mount / "data"), "--steps", "1000"]
    said = fails(given, capsys)
    assert "No space left on device" in said
    assert {name.split("/")[0] for name in names(mount)} == {".data-unfinished"}
    recorded = read_json(mount / ".data-unfinished" / "progress.json")["episodes"]
    assert recorded > 0
    enlarge(mount)
    main(given)
    main([*given[:2], str(tmp_path / "whole" / "data"), *given[3:]])
    found, whole = contents(mount), contents(tmp_path / "whole")
    for folder in (found, whole):
        del folder["data/metadata.json"]  # it counts the sizes of folders, which differ from disk to disk
    assert found == whole


def test_a_disk_that_fills_up_while_training(mount: Path, data: Path, capsys) -> None:
    tiny = (
        "--tokenizer-training.steps 1 --world.steps 4 --world.checkpoint-every 1 --world.frames 32 --labels 0"
    )
    said = fails([*arguments("train", mount / "run", data), *tiny.split()], capsys)
    assert "No space left on device" in said
    assert not [name for name in names(mount) if ".part" in name or "run/world/" in name]


@pytest.mark.learning
def test_an_agent_goes_on_when_there_is_space_again(mount: Path, capsys) -> None:
    tiny = "--imagination.steps 512 --imagination.num-envs 8 --imagination.rollout 16 --imagination.batch 64"
    given = ["agent", "--out", str(mount / "run"), "--episodes", "1", *tiny.split()]
    said = fails(given, capsys)
    assert "No space left on device" in said
    assert str(mount / "run" / "unfinished" / "imagination.pt") in said
    assert not [name for name in names(mount) if ".part" in name or "policy" in name]
    enlarge(mount)
    main(given)
    assert {"results.json", "policy.zip"} <= {path.name for path in (mount / "run").iterdir()}
    assert not [name for name in names(mount) if ".part" in name or "unfinished" in name]


@pytest.fixture
def films(tmp_path: Path) -> Path:
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_film(tmp_path / "films" / name, scene(10))
    return tmp_path / "films"


def train(films: Path, out: Path, *more: str) -> list[str]:
    """Frames of 16x16, which take no space; it is the weights that do."""
    tiny = (
        "--model flam --factors 2 --labels 0 --files.height 16 --files.width 16 --tokenizer-training.steps 10 --world.steps 8 "
        "--world.prior-steps 4 --world.checkpoint-every 4 --world.frames 32"
    )
    return ["train", "--data", str(films), "--out", str(out), *tiny.split(), *more]


def weights(run: Path) -> bytes:
    return (run / "world" / "model.safetensors").read_bytes()


@pytest.mark.learning
def test_a_run_goes_on_when_there_is_space_again_and_an_old_world_stays_until_then(
    mount: Path, films: Path, tmp_path: Path, capsys
) -> None:
    run = mount / "run"
    said = fails(train(films, run), capsys)
    assert "No space left on device" in said
    assert str(run) in said
    assert not [name for name in names(mount) if ".part" in name or "world/" in name]
    enlarge(mount)
    main(train(films, run))
    main(train(films, tmp_path / "elsewhere"))
    assert weights(run) == weights(tmp_path / "elsewhere")
    old, results = weights(run), (run / "results.json").read_bytes()
    left = shutil.disk_usage(mount).free
    (mount / "filling").write_bytes(bytes(left - 200_000))
    capsys.readouterr()
    again = train(films, run, "--overwrite", "--world.learning-rate", "1e-3")
    assert "No space left on device" in fails(again, capsys)
    assert (weights(run), (run / "results.json").read_bytes()) == (old, results)
    load_world(run)
    (mount / "filling").unlink()
    main(again)
    assert weights(run) != old
    assert not [name for name in names(run) if name.startswith(".") or "unfinished" in name]


def without_privileges() -> None:
    """Permissions hold for this process, also if root runs it."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None)
        drop, override, read = 24, 1, 2  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
        assert libc.prctl(drop, override, 0, 0, 0) == libc.prctl(drop, read, 0, 0, 0) == 0


def starts(args: list[str]) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-m", "flam_rl.cli", *args],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=without_privileges,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )


def says(running: subprocess.Popen) -> str:
    """The one line that is said of an error of use."""
    said = running.communicate()[1]
    assert running.returncode == 2, said
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.learning
def test_a_run_in_folders_that_may_not_be_written_says_which(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "closed" / "run"
    out.mkdir(parents=True)
    out.chmod(0o555)
    said = says(starts(train(films, out)))
    assert said == f"flam-rl: --out {out} cannot be written: Permission denied ({out})"
    assert names(out) == set()
    out.chmod(0o755)
    running = starts(train(films, out))
    while running.poll() is None and not (out / "unfinished" / "tokenizer.pt").exists():
        time.sleep(0.01)
    (out / "unfinished").chmod(0o555)
    said = says(running)
    assert "Permission denied" in said
    assert str(out / "unfinished") in said
    assert not [name for name in names(out) if ".part" in name]
    (out / "unfinished").chmod(0o755)
    main(train(films, out))
    load_world(out)


@pytest.mark.learning
def test_a_folder_that_is_removed_while_a_run_writes_to_it_is_named(films: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    running = starts(train(films, out))
    while running.poll() is None and not (out / "unfinished" / "tokenizer.pt").exists():
        time.sleep(0.01)
    while out.exists():
        shutil.rmtree(out, ignore_errors=True)
    said = says(running)
    assert "No such file or directory" in said
    assert str(out) in said
    main(train(films, out))
    load_world(out)


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


@pytest.mark.learning
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
    assert {name.split("/")[0] for name in names(tmp_path)} <= {".data-unfinished"}
    subprocess.run(command, capture_output=True, check=True)
    assert "data/metadata.json" in names(tmp_path)
    assert ".data-unfinished" not in names(tmp_path)


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
