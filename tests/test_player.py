"""The player: keys that mean the same in every state, undo, links, films, the real task beside, and a server that nothing breaks."""

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

import gymnasium as gym
import numpy as np
import psutil
import pytest
import suites
import torch
from PIL import Image
from websockets.exceptions import ConnectionClosed, InvalidStatus

import flam_rl
from flam_rl.evaluation.validity import TOLERANCE, read_frames
from flam_rl.types import Scene

suites.need("fastapi", "play")
suites.need("uvicorn", "play")
suites.need("websockets", "play")

from pages import Page, Served, View, read_view, serve  # noqa: E402

from flam_rl.player import messages  # noqa: E402
from flam_rl.player.dropped import clip_of  # noqa: E402
from flam_rl.player.film import MOST_FRAMES  # noqa: E402
from flam_rl.player.keys import SLOTS  # noqa: E402
from flam_rl.player.stage import Stage  # noqa: E402
from flam_rl.player.visit import PATIENCE, UNDONE, Visit  # noqa: E402
from flam_rl.player.visitors import AWAY_S, MOST, Visitors  # noqa: E402

AHEAD = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])


def make_task() -> gym.Env:
    return gym.make("flam_rl/MultiGrid-v0", agents=4)


@pytest.fixture(scope="module")
def stage() -> Stage:
    return Stage(flam_rl.load_world("multigrid"), "multigrid", make_task)


@pytest.fixture(scope="module")
def pucks() -> Stage:
    return Stage(flam_rl.load_world("pucks"), "pucks")


@pytest.fixture(scope="module")
def served(stage: Stage) -> Iterator[Served]:
    with serve(stage) as running:
        yield running


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def view(visit: Visit) -> View:
    return read_view(visit.view(), visit.stage.world.frame_size)


def slot(stage: Stage, index: int, name: str) -> int:
    return [key.slot for key in stage.keys.of[index]].index(name)


# --- keys


