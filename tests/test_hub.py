"""Worlds on the Hugging Face Hub: its real client, a stand-in for its server."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
import torch
from failing import fails, names
from hub_server import TOKEN, Hub, running_hub

import flam_rl
from flam_rl.cli import main
from flam_rl.core import hub as hub_module
from flam_rl.core.hub import HubAddress
from flam_rl.core.sources import MOST_BYTES, SHIPPED, WORLD_FILES

constants = pytest.importorskip("huggingface_hub.constants", reason="the extra hub is not installed")
pytestmark = pytest.mark.filterwarnings(
    "ignore:Use 'content=<...>' to upload:DeprecationWarning"
)  # its client's own


@pytest.fixture(scope="module")
def server() -> Iterator[Hub]:
    with running_hub() as hub:
        yield hub


def point_at(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What HF_ENDPOINT does when the client is imported."""
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


NOBODY = "http://127.0.0.1:1"
"""Where nobody listens."""


@pytest.fixture
def hub(server: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The stand-in, empty, for a user with an empty cache who is not logged in."""
    server.repositories.clear()
    server.requests.clear()
    server.listed_size = None
    server.cut = False
    point_at(server.address, monkeypatch)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    return server


@pytest.fixture
def login(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def unplugged(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever touches the network fails the test."""

    def refuse(*arguments: object, **named: object) -> None:
        pytest.fail(f"the network is touched: {arguments}")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def shipped(name: str = "pucks") -> dict[str, bytes]:
    return files_of(SHIPPED / name)


def same(one: flam_rl.core.world.World, other: flam_rl.core.world.World) -> bool:
    tensors = [world.state_dict() | world.stored_starts for world in (one, other)]
    return tensors[0].keys() == tensors[1].keys() and all(
        torch.equal(value, tensors[1][key]) for key, value in tensors[0].items()
    )


def test_a_world_comes_from_the_hub_and_only_its_files(hub: Hub, tmp_path: Path) -> None:
    extra = {
        "run.py": b"raise SystemExit",
        "model.pkl": b"no",
        "sub/config.json": b"{}",
        "pytorch_model.bin": b"no",
    }
    sha = hub.commit("ada/pucks", shipped() | extra)
    world = flam_rl.load_world("hf://ada/pucks")
    assert same(world, flam_rl.load_world("pucks"))
    assert world.source == f"hf://ada/pucks@{sha}"
    fetched = {
        path.name for path in (tmp_path / "cache").rglob("*") if "snapshots" in path.parts and path.is_file()
    }
    assert fetched == set(shipped())
    assert not [
        request for request in hub.requests if request.endswith(("run.py", ".pkl", ".bin", "sub/config.json"))
    ]


def test_what_is_cached_needs_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    sha = hub.commit("ada/pucks", shipped())
    flam_rl.load_world("hf://ada/pucks")
    hub.requests.clear()
    point_at(NOBODY, monkeypatch)
    assert flam_rl.load_world("hf://ada/pucks").source == f"hf://ada/pucks@{sha}"
    world = flam_rl.load_world(f"hf://ada/pucks@{sha}")
    assert world.source in gym.make("FLAM-v0", world=world, control="all").spec.to_json()
    main(["worlds"])
    assert f"hf://ada/pucks@{sha}" in capsys.readouterr().out
    assert hub.requests == []


def test_a_commit_that_is_cached_asks_nothing(hub: Hub) -> None:
    sha = hub.commit("ada/pucks", shipped())
    flam_rl.load_world("hf://ada/pucks")
    hub.requests.clear()
    flam_rl.load_world(f"hf://ada/pucks@{sha}")
    assert hub.requests == []


def test_what_another_program_cached_of_a_world_is_completed(hub: Hub) -> None:
    from huggingface_hub import hf_hub_download

    hub.commit("ada/pucks", shipped())
    hf_hub_download("ada/pucks", "config.json")
    assert flam_rl.load_world("hf://ada/pucks").factors == 4


def test_an_interrupted_download_is_completed_later(hub: Hub) -> None:
    hub.commit("ada/pucks", shipped())
    hub.cut = True
    with pytest.raises(OSError, match="hf://ada/pucks: the Hub answers 400: cut"):
        flam_rl.load_world("hf://ada/pucks")
    hub.cut = False
    assert flam_rl.load_world("hf://ada/pucks").factors == 4


def test_a_branch_moves_and_a_commit_does_not(hub: Hub) -> None:
    old = hub.commit("ada/world", shipped("pucks"))
    assert flam_rl.load_world("hf://ada/world").model.kind == "tracked"
    new = hub.commit("ada/world", shipped("multigrid"))
    hub.commit("ada/world", shipped("pucks"), branch="refs/pr/1")
    world = flam_rl.load_world("hf://ada/world")
    assert (world.model.kind, world.source) == ("flam", f"hf://ada/world@{new}")
    assert flam_rl.load_world(f"hf://ada/world@{old}").model.kind == "tracked"
    assert flam_rl.load_world("hf://ada/world@refs/pr/1").model.kind == "tracked"


def test_what_is_not_cached_and_out_of_reach_says_so(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    point_at(NOBODY, monkeypatch)
    with pytest.raises(
        OSError, match="hf://ada/pucks: the Hub cannot be reached, and the world is not cached"
    ):
        flam_rl.load_world("hf://ada/pucks")
    said = fails(["push", "pucks", "hf://ada/pucks"], capsys)
    assert "the Hub cannot be reached" in said


@pytest.mark.parametrize(
    "name", ["no/such/folder", "user/name", "no-such.zip", "hf:/user/name", Path("hf://a/b")]
)
def test_only_an_address_touches_the_network(hub: Hub, unplugged, name: str) -> None:
    with pytest.raises(ValueError, match="no world"):
        flam_rl.load_world(name)
    flam_rl.load_world("pucks")


def test_sizes_are_looked_at_before_anything_is_fetched(hub: Hub, tmp_path: Path) -> None:
    sha = hub.commit("ada/pucks", shipped())
    hub.listed_size = MOST_BYTES
    message = rf"hf://ada/pucks@{sha}: the world has 2,147,\d+,\d+ bytes; allowed are 1,073,741,824"
    with pytest.raises(ValueError, match=message):
        flam_rl.load_world("hf://ada/pucks")
    assert not [request for request in hub.requests if re.match("GET /(large|.*/resolve)/", request)]


@pytest.mark.parametrize(
    "address",
    [
        "hf://",
        "hf://user",
        "hf://user/name/more",
        "hf://user/name@",
        "hf://../name",
        "hf://user/..",
        "hf://user/name@../../../etc",
        "hf://user/name@refs/../../x",
        "hf://user/na me",
        "hf://user/name@main\n",
        "hf://us--er/name",
        "hf://user/name?x=1",
    ],
)
def test_what_is_no_address_is_refused(hub: Hub, unplugged, address: str) -> None:
    with pytest.raises(ValueError, match=r"is no address of the Hub; allowed is hf://user/name"):
        flam_rl.load_world(address)


def test_what_the_hub_has_not_is_named(hub: Hub) -> None:
    hub.commit("ada/secret", shipped(), private=True)
    hub.commit("ada/other", {"README.md": b"no world"})
    for name in ("ada/nothing", "ada/secret"):
        with pytest.raises(
            ValueError, match=f"hf://{name}: there is no such repository that you may read; .*log in"
        ):
            flam_rl.load_world(f"hf://{name}")
    with pytest.raises(ValueError, match="hf://ada/other@v9: the repository has no revision 'v9'"):
        flam_rl.load_world("hf://ada/other@v9")
    with pytest.raises(ValueError, match=r"hf://ada/other@\w{40} holds no world: it has no config.json"):
        flam_rl.load_world("hf://ada/other")


def test_a_damaged_world_of_the_hub_is_refused(hub: Hub) -> None:
    files = shipped()
    hub.commit("ada/pucks", files | {"model.safetensors": files["model.safetensors"][:1000]})
    with pytest.raises(ValueError, match=r"model\.safetensors: truncated or not safetensors"):
        flam_rl.load_world("hf://ada/pucks")


def test_push_makes_a_repository_of_exactly_a_world(hub: Hub, login: None, tmp_path: Path, capsys) -> None:
    run = tmp_path / "run"
    world = flam_rl.load_world("multigrid")
    flam_rl.save_world(world, run / "world")
    (run / "world" / "diary.txt").write_text("mine alone")
    main(["push", str(run), "hf://ada/rooms"])
    repository = hub.repositories["ada/rooms"]
    sha = repository.refs["main"]
    assert repository.commits[sha].keys() == {".gitattributes", *WORLD_FILES}
    assert len(repository.commits) == 2  # made empty, then all files at once
    said = capsys.readouterr()
    assert said.out.splitlines()[-2:] == [
        f"wrote hf://ada/rooms@{sha}",
        f"next: flam-rl pull hf://ada/rooms@{sha}",
    ]
    assert TOKEN not in said.out + said.err
    assert same(flam_rl.load_world("hf://ada/rooms"), world)


def test_push_again_deletes_what_a_world_no_longer_has(hub: Hub, login: None, tmp_path: Path) -> None:
    hub.commit("ada/rooms", shipped("multigrid") | {"notes.md": b"stays"})
    world = flam_rl.load_world("multigrid")
    world.labels = None
    flam_rl.save_world(world, tmp_path / "unlabelled")
    main(["push", str(tmp_path / "unlabelled"), "hf://ada/rooms@bare"])
    repository = hub.repositories["ada/rooms"]
    assert "labels.safetensors" in repository.commits[repository.refs["main"]]
    bare = repository.commits[repository.refs["bare"]]
    assert bare.keys() == {"notes.md", *WORLD_FILES} - {"labels.safetensors"}
    assert flam_rl.load_world("hf://ada/rooms@bare").labels is None


def test_push_without_a_login_or_a_world_is_refused(hub: Hub, tmp_path: Path, capsys) -> None:
    said = fails(["push", "pucks", "hf://ada/pucks"], capsys)
    assert "hf://ada/pucks" in said
    assert "log in with `hf auth login`" in said
    assert "no world 'atlantis'" in fails(["push", "atlantis", "hf://ada/pucks"], capsys)
    assert "is a commit, which stays as it is" in fails(
        ["push", "pucks", f"hf://ada/pucks@{'a' * 40}"], capsys
    )
    assert hub.repositories == {}


def test_pull_copies_a_world_and_info_says_its_commit(hub: Hub, tmp_path: Path, capsys) -> None:
    sha = hub.commit("ada/pucks", shipped() | {"run.py": b"raise SystemExit"})
    out = tmp_path / "theirs"
    main(["pull", "hf://ada/pucks", "--out", str(out)])
    assert names(out) == {"world", "results.json", *(f"world/{name}" for name in shipped())}
    assert not any(path.is_symlink() for path in out.rglob("*"))
    assert files_of(out / "world") == shipped()
    results = json.loads((out / "results.json").read_text())
    assert results["pulled_from"] == f"hf://ada/pucks@{sha}"
    assert results["made_by"]["version"] == flam_rl.__version__
    assert f"next: flam-rl info {out}" in capsys.readouterr().out
    main(["info", str(out)])
    assert f"hf://ada/pucks@{sha}" in capsys.readouterr().out
    main(["info", "hf://ada/pucks", "--json"])
    assert json.loads(capsys.readouterr().out)["facts"]["found at"] == f"hf://ada/pucks@{sha}"


def test_pull_does_not_replace_what_is_no_world(hub: Hub, tmp_path: Path, capsys) -> None:
    hub.commit("ada/pucks", shipped())
    (tmp_path / "world").mkdir()
    (tmp_path / "world" / "thesis.tex").write_text("...")
    assert "is not a world" in fails(["pull", "hf://ada/pucks", "--out", str(tmp_path)], capsys)
    assert hub.requests == []


def test_a_private_world_needs_the_login(hub: Hub, login: None, capsys) -> None:
    hub.commit("ada/secret", shipped(), private=True)
    main(["pull", "hf://ada/secret"])
    said = capsys.readouterr()
    assert "hf://ada/secret is hf://ada/secret@" in said.out
    assert TOKEN not in said.out + said.err


def test_without_the_extra_the_line_that_installs_it_is_said(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install 'flam_rl[hub]'" in fails(["pull", "hf://ada/pucks"], capsys)
    assert list(hub_module.cached()) == []
    flam_rl.load_world("pucks")


def test_addresses_say_what_they_are() -> None:
    assert str(HubAddress.parse("hf://ada/pucks@v1.0")) == "hf://ada/pucks@v1.0"
    assert HubAddress.parse("hf://ada/pucks") == HubAddress("ada/pucks")


@pytest.mark.learning
def test_push_pull_and_info_by_the_command(hub: Hub, tmp_path: Path) -> None:
    """As users have it: HF_ENDPOINT and HF_HOME in the environment, nothing patched."""
    environment = os.environ | {
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": TOKEN,
        "HF_HUB_DISABLE_XET": "1",
    }
    environment.pop("HF_HUB_CACHE", None)

    def run(*arguments: str, **more: str) -> str:
        command = [sys.executable, "-m", "flam_rl.cli", *arguments]
        done = subprocess.run(command, env=environment | more, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert TOKEN not in done.stdout + done.stderr
        return done.stdout

    run("push", "pucks", "hf://ada/pucks")
    sha = hub.repositories["ada/pucks"].refs["main"]
    assert f"hf://ada/pucks@{sha}" in run("pull", "hf://ada/pucks")
    assert f"hf://ada/pucks@{sha}" in run("info", "hf://ada/pucks", HF_HUB_OFFLINE="1")
    assert f"hf://ada/pucks@{sha}" in run("worlds", HF_ENDPOINT=NOBODY)
