"""FLAM-v0: gymnasium's and Stable-Baselines3's rules, seeds, and errors that explain themselves."""

from __future__ import annotations

import copy
import os
import pickle
import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import plain_ppo
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_env_sb3

import flam_rl
from flam_rl.envs import DecodedEnv, DecodedVectorEnv, FLAMEnv, FLAMVectorEnv
from flam_rl.evaluation.policies import several


@pytest.mark.parametrize(
    "arguments", [{}, {"control": "all"}, {"observation": "pixels"}, {"observation": "features"}]
)
def test_passes_both_env_checkers(arguments: dict) -> None:
    env = gym.make("FLAM-v0", **arguments)
    with warnings.catch_warnings():
        # Latent actions are in their own units, about standard normal; both checkers advise -1..1.
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        if arguments.get("observation") == "features":  # not images, whatever their shape
            warnings.filterwarnings("ignore", message=".*(infinity|unconventional shape).*")
        check_env(env.unwrapped)
        check_env_sb3(env.unwrapped)


def rollout(env: gym.Env, seed: int, steps: int = 20) -> list[np.ndarray]:
    env.action_space.seed(seed)
    seen = [env.reset(seed=seed)[0]]
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(env.action_space.sample())
        seen += [observation, np.array([reward, terminated, truncated])]
        if terminated or truncated:
            break
    return seen


def test_worlds_go_on_from_a_state_that_was_kept() -> None:
    """In the middle of episodes, over their ends."""

    def make(**arguments: Any) -> FLAMVectorEnv:
        return FLAMVectorEnv(3, horizon=8, autoreset_mode="SameStep", **arguments)

    env, other = make(), make()
    with pytest.raises(gym.error.ResetNeeded):
        env.state_dict()
    env.reset(seed=4)
    env.action_space.seed(4)
    for _ in range(5):
        env.step(env.action_space.sample())
    other.load_state_dict(copy.deepcopy(env.state_dict()))
    for _ in range(6):
        actions = env.action_space.sample()
        for mine, its in zip(env.step(actions)[:4], other.step(actions)[:4], strict=True):
            assert np.array_equal(mine, its)
    for refused in (FLAMVectorEnv(2), make(world="pucks", control="all")):
        with pytest.raises(ValueError, match=r"tensor 'factors_KBS' is .* allowed is"):
            refused.load_state_dict(env.state_dict())


def test_same_seed_same_rollout_also_after_pickling() -> None:
    env = gym.make("FLAM-v0", observation="pixels").unwrapped
    first = rollout(env, 3)
    for other in (env, pickle.loads(pickle.dumps(env)), gym.make("FLAM-v0", observation="pixels").unwrapped):
        for a, b in zip(first, rollout(other, 3), strict=True):
            assert np.array_equal(a, b)
    assert not np.array_equal(first[0], rollout(env, 4)[0])


def test_spaces_follow_the_contract() -> None:
    world = flam_rl.load_world("multigrid")
    size = world.latent_action_dim
    env = gym.make("FLAM-v0", control="agent")
    assert env.action_space == gym.spaces.Box(-3, 3, (size,), np.float32)
    assert env.observation_space.shape == (world.factors * world.factor_dim,)
    assert gym.make("FLAM-v0", control=[0, 2]).action_space.shape == (2 * size,)
    assert gym.make("FLAM-v0", control="all").action_space.shape == (world.factors * size,)
    assert gym.make("FLAM-v0", observation="pixels").observation_space.shape == (64, 64, 3)


def test_render_and_masks() -> None:
    env = gym.make("FLAM-v0", observation="pixels", masks=True)
    observation, info = env.reset(seed=0)
    assert np.array_equal(env.render(), observation)
    assert info["masks"].shape == (env.unwrapped.core.world.factors, 64, 64)
    assert gym.make("FLAM-v0").reset(seed=0)[1] == {}


def test_truncates_at_the_horizon() -> None:
    env = gym.make("FLAM-v0", horizon=5, control=[1])
    env.reset(seed=0)
    ends = [env.step(np.zeros(4, np.float32))[2:4] for _ in range(5)]
    assert any(terminated for terminated, _ in ends) or [truncated for _, truncated in ends] == [
        False
    ] * 4 + [True]


