"""flam_rl/Pucks-v0: frames, and the truth that comes with them."""

from __future__ import annotations

import numpy as np
import pytest
from pucks import BUSY, make, play
from scipy import ndimage

from flam_rl.envs.tasks.drawing import KNOT, Texture, _spline, coverage
from flam_rl.envs.tasks.pucks import LOOKS, PLAIN


def test_truth_agrees_with_the_picture() -> None:
    """Each puck's colour is unmixed from a plain frame by least squares; its centre of mass is the puck's centre."""
    task, alone = make(pucks=6, looks=8, background="plain", goal="flee"), 0
    for seed in range(4):
        frames, truth = play(task, seed)
        for frame, presence, centre, radius, box in zip(
            frames, truth.presence, truth.centre, truth.radius, truth.box, strict=True
        ):
            assert presence.all()
            for row in range(6):
                others = np.delete(np.arange(6), row)
                gaps = np.linalg.norm(centre[others] - centre[row], axis=1) - radius[others] - radius[row]
                walls = np.concatenate([centre[row], 64 - centre[row]]) - radius[row]
                if gaps.min() < 7 or walls.min() < 1:
                    continue
                x0, y0 = np.floor(centre[row] - radius[row] - 2).astype(int).clip(0)
                x1, y1 = np.ceil(centre[row] + radius[row] + 2).astype(int)
                way = LOOKS[row] - PLAIN
                share = (frame[y0:y1, x0:x1] - PLAIN) @ way / (way @ way)
                ys, xs = np.mgrid[y0 : y0 + share.shape[0], x0 : x0 + share.shape[1]] + 0.5
                found = np.array([(xs * share).sum(), (ys * share).sum()]) / share.sum()
                assert np.linalg.norm(found - centre[row]) < 0.1
                assert share.sum() == pytest.approx(np.pi * radius[row] ** 2, rel=0.05)
                seen = share > 0.02
                assert box[row, 0] - 0.5 < xs[seen].min() < box[row, 0] + 1.5
                assert box[row, 3] - 1.5 < ys[seen].max() < box[row, 3] + 0.5
                alone += 1
    assert alone > 200


def test_coverage_is_that_of_finer_pixels() -> None:
    rng = np.random.default_rng(0)
    centre, radius = rng.uniform(6, 10, (20, 2)), rng.uniform(2, 6, 20)
    grid = np.tile(np.arange(16.0), (20, 1))
    fine = (np.arange(16 * 16) + 0.5) / 16
    inside = np.hypot(fine - centre[:, :1, None], fine[:, None] - centre[:, 1:, None]) < radius[:, None, None]
    exact = inside.reshape(20, 16, 16, 16, 16).mean((2, 4))
    error = coverage(grid, grid, centre, radius) - exact
    assert np.abs(error).max() < 0.09
    assert np.abs(error).mean() < 0.003


@pytest.mark.parametrize("options", [{"pucks": 8, "looks": 3}, BUSY], ids=["still", "busy"])
def test_masks_put_the_frame_together(options: dict) -> None:
    task = make(goal="flee", **options)
    task.reset(seed=2)
    for _ in range(30):
        frame, *_, info = task.step(0)
        masks, truth = task.masks(), info["truth"]
        assert masks.shape == (task.rows, 64, 64)
        assert masks.min() >= 0
        assert masks.sum(0).max() <= 1 + 1e-5
        look = LOOKS[truth.identity % task.looks]
        ground = task._ground().transpose(1, 2, 0)
        drawn = ground * (1 - masks.sum(0))[..., None] + np.einsum("nhw,nc->hwc", masks, look)
        seen = masks[truth.presence].sum(0) + (masks.sum(0) == 0) > 0.999  # slivers at the border are absent
        assert np.abs(drawn - frame)[seen].max() <= 0.51
        for box, mask in zip(truth.box[truth.presence], masks[truth.presence], strict=True):
            y, x = np.nonzero(mask > 0.1)
            assert box[0] - 1 <= x.min() <= x.max() + 1 <= box[2] + 1
            assert box[1] - 1 <= y.min() <= y.max() + 1 <= box[3] + 1


def test_visitors_come_over_the_border_and_leave_for_good() -> None:
    task = make(pucks=6, visits=True, max_steps=400)
    births, counts = 0, []
    for seed in range(3):
        _, truth = play(task, seed, "random")
        counts.append(truth.presence.sum(1))
        assert truth.presence[:, 0].all()
        assert (truth.identity[:, 0] == 0).all()
        absent = ~truth.presence
        assert np.isnan(truth.box[absent]).all()
        assert np.isnan(truth.velocity[absent]).all()
        assert (truth.identity[absent] == -1).all()
        assert (truth.action[absent] == -1).all()
        assert not truth.contact[absent].any()
        for identity in np.unique(truth.identity[truth.presence]):
            steps, rows = np.nonzero(truth.identity == identity)
            assert len(set(rows)) == 1
            assert (np.diff(steps) == 1).all()
            if steps[0] > 0:
                first = truth.box[steps[0], rows[0]]
                assert min(*first[:2], *(64 - first[2:])) == 0
                births += 1
    assert births > 5
    assert np.concatenate(counts).min() < np.concatenate(counts).max() - 2


