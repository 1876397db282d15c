"""A world as PettingZoo's parallel env."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from analytic import CODES, GOAL, JointPointsModel, PointsModel, factors_of, points_world
from pettingzoo.test import parallel_api_test, parallel_seed_test

import flam_rl
from flam_rl.core.world import World
from flam_rl.envs import FLAMEnv, parallel_env

WORLDS = {
    "points": points_world(),
    "multigrid": flam_rl.load_world("multigrid"),
    "pucks": flam_rl.load_world("pucks"),
}
STAY, RIGHT = 0, 1
"""Codes of the world of points."""


@pytest.mark.parametrize("rewards", ["shared", "own"])
@pytest.mark.parametrize("actions", ["latent", "codes"])
@pytest.mark.parametrize("name", WORLDS)
def test_pettingzoos_api_and_seed_tests_pass(name: str, actions: Any, rewards: Any) -> None:
    make = partial(parallel_env, WORLDS[name], rewards=rewards, horizon=12, actions=actions)
    parallel_api_test(make(), num_cycles=30)
    parallel_seed_test(make, num_cycles=30)


def test_spaces_and_names() -> None:
    env = parallel_env(WORLDS["points"], control=[2, 0])
    assert env.possible_agents == ["factor_2", "factor_0"]
    assert env.action_space("factor_2") == gym.spaces.Box(-3, 3, (2,))
    assert env.action_space("factor_2") is not env.action_space("factor_0")  # each has a seed of its own
    assert env.observation_space("factor_0") == env.state_space == FLAMEnv(WORLDS["points"]).observation_space
    by_code = parallel_env("multigrid", actions="codes")
    assert by_code.possible_agents == [f"factor_{factor}" for factor in range(4)]
    assert by_code.action_space("factor_3") == gym.spaces.Discrete(16)
    assert parallel_env("multigrid", control="agent").possible_agents == ["factor_3"]


@pytest.mark.parametrize(
    ("name", "actions"), [("multigrid", "codes"), ("pucks", "latent"), ("points", "latent")]
)
def test_it_is_flam_v0_of_which_each_agent_has_a_part(name: str, actions: Any) -> None:
    world = WORLDS[name]
    env = parallel_env(world, horizon=6, actions=actions)
    whole = FLAMEnv(world, "all", horizon=6, actions=actions)
    views, infos = env.reset(seed=3)
    observation, info = whole.reset(seed=3)
    for agent in env.possible_agents:
        env.action_space(agent).seed(1)
    while env.agents:
        assert np.allclose(env.state(), observation, atol=1e-4)
        for agent, view in views.items():  # the same numbers, its own factor first
            factor = int(agent.removeprefix("factor_"))
            split = env.state()[: world.factors * world.factor_dim].reshape(world.factors, -1)
            expected = np.concatenate([split[factor], np.delete(split, factor, 0).ravel()])
            assert np.array_equal(view[: len(expected)], expected)
            assert np.array_equal(view[len(expected) :], env.state()[len(expected) :])
        if actions == "codes":
            masks = [info["action_mask"] for info in infos.values()]
            assert np.array_equal(np.concatenate(masks), info["action_mask"])
        given = {agent: env.action_space(agent).sample() for agent in env.agents}
        views, rewards, terminated, truncated, infos = env.step(given)
        together = np.hstack(list(given.values()))
        observation, reward, ended, cut, info = whole.step(together)
        assert set(rewards.values()) == {reward}
        assert set(terminated.values()) == {ended}
        assert set(truncated.values()) == {cut}
        assert np.array_equal(env.render(), whole.render())


def test_the_context_code_ends_every_view() -> None:
    env = parallel_env(points_world(ground=True))
    views, _ = env.reset(seed=1)
    for view in views.values():
        assert view.shape == (7,)
        assert view[6] == env.state()[6]


@pytest.mark.parametrize("agent", ["factor_0", "factor_1", "factor_2"])
def test_an_agents_action_moves_its_own_factor_only(agent: str) -> None:
    following = []
    for number in range(5):
        env = parallel_env(WORLDS["points"], actions="codes")
        env.reset(seed=7)
        env.step({one: number if one == agent else STAY for one in env.agents})
        following.append(env.state().reshape(3, 2))
    own = int(agent.removeprefix("factor_"))
    moved = np.stack(following) - following[STAY]
    assert np.allclose(np.delete(moved, own, 1), 0)
    wanted = CODES * 2 / 15
    inside = (np.abs(following[STAY][own] + wanted) <= 1).all(1)
    assert np.allclose(moved[inside, own], wanted[inside], atol=1e-6)
    assert inside.sum() > 2


def test_the_prior_acts_for_all_others() -> None:
    env = parallel_env(WORLDS["points"], control=[1], actions="codes")
    env.reset(seed=7)
    before = env.state().reshape(3, 2)
    for _ in range(8):
        env.step({"factor_1": STAY})
    after = env.state().reshape(3, 2)
    assert np.array_equal(before[1], after[1])
    assert (before[[0, 2]] != after[[0, 2]]).any(1).all()


@pytest.mark.parametrize("point", [0, 1, 2])
def test_own_rewards_are_the_heads_with_the_factor_in_the_agents_place(point: int) -> None:
    starts = torch.full((1, 3, 2), 3.0)
    starts[0, point, 0] = GOAL - 1
    plain = points_world()
    stored = {"factors": factors_of(starts), "context": starts.new_zeros(1, 0)}
    world, mine = World(plain.model, stored, plain.info, plain.labels), f"factor_{point}"
    everyone = {f"factor_{k}": RIGHT if k == point else STAY for k in range(3)}
    own = parallel_env(world, rewards="own", actions="codes")
    own.reset(seed=0)
    _, rewards, terminated, truncated, _ = own.step(everyone)
    assert rewards == {agent: float(agent == mine) for agent in everyone}
    assert terminated == {agent: agent == mine for agent in everyone}
    assert not any(truncated.values())
    assert own.agents == [agent for agent in everyone if agent != mine]
    own.step({agent: STAY for agent in own.agents})  # the others go on
    shared = parallel_env(world, actions="codes")
    shared.reset(seed=0)
    _, rewards, terminated, _, _ = shared.step(everyone)
    assert set(rewards.values()) == {float(point == 0)}  # point 0 is the task's agent
    assert set(terminated.values()) == {point == 0}
    assert bool(shared.agents) == (point != 0)


def test_without_labels_rewards_are_0_and_nothing_terminates() -> None:
    env = parallel_env(points_world(labels=False), rewards="own", horizon=40, actions="codes")
    env.reset(seed=0)
    for step in range(40):
        _, rewards, terminated, truncated, _ = env.step({agent: RIGHT for agent in env.agents})
        assert not any(rewards.values())
        assert not any(terminated.values())
        assert all(truncated.values()) == (step == 39)
    assert env.agents == []
    with pytest.raises(gym.error.ResetNeeded, match="the episode is over"):
        env.step({})


class Visitors(PointsModel):
    """A point is there while it is in the left half of the frame."""

    def present(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        return factors_BKS[..., 0] < 0


def test_agents_are_there_while_their_entities_are() -> None:
    starts = torch.tensor([[[-0.9, 0.0], [1 / 15, 0.0], [-1 / 15, 0.0]]])  # there; just out; just in
    plain = points_world(labels=False)
    world = World(Visitors(), {"factors": starts, "context": starts.new_zeros(1, 0)}, plain.info)
    env = parallel_env(world, actions="codes", horizon=30)
    views, _ = env.reset(seed=0)
    assert list(views) == env.agents == ["factor_0", "factor_2"]
    with pytest.raises(
        ValueError,
        match=r"actions are given of \['factor_1'\]; allowed are those of \['factor_0', 'factor_2'\]",
    ):
        env.step({"factor_1": STAY})
    came, back = False, False
    for step in range(30):  # the prior moves factor 1 until it comes, and factor 2 when it has gone
        acted = list(env.agents)
        views, rewards, terminated, truncated, infos = env.step(
            {agent: RIGHT if agent == "factor_2" else STAY for agent in acted}
        )
        assert views.keys() == rewards.keys() == terminated.keys() == truncated.keys() == infos.keys()
        present = (env.state().reshape(3, 2)[:, 0] < 0).tolist()
        came |= present[1]
        back |= present[2]
        assert terminated == {agent: agent == "factor_2" for agent in views}
        assert ("factor_2" in views) == (step == 0)  # it has gone, and stays so whoever takes its factor
        assert ("factor_1" in views) == came
        assert set(truncated.values()) == {step == 29}
    assert came
    assert back
    assert env.agents == []


def test_tracked_worlds_say_who_is_there() -> None:
    world = WORLDS["pucks"]
    factors = world.starts().factors[:3].clone()
    assert world.model.present(factors).all()
    factors[1, 2] = 0  # an empty row
    assert world.model.present(factors).tolist() == [[True] * 4, [True, True, False, True], [True] * 4]
    assert WORLDS["multigrid"].model.present(WORLDS["multigrid"].starts().factors[:3]).shape == (3, 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rewards": "none"}, "rewards is 'none'; allowed are 'shared', 'own'"),
        ({"actions": "real"}, "actions is 'real'; allowed are 'latent', 'codes'"),
        ({"control": [9]}, r"control is \[9\]; allowed"),
        ({"horizon": 0}, "horizon is 0; allowed is 1 or more"),
        ({"render_mode": "human"}, "render_mode is 'human'; allowed are None and 'rgb_array'"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parallel_env(WORLDS["points"], **arguments)


def test_a_world_with_one_latent_action_is_refused() -> None:
    points = WORLDS["points"]
    world = World(JointPointsModel(), points.stored_starts, points.info)
    with pytest.raises(
        ValueError, match="one latent action for all its factors; allowed are worlds with one for"
    ):
        parallel_env(world)


def test_bad_use_is_named() -> None:
    env = parallel_env(WORLDS["points"], control=[0, 1])
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\) first"):
        env.step({})
    with pytest.raises(ValueError, match=r"seed is \[-1\]"):
        env.reset(seed=-1)
    env.reset(seed=0)
    fine = np.zeros(2, np.float32)
    with pytest.raises(ValueError, match="allowed are those of"):
        env.step({"factor_0": fine})
    with pytest.raises(ValueError, match=r"latent actions have shape \(3,\); allowed is \(2,\)"):
        env.step({"factor_0": fine, "factor_1": np.zeros(3)})
    assert parallel_env(WORLDS["points"], render_mode=None).reset(seed=0)[0]


@pytest.mark.learning
def test_a_missing_package_is_said_with_the_line_that_installs_it() -> None:
    program = (
        "import sys; sys.modules['pettingzoo'] = None\nimport flam_rl.envs\n"
        "try:\n    flam_rl.envs.parallel_env()\nexcept ImportError as error:\n    print(error)"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert run.stdout == "parallel_env needs PettingZoo: pip install 'flam_rl[pettingzoo]'\n", run.stderr