def test_a_world_stays_where_it_is(world) -> None:
    with pytest.raises(ValueError, match="device is 'cuda', but the world given is on cpu"):
        gym.make_vec("FLAM-v0", num_envs=2, world=world, device="cuda")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"world": "atlantis"}, "no world 'atlantis': allowed are the shipped worlds"),
        ({"control": "everyone"}, "control is 'everyone'; allowed are 'agent', 'all' and lists"),
        ({"control": [9]}, r"control is \[9\]; allowed"),
        ({"control": [1, 1]}, "different indices 0 to 3"),
        ({"observation": "sound"}, "observation is 'sound'; allowed are 'factors', 'pixels', 'features'"),
        ({"control": 1}, "control is 1; allowed are 'agent', 'all' and lists"),
        ({"control": True}, "control is True; allowed"),
        ({"control": [True]}, r"control is \[True\]; allowed"),
        ({"control": [1.0]}, r"control is \[1.0\]; allowed"),
        ({"control": ["1"]}, r"control is \['1'\]; allowed"),
        ({"control": [[1]]}, r"control is \[\[1\]\]; allowed"),
        ({"control": [None]}, r"control is \[None\]; allowed"),
        ({"control": []}, r"control is \[\]; allowed"),
        ({"control": np.array(1)}, r"control is array\(1\); allowed"),
        ({"control": np.array([True, False, True, False])}, "allowed are 'agent', 'all' and lists"),
        ({"horizon": 0}, "horizon is 0; allowed is 1 or more"),
        ({"horizon": -5}, "horizon is -5; allowed is 1 or more"),
        ({"horizon": 2.5}, "horizon is 2.5; allowed is 1 or more, a whole number"),
        ({"horizon": True}, "horizon is True; allowed is 1 or more"),
        ({"horizon": "9"}, "horizon is '9'; allowed is 1 or more"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi'"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FLAMEnv(**arguments)


@pytest.mark.parametrize(
    "control",
    [[0, 2], (0, 2), np.array([0, 2]), [np.int64(0), np.uint8(2)], torch.tensor([0, 2]), range(0, 4, 2)],
)
def test_factors_are_chosen_by_indices_of_any_integer_type(control: Any) -> None:
    env = gym.make("FLAM-v0", control=control, horizon=np.int64(7)).unwrapped
    assert env.core.controlled == [0, 2]
    assert env.core.horizon == 7


def test_bad_actions_are_explained() -> None:
    env = gym.make("FLAM-v0").unwrapped
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"latent actions have shape \(3,\); allowed is \(4,\)"):
        env.step(np.zeros(3, np.float32))
    with pytest.raises(ValueError, match=r"must be finite numbers in -3\.\.3"):
        env.step(np.array([0, np.nan, 0, 0], np.float32))


def test_step_before_reset_is_explained() -> None:
    with pytest.raises(gym.error.ResetNeeded, match="reset"):
        gym.make("FLAM-v0").unwrapped.step(np.zeros(4, np.float32))


def test_a_world_without_labels_warns_and_rewards_nothing(world, caplog: pytest.LogCaptureFixture) -> None:
    world.labels = None
    env = gym.make("FLAM-v0", world=world)
    assert "no labels" in caplog.text
    assert env.action_space.shape == (world.factors * world.latent_action_dim,)
    env.reset(seed=0)
    assert {env.step(env.action_space.sample())[1] for _ in range(10)} == {0.0}
    with pytest.raises(ValueError, match="no labels that tell"):
        gym.make("FLAM-v0", world=world, control="agent")


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_env_restarts_as_its_mode_says(mode: AutoresetMode) -> None:
    venv = gym.make_vec("FLAM-v0", num_envs=8, horizon=4, control=[1], autoreset_mode=mode)
    venv.action_space.seed(0)
    venv.reset(seed=0)
    core = venv.unwrapped
    for step in range(4):
        observations, _, terminated, truncated, infos = venv.step(venv.action_space.sample())
        assert observations in venv.observation_space
        if step == 3:
            assert (terminated | truncated).any()
    if mode == AutoresetMode.SAME_STEP:
        assert infos["_final_obs"].tolist() == (terminated | truncated).tolist()
        assert core._elapsed[terminated | truncated].max() == 0
    elif mode == AutoresetMode.NEXT_STEP:
        ended = terminated | truncated
        _, rewards, terminated, truncated, _ = venv.step(venv.action_space.sample())
        assert not (terminated | truncated)[ended].any()
        assert rewards[ended].max() == 0
        assert core._elapsed[ended].max() == 0
    else:
        with pytest.raises(gym.error.ResetNeeded, match="have ended"):
            venv.step(venv.action_space.sample())
        venv.reset(options={"reset_mask": terminated | truncated})
        venv.step(venv.action_space.sample())


