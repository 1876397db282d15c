"""The player's server, which no message breaks, and the command that starts it."""

from __future__ import annotations

import gc
import io
import json
import random
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import suites
import torch
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus

suites.need("fastapi", "play")
suites.need("uvicorn", "play")
suites.need("websockets", "play")

from pages import Page, Served, serve  # noqa: E402

from flam_rl.player import messages  # noqa: E402
from flam_rl.player.stage import Stage  # noqa: E402
from flam_rl.player.visitors import AWAY_S, MOST, Visitors  # noqa: E402


@pytest.fixture(scope="module")
def served(stage: Stage) -> Iterator[Served]:
    with serve(stage) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def ask(url: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): v for name, v in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_a_page_is_served_and_its_world_steps(served: Served) -> None:
    status, html = ask(served.origin + "/")
    assert status == 200
    assert b"flam-rl play" in html
    for name in ("player.js", "player.css", "chart.js"):
        assert ask(f"{served.origin}/{name}")[0] == 200
    for name in ("../visit.py", "visit.py", "docs", "openapi.json", "%2e%2e/server.py"):
        assert ask(f"{served.origin}/{name}")[0] == 404
    page = Page(served)
    assert page.hello["world"] == "multigrid"
    assert page.hello["task"] == "flam_rl/MultiGrid-v0"
    page.say("control", indices=[3, 0])
    page.say("hold", keys=[[3, 0], [0, 1]])
    page.until(lambda facts: facts["acting"] == [0, 3] and facts["step"] > 3)
    page.say("run", on=False)
    paused = page.until(lambda facts: not facts["running"]).facts["step"]
    page.say("step")
    assert page.until(lambda facts: facts["step"] != paused).facts["step"] == paused + 1
    page.say("undo", steps=3)
    assert page.until(lambda facts: facts["step"] < paused).facts["step"] == paused - 2
    page.say("record", on=True)
    page.say("step")
    page.say("step")
    page.until(lambda facts: facts["step"] == paused)
    page.say("record", on=False)
    page.until(lambda facts: facts["recording"] is None)
    assert page.answers[-1]["frames"] == 3
    status, film = ask(f"{served.origin}/film/{page.hello['visit']}.mp4")
    assert status == 200
    assert film[4:8] == b"ftyp"
    assert ask(f"{served.origin}/film/{page.hello['visit']}.json")[0] == 200
    assert ask(f"{served.origin}/film/somebody.mp4")[0] == 404
    page.say("restart", seed=-1)
    page.next()
    assert page.answers[-1] == {"kind": "error", "text": page.answers[-1]["text"]}
    page.close()


def test_a_dropped_connection_resumes_within_a_minute(stage: Stage) -> None:
    now = 0.0
    visitors = Visitors(lambda: now)
    with serve(stage, None, visitors) as served:
        page = Page(served)
        step = page.until(lambda facts: facts["step"] >= 5).facts["step"]
        page.socket.socket.shutdown(socket.SHUT_RDWR)  # without a word
        page.close()
        while not any(one.left is not None for one in visitors._by_id.values()):
            time.sleep(0.01)
        now = AWAY_S - 1
        again = Page(served, page.hello["visit"])
        assert again.hello["resumed"]
        assert again.view.facts["step"] >= step
        other = Page(served, page.hello["visit"])  # another window with the same world
        with pytest.raises(ConnectionClosed) as closed:
            again.until(lambda facts: False)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4001
        other.close()
        while len(visitors) and next(iter(visitors._by_id.values())).left is None:
            time.sleep(0.01)
        now += AWAY_S + 1
        late = Page(served, page.hello["visit"])
        assert not late.hello["resumed"]
        assert late.hello["visit"] != page.hello["visit"]
        assert len(visitors) == 1
        late.close()