def agents_of(stage: Stage, scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Cell (x, y) and heading of each agent `(B, 4)` in what a MultiGrid world draws; heading -1 where it is not shown once."""
    tiles = make_task().unwrapped.tiles()
    tile, difference = read_frames(stage.world.draw(scene).numpy(), tiles)
    owner = np.where(difference <= TOLERANCE, tiles.owner[tile], -1)
    columns = stage.world.frame_size[1] // tiles.images.shape[2]
    cells, headings = np.zeros((len(tile), 4, 2), int), np.full((len(tile), 4), -1)
    for row, agent in np.ndindex(headings.shape):
        at = np.flatnonzero(owner[row] == agent)
        if len(at) == 1:
            cells[row, agent] = at[0] % columns, at[0] // columns
            headings[row, agent] = tiles.heading[tile[row, at[0]]]
    return cells, headings


def after(stage: Stage, scene: Scene, index: int, held: list[int]) -> Scene:
    """One step under keys, each state by itself."""
    keys, rows = stage.keys, range(len(scene.factors))
    wanted = torch.cat([keys.latent_action(scene.factors[i : i + 1], index, held) for i in rows])
    stepper = stage.stepper((index,))
    generator = torch.Generator().manual_seed(0)
    state, _ = stepper.step(stepper.begin(scene.factors), wanted[:, None], generator)
    return Scene(state.factors_BKS, scene.context)


def test_the_agents_keys_are_its_tasks_actions_in_every_state(stage: Stage) -> None:
    assert len(stage.agents) == 1
    named = {key.name: (number, key.slot) for number, key in enumerate(stage.keys.of[stage.agents[0]])}
    assert {name: slot for name, (_, slot) in named.items()} == {
        "turn left": "left", "turn right": "right", "forward": "up", "stay": "down",
    }  # fmt: skip
    scene = stage.starts.of(slice(0, None, 10))
    cells, headings = agents_of(stage, scene)
    agent = 0  # the adapter's
    shown = headings[:, agent] >= 0
    right = {}
    for name, (number, _) in named.items():
        then, now = agents_of(stage, after(stage, scene, stage.agents[0], [number]))
        turn = {"turn left": -1, "turn right": 1}.get(name, 0)
        turned = now[:, agent] == (headings[:, agent] + turn) % 4
        walked = (then[:, agent] == cells[:, agent] + AHEAD[headings[:, agent]]).all(-1)
        stood = (then[:, agent] == cells[:, agent]).all(-1)
        right[name] = (turned & ((walked | stood) if name == "forward" else stood))[shown].mean()
    assert min(right.values()) > 0.95, right


@pytest.mark.learning
def test_directions_mean_the_same_where_no_label_says_what_a_factor_does(stage: Stage) -> None:
    """Who faces there walks or is blocked, who faces aside turns there, who faces away does not walk away."""
    scene = stage.starts.of(slice(0, None, 10))
    cells, headings = agents_of(stage, scene)
    shares = {}
    for index in set(range(4)) - set(stage.agents):
        own = stage.world.shares(scene)[:, index].unflatten(1, (8, 8)).unflatten(-1, (8, 8)).mean((2, 4))
        drawn = [
            sum(float(own[row, y, x]) for row, (x, y) in enumerate(cells[:, agent])) for agent in range(4)
        ]
        agent = int(np.argmax(drawn))  # whom this factor draws
        for wanted, name in ((3, "up"), (2, "left"), (1, "down"), (0, "right")):
            then, now = agents_of(stage, after(stage, scene, index, [slot(stage, index, name)]))
            before, there = headings[:, agent], (headings[:, agent] >= 0) & (now[:, agent] >= 0)
            moved = then[:, agent] - cells[:, agent]
            faces = now[:, agent] == wanted
            along = (moved * AHEAD[wanted]).sum(-1)
            away = (before - wanted) % 4 == 2
            right = np.where(away, along >= 0, faces & (along >= 0))
            shares[index, name] = right[there].mean()
    assert np.mean(list(shares.values())) > 0.85, shares
    assert min(shares.values()) > 0.6, shares


@pytest.mark.learning
def test_directions_push_pucks_that_way_wherever_the_prior_finds_it_plausible(pucks: Stage) -> None:
    """And never the other way, where it does not."""
    scene, codes = pucks.starts.of(slice(0, None, 20)), pucks.keys.codes_MA
    states, count, velocity = len(scene.factors), len(codes), slice(2, 4)
    towards = torch.tensor([[0.0, -1.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    right, wrong = [], []
    for index in range(pucks.world.latent_actions):
        rest = after(pucks, scene, index, []).factors[:, index, velocity]
        stepper = pucks.stepper((index,))
        everywhere = stepper.begin(scene.factors.repeat_interleave(count, 0))
        wanted = codes.repeat(states, 1)
        there, taken = stepper.step(everywhere, wanted[:, None], torch.Generator().manual_seed(0))
        plausible = (taken.latent_actions_BLA[:, index] - wanted).abs().amax(-1) < 1e-4
        moves = (
            there.factors_BKS[:, index, velocity].view(states, count, 2) - rest[:, None]
        ) @ towards.T > 0.02
        possible = (moves & plausible.view(states, count, 1)).any(1)
        for direction, slot in enumerate(SLOTS):
            pushed = after(pucks, scene, index, [SLOTS.index(slot)]).factors[:, index, velocity]
            along = (pushed - rest) @ towards[direction]
            right.append(float((along > 0.02)[possible[:, direction]].float().mean()))
            wrong.append(float((along < -0.02).float().mean()))
    assert min(right) > 0.8, right
    assert np.mean(right) > 0.9, right
    assert max(wrong) < 0.15, wrong
    assert np.mean(wrong) < 0.05, wrong


# --- one visitor's world


def play(visit: Visit, steps: int, *held: tuple[int, int]) -> None:
    visit.held = held
    for _ in range(steps):
        visit.step()


def same(one: View, two: View) -> bool:
    facts = ("step", "latent", "boxes", "likelihood")
    return bool((one.frame == two.frame).all()) and all(one.facts[name] == two.facts[name] for name in facts)


def test_undo_goes_back_exactly_and_the_others_do_the_same_again(pucks: Stage) -> None:
    visit = Visit(pucks)
    play(visit, 5, (0, 0))
    before = view(visit)
    play(visit, 7, (0, 3))
    then = view(visit)
    visit.undo(7)
    assert same(view(visit), before)
    play(visit, 7, (0, 3))
    assert same(view(visit), then)
    visit.undo(7)
    play(visit, 7, (0, 1))
    assert not same(view(visit), then)
    play(visit, 150)
    visit.undo(100)
    assert visit.steps == 62
    visit.undo(100)
    assert visit.steps == 62
    assert UNDONE == 100


def test_what_is_left_alone_rests_and_then_acts_by_the_prior(pucks: Stage) -> None:
    visit = Visit(pucks)
    visit.step()
    assert view(visit).facts["acting"] == []  # nothing was pressed yet
    play(visit, 1, (0, 0))
    assert view(visit).facts["acting"] == [0]
    play(visit, PATIENCE)
    assert view(visit).facts["acting"] == [0]
    play(visit, 1)
    assert view(visit).facts["acting"] == []


def test_a_link_replays_all_that_was_seen(stage: Stage, pucks: Stage) -> None:
    visit = Visit(stage)
    visit.obey(messages.Control(kind="control", indices=[3, 1]))
    visit.restart(7)
    play(visit, 10, (3, 2), (1, 3))
    play(visit, 20, (1, 0))
    visit.undo(4)
    play(visit, 3)
    link = visit.link()
    assert len(link) < 500
    again = Visit(stage)
    again.obey(messages.Replay(kind="replay", link=link))
    while again.running:
        again.step()
    assert again.steps == visit.steps
    one, two = view(visit), view(again)
    assert (one.frame == two.frame).all()
    assert one.facts["latent"] == two.facts["latent"]
    with pytest.raises(ValueError, match="the link is of another world"):
        Visit(pucks).replay(link)


def test_a_link_has_its_bounds(pucks: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_STEPS", 20)
    visit = Visit(pucks)
    play(visit, 20)
    assert visit.link()
    visit.step()
    with pytest.raises(ValueError, match="a link replays up to 20 steps"):
        visit.link()
    visit.restart(1)
    assert visit.link()


def test_damaged_links_are_refused_in_a_line(pucks: Stage) -> None:
    visit = Visit(pucks)
    play(visit, 30, (0, 1))
    link, rng = visit.link(), random.Random(0)
    recording = messages.read_link(link)
    bomb = recording.model_copy(update={"world": "x" * 10**7})
    wide = recording.model_copy(update={"inputs": [messages.Inputs(steps=1, indices=[200], keys=[])]})
    long = recording.model_copy(update={"inputs": [messages.Inputs(steps=4000, indices=[], keys=[])] * 3})
    damaged = ["", "x", "\ud800", link[:-9], *(messages.write_link(one) for one in (bomb, wide, long))]
    for _ in range(200):
        letters = list(link)
        letters[rng.randrange(len(letters))] = rng.choice("AZ-_*é ")
        damaged.append("".join(letters))
    before = visit.steps
    for one in damaged:
        if one != link:
            with pytest.raises(ValueError, match=r"^the link [^\n]*$"):
                visit.replay(one)
    assert visit.steps == before


def test_the_real_task_runs_beside_from_the_same_frame_under_the_same_keys(stage: Stage) -> None:
    assert len(stage.agents) == 1
    visit = Visit(stage)
    visit.seed = 3
    visit.obey(messages.Task(kind="task", on=True))
    shown = view(visit)
    assert shown.real is not None
    assert np.abs(shown.frame.astype(int) - shown.real).mean() < 2
    task = make_task()
    task.reset(seed=3)
    frames = []
    names = ("turn left", "forward", "forward", "turn right", "stay", "forward")
    for name in names:
        number = [key.name for key in stage.keys.of[stage.agents[0]]].index(name)
        play(visit, 1, (stage.agents[0], number))
        found = view(visit)
        expected = task.step(["turn left", "turn right", "forward", "stay"].index(name))[0]
        assert (found.real == expected).all(), name
        frames.append(expected)
    visit.undo(3)
    assert (view(visit).real == frames[2]).all()
    visit.obey(messages.Task(kind="task", on=False))
    assert view(visit).real is None


def test_reward_and_end_are_predicted_and_the_end_pauses(stage: Stage) -> None:
    visit = Visit(stage)
    facts = view(visit).facts
    assert 0 <= facts["end"] <= 1
    assert abs(facts["reward"]) <= 1
    for seed in range(200):
        visit.running = True
        visit.restart(seed)
        for _ in range(40):
            visit.step()
            if not visit.running:
                break
        if not visit.running:
            break
    facts = view(visit).facts
    assert facts["ended"]
    assert facts["end"] > 0.5
    assert facts["reward"] > 0.1


def test_a_film_is_what_was_seen(stage: Stage) -> None:
    import av

    visit = Visit(stage)
    play(visit, 3)
    visit.obey(messages.Record(kind="record", on=True))
    seen = [view(visit)]
    for _ in range(12):
        visit.step()
        seen.append(view(visit))
    visit.undo(2)
    told = visit.obey(messages.Record(kind="record", on=False))
    assert told is not None
    assert told["frames"] == 11
    assert visit.shot is not None
    with av.open(io.BytesIO(visit.shot.mp4())) as film:
        frames = [frame.to_ndarray(format="rgb24") for frame in film.decode(video=0)]
    assert len(frames) == 11
    assert frames[0].shape == (512, 512, 3)
    for found, expected in zip(frames, seen, strict=False):
        assert np.abs(found[4::8, 4::8].astype(int) - expected.frame).mean() < 6
    latent = visit.shot.json()
    assert latent["first_step"] == 3
    assert np.shape(latent["latent_actions"]) == (10, 4, 4)
    assert np.allclose(latent["latent_actions"], [one.facts["latent"] for one in seen[1:11]], atol=6e-4)
    with pytest.raises(ValueError, match="nothing was recorded"):
        visit.obey(messages.Record(kind="record", on=False))
    assert MOST_FRAMES * 2 * 64 * 64 * 3 < 64e6


# --- dropped on the page


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((one.astype(float) - two) / 255).mean() + 1e-9))


def test_a_world_goes_on_from_a_dropped_picture(stage: Stage, tmp_path: Path) -> None:
    frame = stage.world.draw(stage.starts.of([5]))[0].numpy()
    Image.fromarray(frame).resize((320, 320), Image.Resampling.NEAREST).save(tmp_path / "picture.png")
    clip = clip_of(tmp_path / "picture.png", (64, 64))
    visit = Visit(stage)
    visit.restart_from(clip)
    assert psnr(view(visit).frame, frame) > 30
    play(visit, 5, (3, 2))
    with pytest.raises(ValueError, match="one of the world's own starts"):
        visit.link()


def test_a_world_goes_on_from_a_dropped_film(pucks: Stage, tmp_path: Path) -> None:
    visit = Visit(pucks)
    visit.obey(messages.Record(kind="record", on=True))
    play(visit, 24)
    visit.end_film()
    assert visit.shot is not None
    (tmp_path / "film.mp4").write_bytes(visit.shot.mp4())
    clip = clip_of(tmp_path / "film.mp4", (64, 64))
    assert len(clip) >= 20
    other = Visit(pucks)
    other.restart_from(clip)
    assert psnr(view(other).frame, clip[-1]) > 25
    assert sum(view(other).facts["presence"]) >= 3


def test_what_is_no_picture_or_film_is_refused(tmp_path: Path) -> None:
    (tmp_path / "noise.png").write_bytes(random.Random(0).randbytes(5000))
    (tmp_path / "text.mp4").write_text("no film")
    Image.new("1", (20000, 20000)).save(tmp_path / "huge.png")
    broken = io.BytesIO()
    Image.new("RGB", (300, 300), "red").save(broken, "png")
    (tmp_path / "cut.png").write_bytes(broken.getvalue()[:-200])
    for path in sorted(tmp_path.iterdir()):
        with pytest.raises(ValueError, match=path.stem):
            clip_of(path, (64, 64))


# --- the server


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
    assert page.told[-1]["frames"] == 3
    status, film = ask(f"{served.origin}/film/{page.hello['visit']}.mp4")
    assert status == 200
    assert film[4:8] == b"ftyp"
    assert ask(f"{served.origin}/film/{page.hello['visit']}.json")[0] == 200
    assert ask(f"{served.origin}/film/somebody.mp4")[0] == 404
    page.say("restart", seed=-1)
    page.next()
    assert page.told[-1] == {"kind": "error", "text": page.told[-1]["text"]}
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
    Image.fromarray(served.stage.world.draw(served.stage.starts.of([0]))[0].numpy()).save(picture, "png")
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
            page.told.clear()
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


def test_four_visitors_get_thirty_steps_a_second_from_two_cores(stage: Stage) -> None:
    """By the time of processors, which no other program changes: 120 steps a second leave 1/60 s of a core for each, the pages'
    own side of the connections included."""
    with serve(stage) as served:
        pages = [Page(served) for _ in range(4)]
        for page in pages:
            page.say("control", indices=[0, 3])
            page.say("speed", fps=60)
            page.say("hold", keys=[[3, 0], [0, 2]])
        for page in pages:
            page.until(lambda facts: facts["fps"] == 60 and facts["acting"])
        began, first = time.process_time(), [page.view.facts["step"] for page in pages]
        for page in pages:
            page.until(lambda facts: facts["step"] >= 100 or not facts["running"])
        steps = sum(page.view.facts["step"] for page in pages) - sum(first)
        each = (time.process_time() - began) / steps
        for page in pages:
            page.close()
        assert steps > 100
        assert each < 1 / 60, each


# --- the command


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
