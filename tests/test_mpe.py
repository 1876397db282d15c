"""flam_rl/Tag-v0 and flam_rl/Spread-v0: mpe2's own worlds, drawn and told."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from suites import need

from flam_rl.cli import main
from flam_rl.data.minari import read_entities
from flam_rl.envs.tasks.mpe import GROUND, MPETask
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.types import Episode, Truth

need("mpe2", "mpe")


def make(name: str, **arguments) -> MPETask:
    return gym.make(f"flam_rl/{name}-v0", **arguments).unwrapped


def record(name: str, policy: str, steps: int = 300, **arguments) -> list[tuple[Episode, Truth]]:
    found = record_episodes(make(name, **arguments), steps, 1, policy)
    return [(episode, Truth(**episode.entities)) for episode in found]


@pytest.mark.parametrize("name", ["Tag", "Spread"])
@pytest.mark.parametrize("options", [{"others": 1}, {"others": 5, "frame_size": (64, 96)}])
def test_passes_the_env_checker(name: str, options: dict) -> None:
    check_env(make(name, **options), skip_render_check=False)


@pytest.mark.parametrize("name", ["Tag", "Spread"])
def test_same_seed_same_episode(name: str) -> None:
    first, second = record(name, "mixed"), record(name, "mixed")
    for (a, truth), (b, same) in zip(first, second, strict=True):
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.rewards, b.rewards)
        assert truth == same
    task = make(name)
    assert len({task.reset(seed=seed)[0].tobytes() for seed in range(5)}) == 5


@pytest.mark.parametrize("name", ["Tag", "Spread"])
@pytest.mark.parametrize("frame_size", [(64, 64), (96, 128)])
def test_truth_agrees_with_the_picture(name: str, frame_size: tuple[int, int]) -> None:
    """An agent that stands alone is unmixed from the frame; its centre of mass and its area are the truth's."""
    task = make(name, frame_size=frame_size)
    colours = 255 * np.array([agent.color for agent in task._agents])
    alone = 0
    for episode, truth in record(name, "random", frame_size=frame_size):
        for frame, presence, centre, radius in zip(
            episode.frames, truth.presence, truth.centre, truth.radius, strict=True
        ):
            for row in np.flatnonzero(presence):
                x0, y0 = np.floor(centre[row] - radius[row] - 2).astype(int)
                x1, y1 = np.ceil(centre[row] + radius[row] + 2).astype(int)
                if x0 < 0 or y0 < 0 or x1 > frame_size[1] or y1 > frame_size[0]:
                    continue
                way = colours[row] - GROUND
                patch = frame[y0:y1, x0:x1].astype(float) - GROUND
                share = patch @ way / (way @ way)
                if np.abs(patch - share[..., None] * way).max() > 2:
                    continue  # something else is there
                others = np.delete(np.arange(len(presence)), row)
                if (
                    np.linalg.norm(centre[others] - centre[row], axis=1)[presence[others]].min(initial=99)
                    < 2 * radius[row] + 8
                ):
                    continue
                ys, xs = np.mgrid[y0:y1, x0:x1] + 0.5
                found = np.array([(xs * share).sum(), (ys * share).sum()]) / share.sum()
                assert np.linalg.norm(found - centre[row]) < 0.1
                assert share.sum() == pytest.approx(np.pi * radius[row] ** 2, rel=0.1)
                alone += 1
    assert alone > 100


@pytest.mark.parametrize("name", ["Tag", "Spread"])
def test_velocity_action_and_contact_are_what_happened(name: str) -> None:
    moved = 0
    for episode, truth in record(name, "mixed", 600):
        assert (truth.action[0] == -1).all()
        assert np.array_equal(
            truth.action[1:, 0][truth.presence[1:, 0]], episode.actions[truth.presence[1:, 0]]
        )
        both = truth.presence[1:] & truth.presence[:-1]
        assert np.diff(truth.centre, axis=0)[both] == pytest.approx(truth.velocity[1:][both], abs=1e-3)
        # mpe2 moves by the velocity of before, then changes it by a quarter and the push: seen in the step that follows.
        free = both[1:] & both[:-1] & ~truth.contact[1:-1] & ~truth.contact[:-2] & ~truth.contact[2:]
        change = truth.velocity[2:] - 0.75 * truth.velocity[1:-1]
        sideways = np.array([(0, 0), (-1, 0), (1, 0), (0, 1), (0, -1)])[truth.action[1:-1]]  # y down
        speed = np.linalg.norm(truth.velocity[2:], axis=-1)
        slow = free & (speed < 1.2)  # below mpe2's limits of speed
        along = (change * sideways).sum(-1)
        pushed = slow & (truth.action[1:-1] > 0)
        assert (along[pushed] > 0.5).all()
        assert np.abs(change[slow & (truth.action[1:-1] == 0)]).max(initial=0) < 1e-2
        moved += pushed.sum()
    assert moved > 100


