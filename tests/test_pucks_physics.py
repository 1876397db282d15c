"""flam_rl/Pucks-v0: how pucks move, bounce and are pushed."""

from __future__ import annotations

import numpy as np
import pytest
from pucks import BUSY, make, play

from flam_rl.envs.tasks.pucks_motions import DRAG, PUSH, PUSHES
from flam_rl.envs.tasks.pucks_table import Table


@pytest.mark.parametrize(
    "options", [{}, {"pucks": 12}, BUSY | {"max_steps": 300}], ids=["four", "crowd", "busy"]
)
def test_pucks_neither_overlap_nor_pass_walls_nor_run_away(options: dict) -> None:
    task = make(goal="flee", **options)
    touched = 0
    for seed in range(3):
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
