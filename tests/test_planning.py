"""Planning in a world whose best plans have a closed form, and in the shipped ones."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from analytic import (
    CODES,
    GOAL,
    SIDE,
    JointPointsModel,
    PointsTask,
    factors_of,
    frame_of,
    points_labels,
    points_world,
    start_pixels,
)
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

import flam_rl
from flam_rl.agents import PictureGoal, Planner, PlanningConfig
from flam_rl.agents.planning import search
from flam_rl.cli import run
from flam_rl.core.heads import DenseHead, EventHead
from flam_rl.core.info import WorldInfo
from flam_rl.core.world import World
from flam_rl.envs import DecodedEnv, DecodedVectorEnv
from flam_rl.evaluation.policies import acting, score_policy

ALGORITHMS = ("cem", "mppi")
CONFIG = PlanningConfig(rollouts=256, horizon=8, iterations=4)


@pytest.fixture
def world() -> World:
    return points_world()


def observed(pixels: np.ndarray) -> np.ndarray:
    return factors_of(torch.as_tensor(pixels).float()).flatten(-2).numpy()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_plan_is_the_shortest_way_to_the_reward(world: World, algorithm: str) -> None:
    """From d columns before the goal a plan takes d steps, whatever the others do."""
    columns = np.arange(GOAL - 4, GOAL)
    pixels = np.stack([np.array([[column, 8], [3, 3], [12, 3]]) for column in columns])
    planner = Planner(world, algorithm, CONFIG)
    state = None
    for step in range(4):
        actions, state = planner.predict(observed(pixels), state)
        assert actions.shape == (4, 2)
        going = GOAL - columns > step
        assert np.array_equal(actions[going], np.tile(CODES[1], (going.sum(), 1)))
        pixels[:, 0, 0] += going


def test_a_reward_out_of_reach_attracts_and_a_bad_one_is_not_entered() -> None:
    """The goal is 12 columns away, plans have 4 steps; the heads' logits say which way it is."""
    world = points_world()
    assert world.labels is not None
    far = observed(np.array([[0, 8], [3, 3], [12, 3]]))
    brief = replace(CONFIG, horizon=4)
    assert np.array_equal(Planner(world, "cem", brief).predict(far)[0], CODES[1])
    world.labels.reward.value.neg_()
    planner, pixels, state = Planner(world, "mppi", brief), np.array([[GOAL - 1, 8], [3, 3], [12, 3]]), None
    for _ in range(8):
        action, state = planner.predict(observed(pixels), state)
        pixels[0] += action.astype(int)
        assert pixels[0, 0] < GOAL


def test_leaning_is_by_the_member_that_doubts_most() -> None:
    head = EventHead(2, (0,), 0.5)
    factors = torch.randn(50, 3, 2)
    prob = head.outputs(factors).sigmoid()
    assert torch.allclose(head.leaning(factors), prob.amin(0).log(), atol=1e-5)
    head.value.neg_()
    assert torch.allclose(head.leaning(factors), (1 - prob.amax(0)).log(), atol=1e-5)
    assert DenseHead(2, (0,)).leaning(factors).tolist() == [0] * 50


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_batch_reaches_its_pictures(world: World, algorithm: str) -> None:
    """Points are led to a goal of their own each, all over the frame, in as many steps as they are away."""
    rng = np.random.default_rng(0)
    goals = rng.integers(0, SIDE, (6, 3, 2))
    goal = PictureGoal.from_frames(world, np.stack([frame_of(pixels) for pixels in goals]), [1])
    planner = Planner(world, algorithm, CONFIG, goal, control=[1])
    pixels = rng.integers(0, SIDE, (6, 3, 2))
    away = np.abs(pixels[:, 1] - goals[:, 1]).sum(1)
    state = None
    for _ in range(away.max() + 2):
        actions, state = planner.predict(observed(pixels), state)
        pixels[:, 1] = np.clip(pixels[:, 1] + actions.astype(int), 0, SIDE - 1)
    assert np.array_equal(pixels[:, 1], goals[:, 1])