@pytest.mark.learning
def test_there_is_room_for_so_many_visitors(stage: Stage) -> None:
    with serve(stage) as served:
        pages = [Page(served) for _ in range(MOST)]
        for page in pages:
            page.say("run", on=False)
        with pytest.raises(ConnectionClosed, match="too many visitors"):
            served.connect().recv(60)
        pages[3].close()
        while all(one.left is None for one in list(served.visitors._by_id.values())):
            time.sleep(0.01)
        one_more = Page(served)
        assert len(served.visitors) == MOST
        for page in [*pages, one_more]:
            page.close()


def test_only_this_machine_and_pages_of_this_server_are_served(served: Served) -> None:
    assert ask(served.origin + "/", Host="evil.example")[0] == 403
    assert ask(served.origin + "/", Host=f"localhost:{served.port}")[0] == 200
    post = f"{served.origin}/start?visit=x"
    assert ask(post, b"x")[0] == 403
    assert ask(post, b"x", Origin="http://evil.example")[0] == 403
    assert ask(post, b"x", Origin=served.origin)[0] == 404  # no such visitor
    for origin in (None, "http://evil.example", f"http://127.0.0.1:{served.port + 1}", "null"):
        with pytest.raises(InvalidStatus):
            served.connect(origin=origin)
    served.connect().close()


def test_elsewhere_a_token_is_needed(stage: Stage) -> None:
    with serve(stage, "secret") as served:
        assert ask(served.origin + "/")[0] == 403
        assert ask(served.origin + "/?token=wrong")[0] == 403
        assert ask(served.origin + "/", Cookie="flam_rl_player=wrong")[0] == 403
        with urllib.request.urlopen(served.origin + "/?token=secret", timeout=60) as answer:
            cookie = answer.headers["set-cookie"]
        assert "HttpOnly" in cookie
        kept = cookie.split(";")[0]
        assert ask(served.origin + "/player.js", Cookie=kept)[0] == 200
        assert ask(served.origin + "/", Host="other.machine", Cookie=kept)[0] == 200
        with pytest.raises(InvalidStatus):
            served.connect()
        served.connect(additional_headers={"Cookie": kept}).close()


def test_uploads_start_a_world_and_are_bounded(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Page(served)
    page.until(lambda facts: facts["step"] > 0)
    picture = io.BytesIO()
    Image.fromarray(served.stage.world.draw(served.stage.starts.select([0]))[0].numpy()).save(picture, "png")
    post = f"{served.origin}/start?visit={page.hello['visit']}&name="
    page.say("run", on=False)
    page.until(lambda facts: not facts["running"])
    assert ask(post + "a.png", picture.getvalue(), Origin=served.origin) == (200, b'{"frames":1}')
    assert page.until(lambda facts: facts["step"] == 0)
    status, said = ask(post + "../../etc/passwd", b"x" * 99, Origin=served.origin)
    assert status == 422
    assert b"no picture or film" in said
    monkeypatch.setattr("flam_rl.player.server.MOST_BYTES", 1000)
    assert ask(post + "a.png", b"x" * 5000, Origin=served.origin)[0] == 413
    page.close()


def random_message(rng: random.Random) -> str | bytes:
    kinds = ["hold", "control", "run", "step", "undo", "restart", "speed", "task", "record", "link", "replay"]
    values = [
        None,
        True,
        False,
        -1,
        0,
        3,
        2**40,
        1.5,
        "x" * 50,
        [],
        [[0, 1]],
        [[0]],
        [0, 1],
        [0, 0],
        {},
        "é\ud7ff",
    ]
    fields = ["keys", "indices", "on", "steps", "seed", "fps", "link", "other"]
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(200))
        case 1:
            return "".join(chr(rng.randrange(1, 0xD7FF)) for _ in range(rng.randrange(100)))
        case 2:
            return "[" * rng.randrange(5000)
        case 3:  # one that is obeyed
            return json.dumps(
                rng.choice(
                    [
                        {"kind": "hold", "keys": [[rng.randrange(4), rng.randrange(6)]]},
                        {"kind": "control", "indices": rng.sample(range(4), rng.randrange(5))},
                        {"kind": "undo", "steps": rng.randrange(1, 101)},
                        {"kind": "restart", "seed": rng.randrange(2**31)},
                        {"kind": "record", "on": rng.random() < 0.5},
                        {"kind": "run", "on": rng.random() < 0.5},
                        {"kind": "speed", "fps": rng.randrange(1, 61)},
                        {"kind": "step"},
                        {"kind": "link"},
                    ]
                )
            )
        case _:
            said = {name: rng.choice(values) for name in rng.sample(fields, rng.randrange(4))}
            return json.dumps({"kind": rng.choice([*kinds, 7])} | said)