def test_rewards_are_dense_and_mpe2s_own() -> None:
    for episode, truth in record("Tag", "mixed", 600):
        touching = np.linalg.norm(truth.centre[1:, 1:] - truth.centre[1:, :1], axis=-1)
        touching = (touching < truth.radius[1:, 1:] + truth.radius[1:, :1]).sum(1)
        known = truth.presence[1:].all(1)
        assert (episode.rewards[known] <= -10 * touching[known]).all()
        assert not episode.terminations.any()
        assert len(episode.actions) == 50
    task = make("Spread")
    for episode, _ in record("Spread", "random"):
        assert (episode.rewards < 0).all()
        assert len(np.unique(episode.rewards)) > 40
    assert task._env.unwrapped.local_ratio == 0.5


@pytest.mark.learning
@pytest.mark.parametrize(("name", "better"), [("Tag", 40), ("Spread", 8)])
def test_the_expert_gets_more_than_chance_and_the_others_act(name: str, better: float) -> None:
    totals = {
        policy: np.mean([episode.rewards.sum() for episode, _ in record(name, policy, 1500)])
        for policy in ("expert", "random")
    }
    assert totals["expert"] > totals["random"] + better
    truths = [truth for _, truth in record(name, "mixed", 600)]
    actions = np.concatenate([truth.action[1:, 1:] for truth in truths])
    shares = np.bincount(actions[actions >= 0], minlength=5) / (actions >= 0).sum()
    assert shares.min() > 0.05
    assert np.concatenate([truth.presence for truth in truths]).mean() > 0.9
    assert np.concatenate([truth.contact for truth in truths]).mean() > 0.02


def test_success() -> None:
    task = make("Tag")
    for seed in range(8):
        _, info = task.reset(seed=seed)
        touched, ended = not info["success"], False
        while not ended:
            _, reward, _, ended, info = task.step(0)
            touched |= reward <= -10
            assert info["success"] != touched
    spread = make("Spread", max_steps=400)
    spread.reset(seed=0)
    covered = [spread.step(spread.expert_action())[-1]["success"] for _ in range(400)]
    assert 0 < np.mean(covered) < 1


@pytest.mark.parametrize("name", ["Tag", "Spread"])
def test_collects_and_inspects(name: str, tmp_path: Path) -> None:
    main(["collect", "--out", str(tmp_path / "data"), "--task", f"flam_rl/{name}-v0", "--steps", "90"])
    main(["inspect", "--data", str(tmp_path / "data"), "--out", str(tmp_path / "out")])
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [episode["kept"] for episode in results["episodes"]] == [51, 51]
    assert Truth(**read_entities(tmp_path / "data")[0]).box.shape == (51, {"Tag": 4, "Spread": 3}[name], 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scenario": "push"}, "scenario is 'push'; allowed are"),
        ({"others": 0}, "others is 0; allowed is 1 to 8"),
        ({"frame_size": (16, 64)}, "allowed are a height and a width of 32 or more"),
        ({"max_steps": 0}, "max_steps is 0; allowed is 1 or more"),
        ({"render_mode": "human"}, "render_mode is 'human'; allowed are"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MPETask(**arguments)


def test_bad_actions_and_behaviours_are_explained() -> None:
    task = make("Tag")
    task.reset(seed=0)
    with pytest.raises(ValueError, match="allowed are the integers 0 to 4"):
        task.step(5)
    with pytest.raises(ValueError, match="behavior is 'dance'; allowed are"):
        task.make_behavior("dance", np.random.default_rng(0))


def test_a_missing_mpe2_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "mpe2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "mpe2", None)
    with pytest.raises(ImportError) as raised:
        make("Tag")
    assert str(raised.value) == "flam_rl/Tag-v0 needs the package mpe2: pip install 'flam_rl[mpe]'"