def test_it_acts_on_the_real_task_as_any_policy_does(world: World) -> None:
    make = partial(PointsTask, max_steps=30)
    env = DecodedVectorEnv(SyncVectorEnv([make] * 3, autoreset_mode=AutoresetMode.DISABLED), world)
    act = acting(Planner(world, "cem", CONFIG, near_goal(world)))
    assert score_policy(env, act, 6, 0).success_rate == 1
    alone = DummyVecEnv([lambda: DecodedEnv(make(), world)])
    mean, _ = evaluate_policy(Planner(world, "mppi", CONFIG, near_goal(world)), alone, 2, warn=False)
    assert mean == 1
    single = DecodedEnv(make(), world)
    action, _ = Planner(world, "cem", CONFIG).predict(single.reset(seed=0)[0])
    assert action in single.action_space


@pytest.mark.parametrize("control", [[0], [0, 1]])
def test_it_plans_numbers_of_action_codes_too(world: World, control: list[int]) -> None:
    env = gym.make_vec("FLAM-v0", num_envs=5, world=world, control=control, actions="codes")
    seen, _ = env.reset(seed=0)
    latent, codes = (
        Planner(world, "cem", CONFIG, control=control, actions=kind).predict(seen)[0]
        for kind in ("latent", "codes")
    )
    assert codes in env.action_space
    assert np.array_equal(CODES[codes].reshape(5, -1), latent)


def near_goal(world: World) -> PictureGoal:
    return PictureGoal(world, [0], torch.tensor([[[SIDE - 0.5, 8.5]]]))


