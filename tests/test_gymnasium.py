"""FLAM-v0 among gymnasium's own parts: specs, wrappers, vector wrappers, and torch's default dtype."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import wrappers
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector as vector_wrappers

import flam_rl
from flam_rl.core.sources import SHIPPED
from flam_rl.envs import DecodedEnv


def again(env: Any, make: Any = gym.make) -> Any:
    """The env that JSON of this one's spec makes."""
    return make(EnvSpec.from_json(env.spec.to_json()))


@pytest.mark.parametrize(
    "arguments",
    [
        {},
        {"world": "multigrid", "control": [0, 2], "horizon": 5},
        {"world": SHIPPED / "multigrid"},
        {"control": np.array([1, 2]), "horizon": np.int64(5), "render_mode": None},
        {"control": range(2), "max_episode_steps": 3},
    ],
)
def test_a_spec_makes_the_same_env_again(arguments: dict) -> None:
    env = gym.make("FLAM-v0", **arguments)
    made = again(env)
    assert str(made) == str(env)
    assert made.action_space == env.action_space
    assert made.unwrapped.core.horizon == env.unwrapped.core.horizon
    assert np.array_equal(made.reset(seed=1)[0], env.reset(seed=1)[0])
    assert made.spec.to_json() == env.spec.to_json()


def test_a_spec_names_the_world_that_it_was_made_with(world, tmp_path: Path) -> None:
    env = gym.make("FLAM-v0", world=world)
    assert json.loads(env.spec.to_json())["kwargs"] == {"world": "multigrid"}
    assert again(env).observation_space == env.observation_space
    assert gym.make(env.spec).unwrapped.core.world.source == "multigrid"  # without JSON, the world itself
    flam_rl.save_world(world, tmp_path / "mine")
    assert json.loads(env.unwrapped.spec.to_json())["kwargs"] == {"world": str(tmp_path / "mine")}
    loaded = flam_rl.load_world(tmp_path / "mine")
    named = gym.make("FLAM-v0", world=loaded)
    assert json.loads(named.spec.to_json())["kwargs"] == {"world": str(tmp_path / "mine")}


def test_a_spec_never_names_a_world_that_is_another(world, tmp_path: Path) -> None:
    env = gym.make("FLAM-v0", world=world)
    world.labels = None
    with pytest.raises(ValueError, match=r"this env's world is no longer what multigrid holds.*save_world"):
        env.unwrapped.spec.to_json()
    flam_rl.save_world(world, tmp_path / "mine")
    assert env.unwrapped.spec.to_json()
    world.model.code_model.forward_dynamics.net[0].weight.add_(1e-3)
    with pytest.raises(ValueError, match=r"no longer what .*mine holds"):
        env.unwrapped.spec.to_json()
    world.source = ""
    with pytest.raises(ValueError, match="this env's world is in no folder"):
        env.unwrapped.spec.to_json()


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, "NextStep"])
def test_a_vector_envs_spec_makes_it_again(world, mode: Any) -> None:
    env = gym.make_vec("FLAM-v0", num_envs=3, world=world, autoreset_mode=mode, horizon=4)
    made = again(env, gym.make_vec)
    assert made.num_envs == 3
    assert made.metadata == env.metadata
    assert np.array_equal(made.reset(seed=1)[0], env.reset(seed=1)[0])


def episode(env: Any) -> dict[str, Any]:
    """The last info of an episode of `env`."""
    observation, _ = env.reset(seed=0)
    assert observation in env.observation_space
    for _ in range(20):
        observation, _, terminated, truncated, info = env.step(env.action_space.sample())
        assert observation in env.observation_space
        if np.any(terminated | truncated):
            return info
    raise AssertionError("nothing ended in 20 steps")


