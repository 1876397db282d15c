"""FLAM-v0 for Stable-Baselines3: one batch as its VecEnv, and its agents on it."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecFrameStack, VecMonitor, VecNormalize

from flam_rl.agents.ppo import PriorPenalty
from flam_rl.envs import make_sb3_vec_env


def test_ended_worlds_start_anew_and_their_infos_say_what_ended() -> None:
    env = make_sb3_vec_env("FLAM-v0", num_envs=6, horizon=3, control=[1])
    env.seed(0)
    observations = env.reset()
    assert observations.shape == (6, *env.observation_space.shape)
    rewards = []
    for _ in range(3):
        observations, reward, dones, infos = env.step(np.zeros((6, 4), np.float32))
        rewards.append(reward)
    assert dones.any()
    for world, (done, info) in enumerate(zip(dones, infos, strict=True)):
        assert ("terminal_observation" in info) == ("TimeLimit.truncated" in info) == bool(done)
        assert ("episode" in info) == bool(done)
        if done and info["episode"]["l"] == 3:
            assert info["terminal_observation"] in env.observation_space
            assert info["episode"]["r"] == sum(reward[world] for reward in rewards)
    assert len(env.get_images()) == 6
    assert env.render().ndim == 3
    with pytest.raises(ValueError, match="allowed is 'FLAM-v0'"):
        make_sb3_vec_env("CartPole-v1")


def test_each_world_has_a_seed_as_stable_baselines3_counts_them() -> None:
    env = make_sb3_vec_env(num_envs=3)
    assert env.seed(5) == [5, 6, 7]
    seeded = env.reset()
    assert not np.array_equal(env.reset(), seeded)  # a seed is used up by one reset
    env.seed(5)
    assert np.array_equal(env.reset(), seeded)
    assert np.array_equal(gym.make_vec("FLAM-v0", num_envs=3).reset(seed=5)[0], seeded)


def test_attributes_are_those_of_the_whole_batch() -> None:
    env = make_sb3_vec_env(num_envs=4, horizon=3)
    assert env.get_attr("horizon") == [3] * 4
    assert env.get_attr("horizon", 1) == env.get_attr("horizon", [-1]) == [3]
    for indices in ([0], 0, [0, 1, 3], np.array([2]), []):
        with pytest.raises(
            ValueError, match=r"set_attr\('horizon'\) is for all 4 worlds.*but indices leave out"
        ):
            env.set_attr("horizon", 9, indices)
    assert env.get_attr("horizon", [0, 3]) == [3, 3]
    for indices in (None, range(4), [3, 2, 1, 0]):
        env.set_attr("horizon", 9, indices)
    assert env.get_attr("horizon", [1]) == [9]
    assert env.has_attr("horizon")
    assert not env.has_attr("latitude")
    with pytest.raises(IndexError, match="index 4 is out of bounds"):
        env.get_attr("horizon", [4])


def test_methods_act_on_the_whole_batch_and_single_worlds_can_be_rendered() -> None:
    env = make_sb3_vec_env(num_envs=4)
    env.reset()
    some = env.env_method("render", indices=[3, 0])
    images = env.get_images()
    assert np.array_equal(some[0], images[3])
    assert np.array_equal(some[1], images[0])
    assert len(env.env_method("render")) == 4
    before = env.get_attr("state")[0].factors_KBS.clone()
    with pytest.raises(ValueError, match=r"env_method\('reset'\) is for all 4 worlds"):
        env.env_method("reset", seed=1, indices=2)
    assert torch.equal(env.get_attr("state")[0].factors_KBS, before)
    assert len(env.env_method("reset", seed=1)) == 4


def steps(env: Any) -> np.ndarray:
    env.seed(1)
    seen = [env.reset()]
    seen += [env.step(np.zeros((3, 4), np.float32))[0] for _ in range(5)]
    return np.stack(seen)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_go_on_as_the_env_does(again: Any) -> None:
    env = make_sb3_vec_env(num_envs=3, horizon=4)
    first = steps(env)
    other = again(env)
    action = np.zeros((3, 4), np.float32)
    for _ in range(4):  # in the midst of episodes
        assert [info.get("episode", {}).get("r") for info in env.step(action)[3]] == [
            info.get("episode", {}).get("r") for info in other.step(action)[3]
        ]
    assert np.array_equal(steps(other), first)
    assert other.has_attr("horizon")


def logged(model: Any, folder: Path, timesteps: int) -> list[dict[str, float]]:
    model.set_logger(configure(str(folder), ["json"]))
    model.learn(timesteps)
    model.logger.close()
    return [json.loads(line) for line in (folder / "progress.json").read_text().splitlines()]


def test_ppo_logs_the_returns_that_the_world_grants(tmp_path: Path) -> None:
    env = make_sb3_vec_env(num_envs=16, horizon=8)
    env.seed(0)
    plain = logged(PPO("MlpPolicy", env, n_steps=16, batch_size=128, n_epochs=1, seed=0), tmp_path / "a", 512)
    assert 0 < plain[-1]["rollout/ep_len_mean"] <= 8
    assert plain[-1]["rollout/ep_rew_mean"] >= 0
    # As training in imagination wraps it: what is learned from is less, what is logged is the world's.
    penalised = PriorPenalty(make_sb3_vec_env(num_envs=16, horizon=8), weight=100.0)
    penalised.seed(0)
    ppo = PPO("MlpPolicy", penalised, n_steps=16, batch_size=128, n_epochs=1, seed=0)
    rows = logged(ppo, tmp_path / "b", 512)
    assert all(row["rollout/ep_rew_mean"] >= 0 for row in rows)
    assert ppo.rollout_buffer.rewards.min() < -1


@pytest.mark.parametrize("wrap", [VecNormalize, VecMonitor, lambda env: VecFrameStack(env, 2)])
def test_stable_baselines3_wraps_it(wrap: Any) -> None:
    env = wrap(make_sb3_vec_env(num_envs=4, horizon=5))
    A2C("MlpPolicy", env).learn(40)
    assert env.num_envs == 4


def test_other_agents_take_it_or_say_why_not() -> None:
    env = make_sb3_vec_env(num_envs=4, horizon=5)
    SAC("MlpPolicy", env, learning_starts=8, buffer_size=100).learn(24)
    PPO(
        "CnnPolicy", make_sb3_vec_env(num_envs=2, observation="pixels"), n_steps=4, batch_size=4, n_epochs=1
    ).learn(8)
    with pytest.raises(AssertionError, match=r"only supports .*Discrete.* but Box"):
        DQN("MlpPolicy", env)
    rewards, lengths = evaluate_policy(A2C("MlpPolicy", env), env, 8, return_episode_rewards=True)
    assert len(rewards) == 8  # and no warning that nobody monitors the episodes
    assert max(lengths) <= 5


@pytest.mark.learning
def test_ppo_learns_in_imagination() -> None:
    env = make_sb3_vec_env(num_envs=64, control="agent", horizon=32)
    env.seed(0)
    model = PPO("MlpPolicy", env, n_steps=32, batch_size=512, learning_rate=1e-3, gamma=0.95, seed=0)
    untrained = evaluate_policy(model, env, 64, deterministic=False)[0]
    model.learn(80_000)
    assert evaluate_policy(model, env, 64, deterministic=False)[0] > untrained + 0.2