@pytest.mark.learning
def test_ten_thousand_random_or_broken_messages(stage: Stage) -> None:
    rng = random.Random(0)
    with serve(stage) as served:
        page = Page(served)
        me, sizes = psutil.Process(), []
        for part in range(10):
            for _ in range(1000):
                page.socket.send(random_message(rng))
                try:
                    while True:
                        page.socket.recv(0)  # a page reads what it is sent
                except TimeoutError:
                    pass
            page.say("speed", fps=61 - part - 2)
            page.until(lambda facts, fps=61 - part - 2: facts["fps"] == fps)
            page.answers.clear()
            gc.collect()
            sizes.append(me.memory_info().rss)
        assert len(served.visitors) == 1
        page.socket.send("x" * (messages.MOST_BYTES + 1))  # larger than allowed
        with pytest.raises(ConnectionClosed):
            page.until(lambda facts: False)
        following = Page(served)
        following.until(lambda facts: facts["step"] >= 3)
        following.close()
        assert sizes[-1] - sizes[4] < 40e6, sizes


@pytest.mark.learning
def test_four_visitors_are_served_alike(stage: Stage) -> None:
    """However fast the machine is, none of four worlds that run at once waits for the others."""
    with serve(stage) as served:
        pages = [Page(served) for _ in range(4)]
        for page in pages:
            page.say("control", indices=[0, 3])
            page.say("speed", fps=60)
            page.say("hold", keys=[[3, 0], [0, 2]])
        for page in pages:
            page.until(lambda facts: facts["fps"] == 60 and facts["acting"])
        first = [page.view.facts["step"] for page in pages]
        for page in pages:
            page.until(lambda facts: facts["step"] >= 100 or not facts["running"])
        steps = [page.view.facts["step"] - began for page, began in zip(pages, first, strict=True)]
        for page in pages:
            page.close()
        assert min(steps) > 25
        assert max(steps) < 3 * min(steps)


@pytest.mark.learning
def test_the_command_serves_and_says_where(tmp_path: Path) -> None:
    def start(*more: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "flam_rl.cli", "play", "--port", "0", *more]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    for more in ([], ["--host", "0.0.0.0"]):
        with start(*more) as process:
            try:
                assert process.stdout is not None
                line = process.stdout.readline()
                address = line.split()[3]
                assert ask(address.replace("0.0.0.0", "127.0.0.1"))[0] == 200
                assert ("?token=" in address) == bool(more)
                if more:
                    assert ask(address.replace("0.0.0.0", "127.0.0.1").split("?")[0])[0] == 403
            finally:
                process.terminate()
                process.communicate(timeout=60)


def test_errors_of_use_are_one_line(served: Served, capsys: pytest.CaptureFixture[str]) -> None:
    from flam_rl.cli import main

    for args, said in (
        (["--port", str(served.port)], "--port 0 takes one that is free"),
        (["--world", "nowhere"], "no world 'nowhere'"),
        (["--world", "pucks", "--task", "CartPole-v1"], "has no labels to act in a task by"),
        (["--port", "70000"], "port is 70000"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["play", *args])
        assert ended.value.code == 2
        assert said in capsys.readouterr().err