def test_two_agents_are_planned_for_together() -> None:
    world = points_world(labels=False)
    world.labels = points_labels((2, 0))
    goal = PictureGoal(world, [2, 0], torch.tensor([[[8.5, 8.5], [2.5, 2.5]]]))
    planner = Planner(world, "cem", replace(CONFIG, rollouts=2048, iterations=8), goal)
    pixels, state = np.array([[4, 2], [9, 9], [8, 6]]), None
    for _ in range(5):
        actions, state = planner.predict(observed(pixels), state)
        pixels[[2, 0]] += actions.reshape(2, 2).astype(int)  # each 2 steps away
    assert np.array_equal(pixels, [[2, 2], [9, 9], [8, 8]])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_same_seed_plans_the_same(world: World, algorithm: str) -> None:
    seen = observed(np.stack([start_pixels(seed) for seed in range(4)]))

    def plans(seed: int) -> list[np.ndarray]:
        planner, state, found = Planner(world, algorithm, CONFIG, seed=seed), None, []
        for _ in range(3):
            action, state = planner.predict(seen, state)
            found += [action, *state]
        return found

    first, again, other = plans(1), plans(1), plans(2)
    assert all(map(np.array_equal, first, again))
    assert not all(map(np.array_equal, first, other))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_iterations_find_a_rare_best_plan(algorithm: str) -> None:
    """Plans of 6 codes of 4 score by how many are code 3; a random one of 4,096 is the best."""
    config = PlanningConfig(rollouts=400, horizon=6, iterations=4, temperature=0.2)
    generator = torch.Generator().manual_seed(0)
    tried: list[torch.Tensor] = []

    def roll(count: int, plans: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        tried.append(
            torch.randint(3, (2, count, 6, 1), generator=generator)
            if plans is None
            else torch.where(torch.rand(plans.shape, generator=generator) < 0.1, 3, plans)
        )
        return tried[-1], (tried[-1] == 3).float().sum((2, 3))

    plan = search(roll, 4, algorithm, config, generator)
    assert [part.shape[1] for part in tried] == [100] * 4
    assert (plan == 3).float().mean() > 0.8
    assert (tried[-1] == 3).float().mean() > (tried[1] == 3).float().mean() + 0.2


def test_what_was_planned_is_tried_again_but_in_a_new_episode(world: World) -> None:
    seen, given = observed(np.stack([start_pixels(0)] * 2)), []
    planner = Planner(world, "cem", replace(CONFIG, iterations=2))
    _, (rest,) = planner.predict(seen)
    roll = planner._roll
    planner._roll = lambda factors, count, plans: given.append(plans) or roll(factors, count, plans)
    planner.predict(seen, (rest,), np.array([True, False]))
    assert np.array_equal(given[1][1, 0].numpy(), rest[1])
    assert not np.array_equal(given[1][0, 0].numpy(), rest[0])


def test_bad_input_says_what_is_allowed(world: World) -> None:
    with pytest.raises(ValueError, match="horizon is 0; allowed is 1 to"):
        PlanningConfig(horizon=0)
    with pytest.raises(ValueError, match="iterations is 9; allowed is 1 to 8"):
        PlanningConfig(rollouts=8, iterations=9)
    with pytest.raises(ValueError, match="algorithm is 'dqn'; allowed are 'cem', 'mppi'"):
        Planner(world, "dqn")
    with pytest.raises(
        ValueError, match=r"actions is 'real', but mppi plans .* allowed are 'latent' and 'codes'"
    ):
        Planner(world, "mppi", actions="real")
    with pytest.raises(ValueError, match="no labels that tell a reward; give a goal"):
        Planner(points_world(labels=False), control=[0])
    with pytest.raises(ValueError, match=r"control is \[3\]; allowed are"):
        Planner(world, control=[3])
    joint = World(JointPointsModel(), points_world().stored_starts, WorldInfo(), points_labels())
    with pytest.raises(ValueError, match="cem plans with action codes; the model 'points' has none"):
        Planner(joint)
    with pytest.raises(ValueError, match=r"observations have shape \(5,\); allowed are .*\(6,\) or \(B, 6\)"):
        Planner(world).predict(np.zeros(5, np.float32))
    with pytest.raises(
        ValueError, match=r"a goal is frames uint8 \(8, 8, 3\); allowed are uint8 \(16, 16, 3\)"
    ):
        PictureGoal.from_frames(world, np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(ValueError, match=r"control is \[7\]; allowed are"):
        PictureGoal.from_frames(world, frame_of(start_pixels(0)), [7])


@pytest.mark.learning
@pytest.mark.parametrize("name", ["multigrid", "pucks"])
def test_centres_are_the_middles_of_what_is_drawn(name: str) -> None:
    world = flam_rl.load_world(name)
    few = {key: rows if key == "context" else rows[:20] for key, rows in world.stored_starts.items()}
    scene = world.model.scenes(few)
    with torch.inference_mode():
        found = world.model.centres(scene.factors)
        shares = world.shares(scene)
        alone = world.model.centres(scene.factors[:, [1]])
    pixel = torch.arange(64) + 0.5
    total = shares.sum((-2, -1))
    middle = torch.stack([shares.sum(-2) @ pixel, shares.sum(-1) @ pixel], -1) / total[..., None]
    whole = total > 0.8 * total.median()  # what another hides is not in its middle
    assert whole.float().mean() > 0.5
    assert (found - middle)[whole].norm(dim=-1).max() < 1
    assert torch.allclose(alone[:, 0], found[:, 1], atol=0.5)


@pytest.mark.learning
def test_planning_in_the_shipped_world_reaches_the_goal_of_the_real_task() -> None:
    pytest.importorskip("multigrid")
    world = flam_rl.load_world("multigrid")
    task = partial(gym.make, world.info.task, **world.info.task_kwargs)
    tasks = SyncVectorEnv([task] * 8, autoreset_mode=AutoresetMode.DISABLED)
    act = acting(Planner(world, "cem", PlanningConfig(rollouts=256)))
    score = score_policy(DecodedVectorEnv(tasks, world), act, 16, 0)
    assert score.success_rate is not None
    assert score.success_rate >= 0.8  # at random 0.14


@pytest.mark.learning
def test_the_command_plans_on_the_real_task(tmp_path: Path) -> None:
    pytest.importorskip("multigrid")
    few = ["--planning.rollouts", "16", "--planning.horizon", "6", "--episodes", "2"]
    run(["agent", "--algo", "mppi", *few, "--out", str(tmp_path)])
    results = json.loads((tmp_path / "results.json").read_text())
    assert (results["algo"], results["planning"]["rollouts"]) == ("mppi", 16)
    assert 0 <= results["task"]["success_rate"] <= 1
    assert not (tmp_path / "policy.zip").exists()