@pytest.mark.parametrize(
    "wrap",
    [
        wrappers.ClipAction,
        wrappers.NormalizeObservation,
        wrappers.NormalizeReward,
        wrappers.GrayscaleObservation,
        wrappers.FlattenObservation,
        lambda env: wrappers.RescaleAction(env, -1, 1),
        lambda env: wrappers.FrameStackObservation(env, 3),
        lambda env: wrappers.RecordEpisodeStatistics(wrappers.TimeLimit(env, 7)),
    ],
)
def test_gymnasiums_wrappers(wrap: Any) -> None:
    env = wrap(gym.make("FLAM-v0", observation="pixels", horizon=9))
    info = episode(env)
    if isinstance(env, wrappers.RecordEpisodeStatistics):
        assert info["episode"]["l"] <= 7
    assert np.array_equal(again(env).unwrapped.reset(seed=0)[0], env.unwrapped.reset(seed=0)[0])
    env.close()
    env.close()


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_gymnasiums_vector_wrappers(mode: str) -> None:
    arguments: dict[str, Any] = {"num_envs": 3, "horizon": 9, "masks": True, "autoreset_mode": mode}
    statistics = vector_wrappers.RecordEpisodeStatistics(gym.make_vec("FLAM-v0", **arguments))
    info = episode(statistics)
    ended = info["_episode"]
    assert (info["episode"]["l"][ended] <= 9).all()
    assert ended.any()
    listed = vector_wrappers.DictInfoToList(
        vector_wrappers.RescaleAction(
            vector_wrappers.NormalizeReward(gym.make_vec("FLAM-v0", **arguments)), -1, 1
        )
    )
    infos = episode(listed)
    assert [info["masks"].shape for info in infos] == [(4, 64, 64)] * 3
    if mode == "SameStep":
        ended = [info for info in infos if "final_obs" in info]
        assert all(info["final_obs"] in listed.single_observation_space for info in ended)
        assert all(info["final_info"]["masks"].shape == (4, 64, 64) for info in ended)
        assert 0 < len(ended) <= 3
    else:
        grey = vector_wrappers.GrayscaleObservation(
            gym.make_vec("FLAM-v0", observation="pixels", **arguments)
        )
        episode(grey)
    listed.close()
    listed.close()


def test_frames_of_an_episode_are_collected_and_options_pass(world) -> None:
    env = gym.make("FLAM-v0", world=world, render_mode="rgb_array_list", horizon=4)
    env.reset(seed=0, options={"of": "somebody else's"})
    env.step(np.zeros(4, np.float32))
    assert [frame.shape for frame in env.render()] == [(64, 64, 3)] * 2
    fresh = gym.make("FLAM-v0", world=world)
    for call in (fresh.render, fresh.unwrapped.render, lambda: fresh.step(np.zeros(4, np.float32))):
        with pytest.raises(gym.error.ResetNeeded):
            call()


@pytest.fixture
def restored_dtype() -> Iterator[None]:
    dtype = torch.get_default_dtype()
    yield
    torch.set_default_dtype(dtype)


def inferred(task: gym.Env) -> list[np.ndarray]:
    """What every way into a world gives, the world loaded anew."""
    world = flam_rl.load_world("multigrid")
    seen = [parameter.numpy() for parameter in world.parameters()]
    for observation in ("factors", "pixels", "features"):
        env = gym.make_vec("FLAM-v0", num_envs=5, world=world, observation=observation, masks=True)
        first, infos = env.reset(seed=3)
        seen += [first, infos["masks"], *env.step(np.full((5, 4), 0.5))[:4], *env.render()]
    generator = torch.Generator().manual_seed(0)
    rollout = world.imagine(lambda seen: seen[:, :4], world.start(3, generator), 4, [0], generator)
    seen += [rollout.factors_BTKS.numpy(), rollout.rewards_BT.numpy(), rollout.log_prior_BTC.numpy()]
    real = DecodedEnv(task, world)
    seen += [real.reset(seed=0)[0], real.step(np.zeros(4))[0]]
    return seen


@pytest.mark.learning
def test_torchs_default_dtype_changes_nothing(task: gym.Env, restored_dtype) -> None:
    expected = inferred(task)
    torch.set_default_dtype(torch.float64)
    for one, other in zip(expected, inferred(task), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
