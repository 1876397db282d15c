"""One visitor's world in the player: undo, links, the real task beside, films, dropped files."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import suites
import torch
from PIL import Image

suites.need("fastapi", "play")
suites.need("uvicorn", "play")
suites.need("websockets", "play")

from pages import View, make_task, play, view  # noqa: E402

from flam_rl.player import messages  # noqa: E402
from flam_rl.player.dropped import clip_of  # noqa: E402
from flam_rl.player.film import MOST_FRAMES  # noqa: E402
from flam_rl.player.stage import Stage  # noqa: E402
from flam_rl.player.visit import PATIENCE, UNDONE, Visit  # noqa: E402


@pytest.fixture(autouse=True)
def _no_gradients() -> Iterator[None]:
    with torch.inference_mode():
        yield


def same(one: View, two: View) -> bool:
    facts = ("step", "latent", "boxes", "likelihood")
    return bool((one.frame == two.frame).all()) and all(one.facts[name] == two.facts[name] for name in facts)


def test_undo_goes_back_exactly_and_the_others_do_the_same_again(pucks_stage: Stage) -> None:
    visit = Visit(pucks_stage)
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


def test_what_is_left_alone_rests_and_then_acts_by_the_prior(pucks_stage: Stage) -> None:
    visit = Visit(pucks_stage)
    visit.step()
    assert view(visit).facts["acting"] == []  # nothing was pressed yet
    play(visit, 1, (0, 0))
    assert view(visit).facts["acting"] == [0]
    play(visit, PATIENCE)
    assert view(visit).facts["acting"] == [0]
    play(visit, 1)
    assert view(visit).facts["acting"] == []


def test_a_link_replays_all_that_was_seen(stage: Stage, pucks_stage: Stage) -> None:
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
        Visit(pucks_stage).replay(link)


def test_a_link_has_its_bounds(pucks_stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "MOST_STEPS", 20)
    visit = Visit(pucks_stage)
    play(visit, 20)
    assert visit.link()
    visit.step()
    with pytest.raises(ValueError, match="a link replays up to 20 steps"):
        visit.link()
    visit.restart(1)
    assert visit.link()


def test_damaged_links_are_refused_in_a_line(pucks_stage: Stage) -> None:
    visit = Visit(pucks_stage)
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
        number = [key.name for key in stage.keys.by_action[stage.agents[0]]].index(name)
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
    answer = visit.obey(messages.Record(kind="record", on=False))
    assert answer is not None
    assert answer["frames"] == 11
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


def psnr(one: np.ndarray, two: np.ndarray) -> float:
    return float(-10 * np.log10(np.square((one.astype(float) - two) / 255).mean() + 1e-9))


def test_a_world_goes_on_from_a_dropped_picture(stage: Stage, tmp_path: Path) -> None:
    frame = stage.world.draw(stage.starts.select([5]))[0].numpy()
    Image.fromarray(frame).resize((320, 320), Image.Resampling.NEAREST).save(tmp_path / "picture.png")
    clip = clip_of(tmp_path / "picture.png", (64, 64))
    visit = Visit(stage)
    visit.restart_from(clip)
    assert psnr(view(visit).frame, frame) > 30
    play(visit, 5, (3, 2))
    with pytest.raises(ValueError, match="one of the world's own starts"):
        visit.link()


def test_a_world_goes_on_from_a_dropped_film(pucks_stage: Stage, tmp_path: Path) -> None:
    visit = Visit(pucks_stage)
    visit.obey(messages.Record(kind="record", on=True))
    play(visit, 24)
    visit.end_film()
    assert visit.shot is not None
    (tmp_path / "film.mp4").write_bytes(visit.shot.mp4())
    clip = clip_of(tmp_path / "film.mp4", (64, 64))
    assert len(clip) >= 20
    other = Visit(pucks_stage)
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
