"""A world in a zip: anyone's, so nothing but a world's files comes out of it, and nothing stays behind."""

from __future__ import annotations

import io
import stat
import tempfile
import zipfile
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from failing import names

import flam_rl
from flam_rl.cli import main
from flam_rl.core import archive, sources

FILES = {path.name: path.read_bytes() for path in (sources.SHIPPED / "pucks").iterdir()}


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where temporary folders go."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as packed:
        for name, content in files.items():
            packed.writestr(name, content)
    return path


@pytest.mark.parametrize("below", ["", "world/", "runs/mine/world/"])
def test_a_zip_holds_the_same_world(below: str, tmp_path: Path, scratch: Path) -> None:
    more = {"runs/mine/config.json": b"{}", "runs/mine/logs/events": b"x"} if below.startswith("runs") else {}
    path = zipped(tmp_path / "w.zip", {below + name: content for name, content in FILES.items()} | more)
    world, expected = flam_rl.load_world(path), flam_rl.load_world("pucks")
    tensors = expected.state_dict() | expected.stored_starts
    assert all(
        torch.equal((world.state_dict() | world.stored_starts)[name], tensors[name]) for name in tensors
    )
    assert world.info == expected.info
    assert world.source == str(path)
    assert names(scratch) == set()
    env = gym.make("FLAM-v0", world=world, control="all")
    assert str(path) in env.spec.to_json()


def test_the_command_line_takes_a_zip(tmp_path: Path, capsys) -> None:
    path = zipped(tmp_path / "w.zip", FILES)
    main(["info", str(path)])
    said = capsys.readouterr().out
    assert "flam_rl/Pucks-v0" in said
    assert said.splitlines()[-1] == f"next: flam-rl play --world {path}"


def refused(path: Path, message: str) -> None:
    before = names(path.parent)
    with pytest.raises(ValueError, match=message) as error:
        flam_rl.load_world(path)
    assert str(path) in str(error.value)
    assert names(path.parent) == before


@pytest.mark.parametrize("name", ["../config.json", "world/../../evil", "/etc/evil", "C:\\evil", "..\\evil"])
def test_a_path_that_leads_out_is_refused(name: str, tmp_path: Path) -> None:
    refused(zipped(tmp_path / "w.zip", FILES | {name: b"{}"}), "leads out of the archive")


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFIFO, stat.S_IFCHR])
def test_links_and_special_files_are_refused(kind: int, tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.zip", {name: c for name, c in FILES.items() if name != "README.md"})
    link = zipfile.ZipInfo("README.md")
    link.create_system, link.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr(link, "/etc/passwd")
    refused(path, "'README.md' is a link or another special file")


def test_a_bomb_is_refused_by_the_size_that_it_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "MOST_BYTES", 10 * 2**20)
    path = zipped(tmp_path / "w.zip", FILES | {"starts.safetensors": bytes(20 * 2**20)})
    assert path.stat().st_size < 4 * 2**20
    refused(path, r"the world in it has 2\d,\d+,\d+ bytes; allowed are 10,485,760")


def test_a_bomb_that_lies_about_its_size_ends_there(tmp_path: Path, scratch: Path) -> None:
    """What is unpacked is never more than the size that was looked at."""
    path = zipped(tmp_path / "w.zip", FILES | {"starts.safetensors": bytes(20 * 2**20)})
    size, lie = (20 * 2**20).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    assert path.read_bytes().count(size) == 2
    path.write_bytes(path.read_bytes().replace(size, lie))
    refused(path, "damaged")


def test_many_entries_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "MOST_ENTRIES", 100)
    path = zipped(tmp_path / "w.zip", FILES | {f"logs/{n}": b"" for n in range(100)})
    refused(path, "lists 10[345] files; allowed are 100")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.zip", FILES)
    with zipfile.ZipFile(path, "a") as packed:
        packed.writestr("config.json", b"{}")
    refused(path, "holds a file twice")


def test_no_world_or_several_are_refused(tmp_path: Path) -> None:
    refused(zipped(tmp_path / "none.zip", {"config.json": b"{}"}), "holds no world, .*; allowed is one")
    two = {folder + name: content for folder in ("a/", "b/") for name, content in FILES.items()}
    refused(zipped(tmp_path / "two.zip", two), r"holds 2 worlds, in \['a', 'b'\]; allowed is one")


def test_an_encrypted_file_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.zip", FILES)
    content = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + place] |= 1
    path.write_bytes(content)
    refused(path, "is encrypted")


@pytest.mark.parametrize("keep", [0, 10, 100, 1000, 10**6])
def test_what_is_no_zip_or_cut_short_is_refused(keep: int, tmp_path: Path) -> None:
    whole = zipped(tmp_path / "w.zip", FILES).read_bytes()
    (tmp_path / "w.zip").write_bytes(whole[:keep])
    refused(tmp_path / "w.zip", "no zip, damaged")


def test_damaged_bytes_are_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "w.zip", FILES, zipfile.ZIP_STORED)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    refused(path, "Bad CRC-32")


def test_what_is_wrong_in_a_file_names_the_zip(tmp_path: Path, scratch: Path) -> None:
    path = zipped(tmp_path / "w.zip", FILES | {"config.json": b"{"})
    refused(path, r"w\.zip/config\.json: .*Invalid JSON")


def test_a_zip_of_another_kind_is_read_too(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_LZMA) as archived:
        for name, content in FILES.items():
            archived.writestr(name, content)
    (tmp_path / "world").write_bytes(packed.getvalue())  # whatever its name
    assert flam_rl.load_world(tmp_path / "world").factors == 4
