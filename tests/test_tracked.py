"""Tracked layers: factors follow entities through continuous motion, without training."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import films
import gymnasium as gym
import imageio.v3 as imageio
import numpy as np
import pytest
import torch

import flam_rl  # noqa: F401  # registers the tasks
from flam_rl.cli import main
from flam_rl.evaluation.matching import by_identity, match_frames
from flam_rl.evaluation.tracking import evaluate_tracking
from flam_rl.models.tracked import ContextConfig, Tracker, TrackerConfig, clip_view, track, track_all
from flam_rl.models.tracked.camera import camera_path, shift_between, shifted
from flam_rl.models.tracked.sprites import blend, draw, extent, masks
from flam_rl.models.tracked.sprites import lift as lift_whole
from flam_rl.models.tracked.views import find_view
from flam_rl.models.tracked.windows import Ground, Sprites, lift, look_at, paste, trimmed
from flam_rl.types import Entities

Record = Callable[..., tuple[np.ndarray, Entities]]


@pytest.fixture(scope="module")
def record() -> Record:
    def record(seed: int, frames: int = 64, **options: object) -> tuple[np.ndarray, Entities]:
        """An episode of Pucks that lasts long enough, and its truth in the frame."""
        task = gym.make("flam_rl/Pucks-v0", **{"goal": "flee"} | options).unwrapped
        for start in range(1000 * seed, 1000 * seed + 100):
            frame, info = task.reset(seed=start)
            act = task.make_behavior("patrol", np.random.default_rng(seed))
            film, truth = [frame], [info["truth"]]
            while len(film) < frames:
                frame, _, terminated, truncated, info = task.step(act())
                film.append(frame)
                truth.append(info["truth"])
                if terminated or truncated:
                    break
            if len(film) == frames:
                break
        presence = np.stack([t.presence for t in truth])
        identity = np.where(presence, np.stack([t.identity for t in truth]), -1)
        box = np.where(presence[..., None], np.stack([t.box for t in truth]).clip(0, 64), np.nan)
        return np.stack(film), Entities(
            by_identity(presence, identity, False), by_identity(box, identity, np.nan)
        )

    return record


def psnr(one: torch.Tensor, two: torch.Tensor) -> float:
    return float(-10 * (one - two).square().mean().log10())


def colors_of(film: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(film).movedim(-1, 1) / 255


def disc(radius: float, color: tuple[float, ...], patch: int = 16) -> torch.Tensor:
    at = torch.arange(patch) + 0.5 - patch / 2
    alpha = (radius + 0.5 - torch.hypot(at[:, None], at)).clamp(0, 1)
    return torch.cat([alpha * torch.tensor(color)[:, None, None], alpha[None]])


def test_a_sprite_is_drawn_where_it_is_put() -> None:
    look = disc(4, (1.0, 0.5, 0.25))[None, None]
    for place in ([20.0, 30.0], [20.25, 30.75], [1.5, 62.0]):
        drawn = draw(look, torch.tensor([[place]]), (64, 64)).drawn_BK4HW[0, 0, 3]
        ys, xs = torch.meshgrid(torch.arange(64) + 0.5, torch.arange(64) + 0.5, indexing="ij")
        if min(place) > 8 and max(place) < 56:  # wholly in the frame
            assert (drawn * xs).sum() / drawn.sum() == pytest.approx(place[0], abs=1e-3)
            assert (drawn * ys).sum() / drawn.sum() == pytest.approx(place[1], abs=1e-3)
            assert drawn.sum() == pytest.approx(float(look[0, 0, 3].sum()), rel=1e-4)
        else:
            assert 0.1 < drawn.sum() / look[0, 0, 3].sum() < 0.9
    found = extent(look[:, :, 3])
    assert found.offset_BK2.abs().max() < 1e-4
    assert found.size_BK2[0, 0].tolist() == pytest.approx([8, 8], abs=0.6)


def test_layers_are_blended_by_depth_as_one_after_the_other() -> None:
    drawn = torch.rand(3, 5, 4, 9, 7)
    drawn[:, :, :3] *= drawn[:, :, 3:]
    depth, context = torch.rand(3, 5), torch.rand(3, 3, 9, 7)
    scene = blend(drawn, depth, context)
    for b in range(3):
        canvas = context[b]
        for k in depth[b].argsort(descending=True).tolist():
            torch.testing.assert_close(scene.behind_BK3HW[b, k], canvas)
            canvas = drawn[b, k, :3] + (1 - drawn[b, k, 3]) * canvas
            nearer = [j for j in range(5) if depth[b, j] < depth[b, k]]
            torch.testing.assert_close(scene.seen_BKHW[b, k], (1 - drawn[b, nearer, 3]).prod(0))
        torch.testing.assert_close(scene.frame_B3HW[b], canvas)


def test_windows_show_what_whole_frames_do() -> None:
    generator = torch.Generator().manual_seed(0)
    look = torch.stack([disc(3 + k % 3, (1.0, 0.5, k / 5), 20) for k in range(6)])[None].repeat(2, 1, 1, 1, 1)
    place = torch.rand(2, 6, 2, generator=generator) * 30 - 1  # some touch, some leave the frame
    depth = torch.tensor([[0.0, 3, 1, 2, 5, 4]]).repeat(2, 1)
    frame, context = torch.rand(2, 2, 3, 32, 28, generator=generator)
    layers = draw(look, place, (32, 28), slopes=True)
    scene = blend(layers.drawn_BK4HW, depth, context)
    cut = trimmed(look.flatten(0, 1), 2)
    assert cut.shape[-1] < 20
    rows = torch.arange(2).repeat_interleave(6)
    sprites = Sprites(rows, cut, place.flatten(0, 1), depth.flatten())
    ground = Ground(frame, context)
    windows = look_at(sprites, ground, slopes=True, room=3)
    assert windows.beside.any()
    drawn, cover = paste(windows, sprites, ground)
    torch.testing.assert_close(drawn, scene.frame_B3HW)
    torch.testing.assert_close(cover, masks(layers.drawn_BK4HW, scene.seen_BKHW).sum(1))
    size = windows.inside.shape[-1]
    wholes = {
        "drawn": layers.drawn_BK4HW,
        "slope_x": layers.along_x_BK4HW,
        "slope_y": layers.along_y_BK4HW,
        "behind": scene.behind_BK3HW,
        "seen": scene.seen_BKHW[:, :, None],
    }
    own = (windows.drawn[:, 3] > 0) & (windows.inside > 0)
    for name, whole in wholes.items():
        at, _ = ground.pixels(rows, windows.corner, size)
        image = whole.flatten(0, 1).flatten(2)
        pixel = (at - (rows * 32 * 28)[:, None, None]).flatten(1)
        there = image.gather(2, pixel[:, None].expand(-1, image.shape[1], -1)).unflatten(2, (size, size))
        found = getattr(windows, name).reshape(there.shape)
        torch.testing.assert_close(found.movedim(1, -1)[own], there.movedim(1, -1)[own])
    residual = (frame - scene.frame_B3HW)[:, None].expand(-1, 6, -1, -1, -1)
    lifted = lift(windows.residual * own[:, None], sprites.place, windows.corner, cut.shape[-1])
    there = (layers.drawn_BK4HW[:, :, 3:] > 0) * residual
    torch.testing.assert_close(
        lifted, trimmed_like(lift_whole(there, place, 20).flatten(0, 1), cut), atol=1e-5, rtol=1e-4
    )


def trimmed_like(whole: torch.Tensor, cut: torch.Tensor) -> torch.Tensor:
    room = (whole.shape[-1] - cut.shape[-1]) // 2
    return whole[..., room : whole.shape[-1] - room, room : whole.shape[-1] - room]


@pytest.mark.learning
def test_episodes_side_by_side_have_the_tracks_of_each(record: Record) -> None:
    long, short = (record(seed, pucks=8, looks=1, background="new_texture")[0] for seed in (1, 2))
    films = [short[:24], long[:40], short[:32]]
    together = track_all(films, batch=2)
    for film, found in zip(films, together, strict=True):
        alone = track(film)
        assert len(found.presence) == len(film)
        assert torch.equal(found.identity, alone.identity)
        assert torch.equal(found.presence, alone.presence)
        there = found.presence
        torch.testing.assert_close(found.place[there], alone.place[there], atol=0.05, rtol=0)
        torch.testing.assert_close(found.context, alone.context, atol=0.02, rtol=0)


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(2))
def test_pucks_of_four_looks_are_followed_and_redrawn(record: Record, seed: int) -> None:
    film, truth = record(seed, pucks=4)
    tracks = track(film)
    entities = tracks.entities(64, 64)
    figures = evaluate_tracking([truth], [entities])
    assert figures["recall"] > 0.98  # of seeds 0 to 3 the worst is 0.988
    assert figures["precision"] > 0.99  # 0.996
    assert figures["switches"] == 0
    matched = match_frames(truth, entities)
    t, e = np.nonzero(matched >= 0)
    off = truth.box[t, e] - entities.box[t, matched[t, e]]
    assert np.median(np.linalg.norm(off[:, :2] + off[:, 2:], axis=1) / 2) < 0.1  # 0.062 pixels
    assert psnr(tracks.draw()[0], colors_of(film)) > 38  # 39.2 dB


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(2))
def test_pucks_that_look_alike_keep_their_identity(record: Record, seed: int) -> None:
    film, truth = record(seed, pucks=8, looks=1, background="new_texture")
    tracks = track(film)
    figures = evaluate_tracking([truth], [tracks.entities(64, 64)])
    assert figures["switches"] == 0
    assert figures["f1"] > 0.99  # of seeds 0 to 7 the worst is 0.999; one rests in the second
    assert psnr(tracks.draw()[0], colors_of(film)) > 35  # 35.9 dB


@pytest.mark.learning
@pytest.mark.parametrize("seed", range(4))
def test_pucks_come_and_go(record: Record, seed: int) -> None:
    film, truth = record(seed, pucks=8, background="new_texture", visits=True)
    tracks = track(film)
    entities = tracks.entities(64, 64)
    figures = evaluate_tracking([truth], [entities])
    assert figures["f1"] > 0.98  # of seeds 0 to 4 0.999 or more
    assert figures["switches"] <= 1  # 1 in the worst, 0 elsewhere
    comes, born = (int((each.presence.argmax(0) > 3).sum()) for each in (truth, entities))
    assert 0 < comes <= born <= comes + 2  # 2 in the worst that nobody is, else none


@pytest.mark.learning
def test_a_moving_camera_is_followed() -> None:
    task = gym.make("flam_rl/Pucks-v0", goal="flee", background="new_texture", camera="moving").unwrapped
    frame, info = task.reset(seed=0)
    frames, corners, pucks = [frame], [info["truth"].camera], [task.masks().sum(0)]
    for _ in range(47):
        frame, *_, info = task.step(0)
        frames.append(frame)
        corners.append(info["truth"].camera)
        pucks.append(task.masks().sum(0))
    film, corner, empty = np.stack(frames), np.stack(corners), torch.as_tensor(np.stack(pucks)) == 0
    path = camera_path(colors_of(film)).numpy()
    apart = np.linalg.norm(path - (corner[0] - corner), axis=1)
    assert np.abs(corner - corner[0]).max() > 5
    assert apart.mean() < 0.2  # of seeds 0 to 3 the worst is 0.176 pixels
    still = find_view(colors_of(film), torch.zeros(48, 2), TrackerConfig(), ContextConfig())
    ground = colors_of(film).movedim(1, -1)[empty]
    moving, fixed = (
        psnr(context.expand(48, -1, -1, -1).movedim(1, -1)[empty], ground)
        for context in (track(film).context, still)
    )
    assert moving > fixed + 10  # of seeds 0 to 3 the worst is 38.2 dB, and 12.6 above one still background


@pytest.mark.learning
@pytest.mark.parametrize("seed", [1, 3])
def test_a_goal_on_ground_that_a_camera_passes_over_is_ground(record: Record, seed: int) -> None:
    film, truth = record(seed, 40, goal="reach", background="new_texture", camera="moving")
    tracks = track(film)
    # In seed 0 a puck rests for as long as it is in view, which nobody can tell from the ground.
    assert evaluate_tracking([truth], [tracks.entities(64, 64)])["f1"] > 0.95
    white = (tracks.context > 0.75).all(1).sum((1, 2))
    shown = (film > 190).all(-1).sum((1, 2))
    assert shown.max() > 20
    assert white[int(shown.argmax())] > 0.5 * shown.max()
    assert psnr(tracks.draw()[0], colors_of(film)) > 33


@pytest.mark.learning
def test_steps_of_a_batch_are_steps_of_each_episode(record: Record) -> None:
    films = [record(seed, pucks=4)[0] for seed in (0, 1)]
    config = TrackerConfig(factors=6)
    colors = [colors_of(film) for film in films]
    contexts = [clip_view(film, config)[0] for film in films]
    tracker = Tracker(config)
    together, alone = tracker.start(2), [tracker.start(1), tracker.start(1)]
    for t in range(16):
        before = together.clone()
        after = tracker.step(together, torch.stack([c[t] for c in colors]), torch.stack(contexts))
        torch.testing.assert_close(together.place, before.place)  # a step changes no state
        together = after
        alone = [
            tracker.step(s, c[t][None], g[None]) for s, c, g in zip(alone, colors, contexts, strict=True)
        ]
    for b in range(2):
        assert together.identity[b].tolist() == alone[b].identity[0].tolist()
        there = together.presence[b]
        assert int(there.sum()) >= 4
        torch.testing.assert_close(together.place[b, there], alone[b].place[0, there], atol=0.02, rtol=0)


@pytest.mark.parametrize("brightness", [0.9, 0.6])
def test_a_look_that_changes_is_followed(brightness: float) -> None:
    """A disc is drawn as it is a few frames after it changed, not as it was."""
    ground = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.1 + 0.1
    scenes = []
    for t in range(30):
        look = disc(5, (brightness if t > 22 else 0.75, 0.3, 0.3))[None, None]
        layers = draw(look, torch.tensor([[[10.0 + t, 30.0]]]), (64, 64))
        scenes.append(blend(layers.drawn_BK4HW, torch.zeros(1, 1), ground[None]).frame_B3HW[0])
    frames = torch.stack(scenes)
    found = track((frames * 255).round().byte().movedim(1, -1).numpy(), ground=ground)
    assert len(found.identity[found.presence].unique()) == 1
    off = (found.draw()[0] - frames).abs().amax(1)[28, 28:32, 36:40]
    assert float(off.mean()) < 0.07


def test_a_film_of_another_form_is_refused() -> None:
    with pytest.raises(ValueError, match="2 or more frames"):
        track(np.zeros((1, 64, 64, 3), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        track(np.zeros((8, 64, 64, 3), np.float32))


def test_shift_of_a_picture_is_found() -> None:
    rng = np.random.default_rng(0)
    picture = torch.as_tensor(rng.uniform(0, 1, (1, 3, 64, 64)), dtype=torch.float32)
    picture = torch.nn.functional.avg_pool2d(picture, 3, 1, 1)
    for shift in ([3.0, -2.0], [0.0, 0.0], [-1.5, 0.25]):
        moved = shifted(picture, torch.tensor([shift]))
        assert shift_between(picture, moved)[0].tolist() == pytest.approx(shift, abs=0.3)


def write_film(folder: Path, film: np.ndarray) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(film):
        imageio.imwrite(folder / f"{number:04d}.png", frame)


def preview(data: Path, out: Path, *more: str) -> dict:
    main(["train", "--data", str(data), "--out", str(out), "--preview", *more])
    return json.loads((out / "results.json").read_text())


@pytest.mark.learning
def test_preview_tells_what_would_be_found(record: Record, tmp_path: Path) -> None:
    write_film(tmp_path / "data" / "0", record(0, pucks=4)[0])
    found = preview(tmp_path / "data", tmp_path / "out")
    assert found["factors_at_once"] == found["default_factors"] == 4
    assert found["explained"] > 0.97
    assert found["births_per_minute"] == 0
    assert found["psnr"]["reconstruction"]["mean_db"] > found["psnr"]["last_frame"]["mean_db"] + 5
    assert found["psnr"]["last_frame"]["mean_db"] > found["psnr"]["context"]["mean_db"]
    assert found["failures"] == []
    assert found["frames_per_second"] == 15  # pictures do not say
    film = imageio.imread(tmp_path / "out" / "film.gif")
    assert film.shape == (64, 256, 768, 3)
    few = preview(tmp_path / "data", tmp_path / "few", "--factors", "2")
    assert few["failures"] == ["2 or more at once in 100% of frames: try --factors 4"]


@pytest.mark.learning
def test_preview_names_what_it_cannot_follow(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    rng = np.random.default_rng(0)
    ground = rng.integers(0, 255, (12, 16, 3)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    write_film(tmp_path / "still" / "a", ground[None, :64, :64].repeat(32, 0))
    assert preview(tmp_path / "still", tmp_path / "1")["failures"][0].startswith("nothing moves")
    write_film(tmp_path / "camera" / "a", np.stack([ground[:64, t : t + 64] for t in range(32)]))
    line = preview(tmp_path / "camera", tmp_path / "2")["failures"][0]
    assert line.startswith("the camera moves by 1.0 pixels a frame, -1.0 to the right")
    write_film(tmp_path / "noise" / "a", rng.integers(0, 255, (6, 64, 64, 3)).astype(np.uint8))
    lines = preview(tmp_path / "noise", tmp_path / "3", "--factors", "4")["failures"]
    assert lines[0].startswith("the background changes with every frame: ")
    dots = ground[None, :64, :64].repeat(32, 0)
    for t in range(32):
        dots[t, 20:22, 2 * t : 2 * t + 2] = 255
        dots[t, 20, 2 * t] = ground[20, 2 * t]
    write_film(tmp_path / "dots" / "a", dots)
    assert preview(tmp_path / "dots", tmp_path / "4")["failures"][0].startswith(
        "things are smaller than 4 pixels"
    )
    assert "warning: things are smaller" in capsys.readouterr().out
    tiles = gym.make("flam_rl/MultiGrid-v0")
    jumping = [tiles.reset(seed=0)[0]]
    tiles.action_space.seed(0)
    while len(jumping) < 48:
        jumping.append(tiles.step(tiles.action_space.sample())[0])
    write_film(tmp_path / "tiles" / "a", np.stack(jumping))
    lines = preview(tmp_path / "tiles", tmp_path / "tiles-out")["failures"]
    assert any(re.match(r"tracks break: mean length \d+ frames; things jump", line) for line in lines), lines
    with pytest.raises(SystemExit):
        preview(tmp_path / "dots", tmp_path / "5", "--factors", "1000000")
    assert "factors is 1000000; allowed is 1 to 256" in capsys.readouterr().err


def test_preview_takes_its_rate_from_films(tmp_path: Path) -> None:
    films.write_film(tmp_path / "film.mp4", films.scene(24), rate=25)
    found = preview(tmp_path / "film.mp4", tmp_path / "out", "--files.stride", "2")
    assert found["frames_per_second"] == 12.5