def test_one_world_of_a_batch_is_the_single_env() -> None:
    single = gym.make("FLAM-v0").unwrapped
    venv = gym.make_vec("FLAM-v0", num_envs=1).unwrapped
    action = np.full(4, 0.5, np.float32)
    assert np.array_equal(single.reset(seed=1)[0], venv.reset(seed=1)[0][0])
    for _ in range(5):
        one, many = single.step(action), venv.step(action[None])
        assert np.array_equal(one[0], many[0][0])
        if one[2] or one[3]:
            break


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_observations_without_copies_hold_until_the_step_after_the_next(mode: str) -> None:
    arguments = {"num_envs": 5, "horizon": 3, "autoreset_mode": mode}
    own, shared = (gym.make_vec("FLAM-v0", copy=copy, **arguments) for copy in (True, False))
    actions = np.zeros(own.action_space.shape, np.float32)
    before = [env.reset(seed=0)[0] for env in (own, shared)]
    kept = before[1].copy()
    for _ in range(7):
        after = [env.step(actions)[0] for env in (own, shared)]
        assert np.array_equal(*after)
        assert np.array_equal(before[1], kept)  # one step later it is still what it was
        before, kept = after, after[1].copy()
    assert np.shares_memory(shared.step(actions)[0], before[1]) is False
    assert np.shares_memory(shared.step(actions)[0], before[1])


def test_only_ended_worlds_start_anew() -> None:
    venv = gym.make_vec("FLAM-v0", num_envs=64, horizon=50, autoreset_mode="SameStep").unwrapped
    venv.action_space.seed(0)
    venv.reset(seed=0)
    for _ in range(30):
        elapsed = venv._elapsed.copy()
        _, _, terminated, truncated, infos = venv.step(venv.action_space.sample())
        ended = terminated | truncated
        assert (venv._elapsed[ended] == 0).all()
        assert (venv._elapsed[~ended] == elapsed[~ended] + 1).all()
        if ended.any() and not ended.all():
            final = infos["final_obs"]
            assert [seen is None for seen in final] == (~ended).tolist()
            assert not np.array_equal(np.stack(final[ended]), venv._observe()[ended])
            return
    raise AssertionError("no world ended in 30 steps")


def test_bfloat16_and_wrong_precisions() -> None:
    env = gym.make_vec("FLAM-v0", num_envs=3, precision="bfloat16")
    env.reset(seed=0)
    assert env.step(np.zeros((3, 4), np.float32))[0].dtype == np.float32
    with pytest.raises(ValueError, match="precision is 'int4'; allowed are 'float32', 'bfloat16'"):
        gym.make_vec("FLAM-v0", num_envs=3, precision="int4")


@pytest.mark.learning
def test_a_plain_ppo_that_knows_only_gymnasium_learns_in_imagination() -> None:
    env = gym.make_vec("FLAM-v0", num_envs=64, control="agent", horizon=32)
    history = plain_ppo.train(env, 80_000, seed=0)
    assert np.mean(history[-5:]) > 2 * np.mean(history[:5])


def test_decoded_env_has_the_spaces_of_the_imagined_one(world, task: gym.Env) -> None:
    imagined, real = gym.make("FLAM-v0", control="agent"), DecodedEnv(task, world)
    assert real.observation_space == imagined.observation_space
    assert real.action_space == imagined.action_space
    observation, _ = real.reset(seed=0)
    assert observation in real.observation_space
    for _ in range(5):
        observation, _, _, _, info = real.step(real.action_space.sample())
        assert observation in real.observation_space
    assert set(info["entities"]) == {"action", "position", "direction"}


def test_a_decoded_env_says_that_it_needs_a_reset(world, task: gym.Env) -> None:
    env = DecodedEnv(task, world)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        env.step(env.action_space.sample())
    tasks = DecodedVectorEnv(several(task, 2), world)
    with pytest.raises(gym.error.ResetNeeded, match="call reset"):
        tasks.step(tasks.action_space.sample())


def follow(world, observation: np.ndarray) -> np.ndarray:
    """Some latent action that depends on what is seen."""
    return 3 * np.tanh(observation[..., : world.latent_action_dim] * 2)


