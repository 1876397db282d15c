"""flam_rl/Pucks-v0: physics, truth, picture and options."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy import ndimage

from flam_rl.cli import main
from flam_rl.commands.collect import parse_kwargs
from flam_rl.commands.tasks import make_task
from flam_rl.data.minari import read_entities
from flam_rl.data.reading import read
from flam_rl.envs.tasks.drawing import KNOT, Texture, _spline, coverage
from flam_rl.envs.tasks.pucks import LOOKS, PLAIN, PucksTask
from flam_rl.envs.tasks.pucks_motions import DRAG, PUSH, PUSHES
from flam_rl.envs.tasks.pucks_table import Table
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.types import Truth

BUSY = {"pucks": 6, "looks": 8, "background": "new_texture", "camera": "moving", "visits": True}


def make(**arguments) -> PucksTask:
    return gym.make("flam_rl/Pucks-v0", **arguments).unwrapped


def play(task: PucksTask, seed: int, behavior: str = "patrol") -> tuple[np.ndarray, Truth]:
    """Frames and truth of an episode in which puck 0 acts by a behaviour."""
    frame, info = task.reset(seed=seed)
    act = task.make_behavior(behavior, np.random.default_rng(seed))
    frames, truths, ended = [frame], [info["truth"]], False
    while not ended:
        frame, _, terminated, truncated, info = task.step(act())
        frames.append(frame)
        truths.append(info["truth"])
        ended = terminated or truncated
    return np.stack(frames), Truth.stack(truths)


@pytest.mark.parametrize("goal", ["reach", "flee"])
@pytest.mark.parametrize("action", ["discrete", "box"])
@pytest.mark.parametrize("options", [{}, BUSY], ids=["default", "busy"])
def test_passes_the_env_checker(goal: str, action: str, options: dict) -> None:
    check_env(make(goal=goal, action=action, **options), skip_render_check=False)


def test_many_at_once() -> None:
    envs = gym.make_vec("flam_rl/Pucks-v0", num_envs=3, vectorization_mode="sync", pucks=3)
    frames, infos = envs.reset(seed=0)
    assert frames.shape == (3, 64, 64, 3)
    assert [truth.box.shape for truth in infos["truth"]] == [(3, 4)] * 3


DIGEST = """
import sys, json, hashlib, gymnasium as gym, numpy as np, flam_rl
env = gym.make("flam_rl/Pucks-v0", **json.loads(sys.argv[1])).unwrapped
digest, rng = hashlib.sha256(env.reset(seed=7)[0].tobytes()), np.random.default_rng(0)
for _ in range(99):
    frame, reward, _, _, info = env.step(int(rng.integers(5)))
    digest.update(frame.tobytes() + repr(reward).encode())
    for array in info["truth"].arrays().values():
        digest.update(array.tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("options", [{"pucks": 12}, BUSY], ids=["crowd", "busy"])
def test_same_seed_same_rollout_in_any_process(options: dict) -> None:
    runs = [
        subprocess.run(
            [sys.executable, "-c", DIGEST, json.dumps(options)], capture_output=True, text=True, check=True
        )
        for _ in range(2)
    ]
    assert runs[0].stdout == runs[1].stdout
    task = make(**options)
    again = [hashlib.sha256(play(task, seed)[0].tobytes()).hexdigest() for seed in (1, 1, 2)]
    assert again[0] == again[1] != again[2]  # the table of before leaves nothing behind


@pytest.mark.parametrize(
    "options", [{}, {"pucks": 12}, BUSY | {"max_steps": 300}], ids=["four", "crowd", "busy"]
)
def test_pucks_neither_overlap_nor_pass_walls_nor_run_away(options: dict) -> None:
    task = make(goal="flee", **options)
    touched = 0
    for seed in range(5):
        task.reset(seed=seed)
        ended = False
        while not ended:
            *_, terminated, truncated, info = task.step(task.expert_action())
            ended = terminated or truncated
            touched += info["truth"].contact.sum()
            present = task.table.present
            for index, puck in enumerate(present):
                assert all(puck.gap(other) > -1 for other in present[:index])
                depth = min(puck.x, task.table.width - puck.x, puck.y, task.table.height - puck.y)
                assert puck.stage != "in" or depth > puck.radius - 1
                assert np.hypot(puck.vx, puck.vy) < 4
    assert touched > 20


def test_two_pucks_bounce_as_mechanics_says() -> None:
    table = Table(64, 64, 2, (4, 4), np.random.default_rng(0))
    one, two = table.add(0, 5.0, 20.0, 30.0, 2.0, 0.0), table.add(1, 3.0, 34.0, 33.0, -1.0, 0.5)
    none = {0: (0.0, 0.0), 1: (0.0, 0.0)}
    mass = np.array([25.0, 9.0])[:, None]
    while not table.touched:
        before = np.array([(p.vx, p.vy) for p in (one, two)])
        table.step(none)
    assert table.touched == {0, 1}
    assert table.met == {(0, 1)}
    before, after = (1 - DRAG) * before, np.array([(p.vx, p.vy) for p in (one, two)])
    assert after.sum() != pytest.approx(before.sum())
    assert (mass * after).sum(0) == pytest.approx((mass * before).sum(0))  # momentum
    normal = (after - before)[1] / np.linalg.norm((after - before)[1])
    approach, parting = (before[0] - before[1]) @ normal, (after[1] - after[0]) @ normal
    assert parting == pytest.approx(0.81 * approach, rel=1e-3)


def test_without_pushes_energy_only_falls() -> None:
    rng = np.random.default_rng(3)
    table = Table(64, 64, 6, (4, 4), rng)
    for row in range(6):
        table.add(row, 4.0, 10 + 20 * (row % 3), 12 + 25 * (row // 3), *rng.uniform(-2, 2, 2))
    energy = []
    for _ in range(60):
        energy.append(sum(p.radius**2 * (p.vx**2 + p.vy**2) for p in table.present))
        table.step(dict.fromkeys(range(6), (0.0, 0.0)))
    assert (np.diff(energy) <= 0).all()
    assert energy[-1] < 0.01 * energy[0]


@pytest.mark.parametrize("options", [{"pucks": 8}, BUSY], ids=["still", "busy"])
def test_actions_explain_motion_where_nothing_touches(options: dict) -> None:
    checked = 0
    for seed in range(5):
        _, truth = play(make(**options), seed)
        assert (truth.action[0] == -1).all()
        same = truth.presence[1:] & truth.presence[:-1] & (truth.identity[1:] == truth.identity[:-1])
        alone = same & ~truth.contact[1:]
        push = np.array(PUSHES)[truth.action[1:]]
        expected = (1 - DRAG) * truth.velocity[:-1] + PUSH * push
        assert truth.velocity[1:][alone] == pytest.approx(expected[alone], abs=1e-4)
        ground = truth.centre + truth.camera[:, None]
        alone &= ~truth.contact[:-1]  # what is left of an overlap is undone a step later
        assert np.diff(ground, axis=0)[alone] == pytest.approx(truth.velocity[1:][alone], abs=1e-3)
        checked += alone.sum()
    assert checked > 1000


def test_a_box_action_pushes_by_its_own_amount() -> None:
    task = make(action="box", pucks=2)
    for force, push in (
        ((0.3, -0.9), 3),
        ((-0.7, 0.7), 1),
        ((0.4, 0.5), 0),
        ((0.9, 0.2), 2),
        ((0.0, 1.0), 4),
    ):
        _, info = task.reset(seed=4)
        before = info["truth"].velocity[0]
        truth = task.step(np.array(force, np.float32))[-1]["truth"]
        assert not truth.contact[0]
        assert truth.velocity[0] == pytest.approx((1 - DRAG) * before + PUSH * np.array(force), abs=1e-5)
        assert truth.action[0] == push


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


def test_pucks_move_at_a_fair_pace() -> None:
    truths = [play(make(), seed)[1] for seed in range(15)]
    speed = np.concatenate([np.linalg.norm(truth.velocity, axis=-1) for truth in truths])[:, 1:]
    assert 0.5 < speed.mean() < 1
    assert np.quantile(speed, 0.9) < 2
    assert 0.05 < (speed < 0.1).mean() < 0.3  # some rest
    assert 0.02 < np.concatenate([truth.contact for truth in truths])[:, 1:].mean() < 0.12
    action = np.concatenate([truth.action[1:] for truth in truths])[:, 1:]
    shares = np.bincount(action.ravel(), minlength=5) / action.size
    assert 0.4 < shares[0] < 0.7
    assert shares[1:].min() > 0.07


@pytest.mark.parametrize(
    ("arguments", "episodes", "least", "most"),
    [
        ({}, 100, 0.95, 0.15),
        ({"action": "box", **BUSY}, 40, 0.95, 0.15),
        ({"goal": "flee"}, 30, 0.75, 0.15),
    ],
    ids=["reach", "busy", "flee"],
)
def test_the_expert_succeeds_and_random_seldom_does(
    arguments: dict, episodes: int, least: float, most: float
) -> None:
    task = make(**arguments)
    task.action_space.seed(0)
    rates = []
    for act in (task.expert_action, task.action_space.sample):
        successes = []
        for seed in range(episodes):
            task.reset(seed=seed)
            total, ended = 0.0, False
            while not ended:
                _, reward, terminated, truncated, info = task.step(act())
                total, ended = total + reward, terminated or truncated
            assert terminated != truncated or (terminated and task._steps == task.max_steps)
            if task.goal == "reach":
                assert total == float(terminated) == float(info["success"])
            else:
                assert total == -float(terminated) == float(info["success"]) - 1
            successes.append(info["success"])
        rates.append(np.mean(successes))
    assert rates[0] >= least
    assert rates[1] <= most


def test_collects_from_the_command_line(tmp_path: Path) -> None:
    options = json.dumps(BUSY | {"max_steps": 40})
    main(
        ["collect", "--out", str(tmp_path / "data"), "--task", "flam_rl/Pucks-v0", "--task-kwargs", options]
        + ["--steps", "120", "--seed", "3"]
    )
    again = list(record_episodes(make(**json.loads(options)), 120, 3))
    video, entities = read(tmp_path / "data").video, read_entities(tmp_path / "data")
    assert len(again) == len(entities) >= 3
    for episode, frames, truth in zip(again, video.episodes, entities, strict=True):
        assert np.array_equal(frames, episode.frames)
        assert Truth(**truth) == Truth(**episode.entities)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ("pucks=6", "which is not JSON"),
        ("[6]", "allowed is a JSON object"),
        ('{"puks": 6}', "unexpected keyword argument 'puks'"),
    ],
)
def test_bad_task_arguments_are_explained(wrong: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task("flam_rl/Pucks-v0", parse_kwargs(wrong))


@pytest.mark.parametrize("policy", ["mixed", "goal", "random", "expert"])
def test_box_actions_are_recorded(policy: str) -> None:
    first, second = (next(record_episodes(make(action="box"), 1, 5, policy)) for _ in range(2))
    assert first.actions.dtype == np.float32
    assert first.actions.shape == (len(first.frames) - 1, 2)
    assert np.array_equal(first.actions, second.actions)


def test_truth_of_an_episode_is_checked() -> None:
    one, two = np.zeros(2, bool), np.zeros(3, bool)
    assert Truth(presence=one) != Truth(presence=one, contact=one)
    assert Truth(radius=np.array([np.nan])) == Truth(radius=np.array([np.nan]))
    assert list(Truth.stack([Truth(presence=one)] * 4).arrays()) == ["presence"]
    with pytest.raises(ValueError, match="same fields and shapes in each frame"):
        Truth.stack([Truth(presence=one), Truth(presence=two)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pucks": 1}, "pucks is 1; allowed is 2 to 12"),
        ({"pucks": 13}, "pucks is 13; allowed is 2 to 12"),
        ({"looks": 9}, "looks is 9; allowed is 1 to 8"),
        ({"action": "push"}, "action is 'push'; allowed are"),
        ({"goal": "win"}, "goal is 'win'; allowed are"),
        ({"background": "sky"}, "background is 'sky'; allowed are"),
        ({"camera": "drone"}, "camera is 'drone'; allowed are"),
        ({"render_mode": "human"}, "render_mode is 'human'; allowed are"),
        ({"sizes": (5, 3)}, "allowed are two radii"),
        ({"frame_size": (16, 64)}, "allowed are a height and a width of 32 or more"),
        ({"max_steps": 0}, "max_steps is 0; allowed is 1 or more"),
        ({"pucks": 12, "sizes": (8, 8)}, "fill 0.75 of the table; allowed is 0.4"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PucksTask(**arguments)


def test_bad_actions_and_behaviours_are_explained() -> None:
    for action, wrong, message in (
        ("discrete", 5, "allowed are the integers 0 to 4"),
        ("discrete", 1.5, "allowed are the integers 0 to 4"),
        ("box", [0.0, np.nan], "two numbers from -1 to 1"),
        ("box", [0.0, 1.5], "two numbers from -1 to 1"),
        ("box", [0.0], "two numbers from -1 to 1"),
    ):
        task = make(action=action)
        task.reset(seed=0)
        with pytest.raises(ValueError, match=message):
            task.step(wrong)
    with pytest.raises(ValueError, match="behavior is 'dance'; allowed are"):
        task.make_behavior("dance", np.random.default_rng(0))


def test_a_missing_pymunk_is_explained() -> None:
    code = (
        "import sys; sys.modules['pymunk'] = None\n"
        "import gymnasium as gym, flam_rl\n"
        "try: gym.make('flam_rl/Pucks-v0')\n"
        "except ImportError as error: print(error)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "flam_rl/Pucks-v0 needs the package pymunk: pip install 'flam_rl[pucks]'\n"