def test_the_ground_moves_as_the_camera_says() -> None:
    frames, truth = play(make(background="new_texture", camera="moving", goal="flee"), 3, "goal")
    steps = np.linalg.norm(np.diff(truth.camera, axis=0), axis=1)
    assert 0.1 < steps.mean() < steps.max() < 2
    assert np.linalg.norm(np.diff(truth.camera, n=2, axis=0), axis=1).max() < 0.2
    still, moved = [], []
    for now in range(0, len(frames) - 4, 7):
        x, y = truth.camera[now + 4] - truth.camera[now]
        before, after = (frame.astype(float).mean(2) for frame in (frames[now], frames[now + 4]))
        free = np.ones((64, 64), bool)
        free[:8], free[-8:], free[:, :8], free[:, -8:] = False, False, False, False
        for index in (now, now + 4):
            for centre in truth.centre[index][truth.presence[index]]:
                dy, dx = np.mgrid[:64, :64] + 0.5 - centre[::-1, None, None]
                free &= np.hypot(dx, dy) > 14
        moved.append(np.abs(ndimage.shift(before, (-y, -x), order=3) - after)[free].mean())
        still.append(np.abs(before - after)[free].mean())
    assert np.mean(moved) < 0.5
    assert np.mean(still) > 3 * np.mean(moved)


def test_backgrounds() -> None:
    grounds = {}
    for background in ("plain", "texture", "new_texture"):
        task = make(background=background, goal="flee")
        for seed in (1, 2):
            task.reset(seed=seed)
            grounds[background, seed] = task._ground()
    assert grounds["plain", 1].std((1, 2)).max() == 0
    assert np.array_equal(grounds["texture", 1], grounds["texture", 2])
    assert np.array_equal(grounds["texture", 1], make(goal="flee")._texture.draw((0, 0), 64, 64))
    assert np.abs(grounds["new_texture", 1] - grounds["new_texture", 2]).mean() > 5
    for background in ("texture", "new_texture"):
        ground = grounds[background, 1]
        assert 8 < ground.std((1, 2)).mean() < 40
        assert np.abs(np.diff(ground, axis=1)).mean() < 0.3 * ground.std((1, 2)).mean()  # smooth
        assert 20 <= ground.min() <= ground.max() <= 190


def test_texture_is_exact_in_any_order_of_summing() -> None:
    texture = Texture(np.random.default_rng(1), 40, 48)
    down, along = (
        _spline((start + 0.5 + np.arange(side)) / KNOT, knots)
        for start, side, knots in zip((3.3, 5.7), (32, 40), texture._control.shape[1:], strict=True)
    )
    whole = [np.rint(4096 * weights).astype(np.int64) for weights in (down, along)]
    summed = np.einsum("yr,crk,xk->cyx", whole[0], texture._control.astype(np.int64), whole[1])
    assert np.array_equal(texture.draw((5.7, 3.3), 32, 40), (summed / 2**24).astype(np.float32))


@pytest.mark.parametrize("looks", [1, 3, 8])
def test_looks_and_sizes(looks: int) -> None:
    task = make(pucks=8, looks=looks, sizes=(3, 4), goal="flee", background="plain")
    frame, info = task.reset(seed=0)
    shown = {tuple(pixel) for pixel in frame.reshape(-1, 3).tolist()} & {tuple(c) for c in LOOKS.tolist()}
    assert len(shown) == looks
    radius = info["truth"].radius
    assert 3 <= radius.min() < radius.max() <= 4


@pytest.mark.parametrize("frame_size", [(48, 80), (128, 96), (32, 32)])
@pytest.mark.parametrize("camera", ["still", "moving"])
def test_any_frame_size(frame_size: tuple[int, int], camera: str) -> None:
    task = make(frame_size=frame_size, camera=camera, pucks=3)
    frames, truth = play(task, 0)
    assert frames.shape[1:] == (*frame_size, 3)
    assert np.nanmax(truth.box[..., 2]) <= frame_size[1]
    assert np.nanmax(truth.box[..., 3]) <= frame_size[0]
    goal = task.ring - truth.camera
    assert (goal > 0).all()
    assert (goal < frame_size[::-1]).all()