def decoded_episode(world, task: gym.Env, seed: int | None, env: DecodedEnv | None = None) -> np.ndarray:
    env = env or DecodedEnv(task, world)
    seen = [env.reset(seed=seed)[0]]
    ended = False
    while not ended:
        observation, _, terminated, truncated, _ = env.step(follow(world, seen[-1]))
        seen.append(observation)
        ended = terminated or truncated
    return np.stack(seen)


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_many_decoded_tasks_are_each_as_one_alone(world, mode: str) -> None:
    """Two episodes each of three tasks, of different lengths: what was before a reset is forgotten."""
    makers = [partial(gym.make, "flam_rl/MultiGrid-v0", agents=4, max_steps=steps) for steps in (5, 7, 9)]
    alone = []
    for seed, make in enumerate(makers):
        env = DecodedEnv(task := make(), world)
        alone.append(
            [decoded_episode(world, task, s, env) for s in (seed, None if mode == "NextStep" else 9)]
        )
    tasks = DecodedVectorEnv(SyncVectorEnv(makers, autoreset_mode=mode), world)
    observations, _ = tasks.reset(seed=[0, 1, 2])
    episodes = [[[seen]] for seen in observations]
    ended = np.zeros(3, bool)
    for _ in range(25):
        if mode == "Disabled" and ended.any():
            observations, _ = tasks.reset(seed=[9, 9, 9], options={"reset_mask": ended})
            for index in np.flatnonzero(ended):
                episodes[index].append([observations[index]])
            ended[:] = False
        fresh = ended
        observations, _, terminated, truncated, _ = tasks.step(follow(world, observations))
        ended = terminated | truncated
        for index in range(3):
            if fresh[index]:
                episodes[index].append([])
            episodes[index][-1].append(observations[index])
    lengths = set()
    for index in range(3):
        for expected, found in zip(alone[index], episodes[index], strict=False):
            lengths.add(len(expected))
            assert np.allclose(expected, np.stack(found), atol=1e-4)
    assert len(lengths) > 1


def test_decoded_tasks_that_start_anew_in_the_same_step_are_refused(world, task: gym.Env) -> None:
    tasks = gym.make_vec(
        task.spec, num_envs=2, vectorization_mode="sync", vector_kwargs={"autoreset_mode": "SameStep"}
    )
    with pytest.raises(ValueError, match="allowed are NextStep and Disabled"):
        DecodedVectorEnv(tasks, world)


COMPILED_BY_DEFAULT = """
import logging, sys, threading, gymnasium as gym, flam_rl
logging.basicConfig(format="%(message)s")
import torch
torch.set_num_threads(2)
small, many = (gym.make_vec("FLAM-v0", num_envs=n, horizon=9) for n in (255, 256))
for env in (small, many):
    env.reset(seed=0)
    env.step(env.action_space.sample())
print(small.unwrapped._imagination.compile, many.unwrapped._imagination.compile)
"""


def run_python(code: str, **environment: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)


@pytest.mark.learning
def test_many_worlds_are_compiled_without_being_asked_few_are_not(tmp_path: Path) -> None:
    ran = run_python(COMPILED_BY_DEFAULT)
    assert ran.stdout.split() == ["False", "True"], ran.stderr
    without = run_python(
        COMPILED_BY_DEFAULT, CXX="/nowhere/g++", PATH=str(tmp_path), TORCHINDUCTOR_CACHE_DIR=str(tmp_path)
    )
    assert without.stdout.split() == ["False", "False"], without.stderr
    (line,) = without.stderr.splitlines()
    assert "not compiled" in line
    assert "C++ compiler" in line


DROPPED = """
import sys, threading, gymnasium as gym, flam_rl, torch
torch.set_num_threads(2)
world = flam_rl.load_world("multigrid")
ours = lambda: sum(thread.name.startswith("flam_rl") for thread in threading.enumerate())
most = 0
for number in range(20):
    env = gym.make_vec("FLAM-v0", num_envs=64, world=world, compile=True)
    env.reset(seed=0)
    env.step(env.action_space.sample())
    most = max(most, ours())
    if number % 2:
        env.close()
del env
for thread in threading.enumerate():
    if thread.name.startswith("flam_rl"):
        thread.join(60)
print(most, ours())
"""


@pytest.mark.learning
def test_threads_of_dropped_and_closed_envs_end() -> None:
    ran = run_python(DROPPED)
    assert ran.stdout.split() == ["2", "0"], ran.stderr


def test_decoded_env_explains_what_does_not_fit(world, task: gym.Env) -> None:
    with pytest.raises(ValueError, match="allowed are uint8 frames"):
        DecodedEnv(gym.make("CartPole-v1"), world)
    unlabelled = copy.copy(world)
    unlabelled.labels = None
    with pytest.raises(ValueError, match="give an adapter"):
        DecodedEnv(task, unlabelled)
