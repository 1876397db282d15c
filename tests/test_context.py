"""What a policy is told of the background in a world of tracked layers whose episodes have backgrounds of their own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from sklearn.linear_model import LogisticRegression
from stable_baselines3 import PPO
from stable_baselines3.common.env_checker import check_env as check_for_sb3

import flam_rl
from flam_rl.actions import ActionSpace
from flam_rl.core.adapters import DiscreteAdapter
from flam_rl.core.agent import Agents
from flam_rl.core.heads import EventHead, Labels
from flam_rl.core.world import World, WorldInfo
from flam_rl.envs import DecodedEnv, make_sb3_vec_env
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.models.build import BuildConfig, Footage, build_world
from flam_rl.models.tracked.build import TrackedBuildConfig
from flam_rl.models.tracked.context_codes import MOST_NUMBERS, fit_codes
from flam_rl.models.tracked.flam import TrackedConfig
from flam_rl.models.tracked.training import DynamicsTrainingConfig, LookTrainingConfig, PriorTrainingConfig
from flam_rl.training.run import Log
from flam_rl.types import Video

BRIEF = TrackedBuildConfig(
    looks=LookTrainingConfig(frames=200, patch_steps=50, steps=50),
    dynamics_training=DynamicsTrainingConfig(steps=50, batch=32),
    prior_training=PriorTrainingConfig(steps=50, batch=128),
)


def task() -> gym.Env:
    return gym.make("flam_rl/Pucks-v0", pucks=2, looks=2, goal="flee", background="new_texture", max_steps=40)


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    """Episodes of 40 steps, each in front of a texture of its own."""
    return [
        episode.frames for episode in record_episodes(task(), 1300, 0, "patrol") if len(episode.frames) == 41
    ]


@pytest.fixture(scope="module")
def trained(films: list[np.ndarray]) -> World:
    """A world of two pucks, trained for seconds only: its contexts need no training."""
    footage = Footage(Video(tuple(films[5:])), Video(tuple(films[:5])))
    config = BuildConfig(model="tracked", tracked=BRIEF)
    return build_world(config, footage, WorldInfo(), torch.device("cpu"), Log(None))


@pytest.fixture(scope="module")
def labelled(trained: World) -> World:
    """The same with labels that mean nothing, for tasks that are decoded."""
    moves, width = ActionSpace.discrete(5), trained.factor_dim
    adapter = DiscreteAdapter(width, trained.latent_action_dim, moves)
    heads = [EventHead(width, (0,), 1.0) for _ in range(2)]
    for head in heads:
        head.net.bias_1.data.fill_(-50)
    labels = Labels(Agents(moves, [0], [[0]], [adapter]), *heads, 0).requires_grad_(False)
    return World(trained.model, trained.stored_starts, WorldInfo(), labels)


def code_of(world: World, film: np.ndarray) -> np.ndarray:
    return world.context_code(world.see(torch.as_tensor(film)[None]).context)[0].numpy()


def test_components_of_backgrounds_are_found_scaled_and_bounded() -> None:
    generator = torch.Generator().manual_seed(0)
    patterns = torch.rand(3, 3, 40, 56, generator=generator) - 0.5
    amounts = torch.rand(60, 3, generator=generator) * 0.4
    grounds = 0.5 + torch.einsum("nc,cdyx->ndyx", amounts, patterns)
    codes = fit_codes(grounds)
    assert codes is not None
    code = codes(grounds)
    assert code.shape == (60, 3)
    assert torch.allclose(code.mean(0), torch.zeros(3), atol=1e-3)
    assert torch.allclose(code.std(0, correction=0), torch.ones(3), atol=1e-3)
    known = torch.cat([code, torch.ones(60, 1)], 1)
    explained = known @ torch.linalg.lstsq(known, amounts).solution
    assert torch.allclose(explained, amounts, atol=1e-3)
    assert codes(torch.ones(1, 3, 40, 56)).abs().max() <= 3
    many = fit_codes(torch.rand(40, 3, 16, 16, generator=generator))
    assert many is not None
    assert many(torch.zeros(2, 3, 16, 16)).shape == (2, MOST_NUMBERS)


def test_backgrounds_that_are_alike_have_no_code() -> None:
    ground = torch.rand(3, 64, 64)
    assert fit_codes([ground]) is None
    assert fit_codes([ground, ground]) is None
    assert fit_codes([ground + 0.002 * torch.randn(3, 64, 64) for _ in range(20)]) is None


def test_settings_of_codes_are_checked() -> None:
    with pytest.raises(ValueError, match="context_code_dim is 17; allowed is 0 to 16"):
        replace(TrackedConfig(), context_code_dim=17)


def test_the_shipped_worlds_have_one_context_and_no_code() -> None:
    for name in flam_rl.core.sources.shipped_worlds():
        world = flam_rl.load_world(name)
        assert world.observation_dim == world.factors * world.factor_dim
        assert world.context_code(world.starts().context).shape[1] == 0


@pytest.mark.learning
def test_a_code_tells_which_background_it_is_of(trained: World, films: list[np.ndarray]) -> None:
    count = trained.model.context_code_dim
    assert 4 <= count <= MOST_NUMBERS
    assert trained.observation_dim == trained.factors * trained.factor_dim + count
    first, later = (
        [code_of(trained, film[part]) for film in films[:5]] for part in (slice(24), slice(17, 41))
    )
    names = np.arange(5)
    right = LogisticRegression(C=100).fit(first, names).score(later, names)
    assert right >= 0.9  # chance is 1/5
    between = min(np.linalg.norm(first[i] - first[j]) for i in range(5) for j in range(i))
    assert max(np.linalg.norm(np.subtract(first, later), axis=1)) < between


@pytest.mark.learning
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized.*")
def test_an_episode_has_the_same_code_everywhere(
    trained: World, labelled: World, films: list[np.ndarray]
) -> None:
    size, starts = trained.factors * trained.factor_dim, trained.starts()
    bound = trained.model.factor_bound  # held-out video may go a little beyond it
    factors = starts.factors.flatten(1).numpy().clip(-bound, bound)
    seen = np.stack([code_of(trained, film) for film in films[:5]])
    at_start = trained.context_code(starts.context).numpy()
    episode = trained.stored_starts["episode"].numpy()
    assert set(episode) == set(range(5))
    assert np.allclose(at_start, seen[episode], atol=0.05)  # of starts in whole grey levels
    env = gym.make("FLAM-v0", world=trained, control=[0]).unwrapped
    check_env(env)
    check_for_sb3(env)
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        same = np.abs(factors - observation[:size]).max(1) < 1e-5
        assert same.any()
        assert np.abs(at_start[same] - observation[size:]).max(1).min() < 1e-5
        assert np.array_equal(env.step(env.action_space.sample())[0][size:], observation[size:])
    decoded = DecodedEnv(task(), labelled)
    assert decoded.observation_space == env.observation_space
    observation, _ = decoded.reset(seed=100)
    frames, ended = [decoded.env.render()], False
    while not ended:
        observation, _, terminated, truncated, _ = decoded.step(decoded.action_space.sample())
        frames.append(decoded.env.render())
        ended = terminated or truncated
    told = observation[size:]
    apart = np.linalg.norm(seen - told, axis=1).min()
    assert np.linalg.norm(code_of(trained, np.stack(frames)) - told) < 0.2 * apart


@pytest.mark.learning
def test_ppo_acts_on_the_task_as_in_imagination(labelled: World) -> None:
    env = make_sb3_vec_env(num_envs=8, world=labelled, control="agent")
    model = PPO("MlpPolicy", env, n_steps=16, batch_size=64, n_epochs=2, device="cpu").learn(256)
    decoded = DecodedEnv(task(), labelled)
    observation, _ = decoded.reset(seed=0)
    action, _ = model.predict(observation)
    assert decoded.step(action)[0] in decoded.observation_space


@pytest.mark.learning
def test_a_saved_world_tells_the_same(trained: World, tmp_path: Path) -> None:
    flam_rl.save_world(trained, tmp_path / "world")
    loaded = flam_rl.load_world(tmp_path / "world")
    context = trained.starts().context
    assert torch.equal(loaded.context_code(context), trained.context_code(context))
    assert (trained.context_code(context) != 0).any()
