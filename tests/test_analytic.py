"""Envs, agents and verbs in a world whose every answer is known in closed form; nothing is trained but policies."""

from __future__ import annotations

from functools import partial

import gymnasium as gym
import numpy as np
import plain_ppo
import pytest
import torch
from analytic import (
    CODES,
    GOAL,
    GREYEST,
    HORIZON,
    SIDE,
    PointsTask,
    factors_of,
    frame_of,
    pixels_of,
    points_world,
    start_level,
    start_pixels,
)
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv
from stable_baselines3.common.env_checker import check_env as check_for_sb3
from stable_baselines3.common.evaluation import evaluate_policy

from flam_rl.actions import ActionSpace
from flam_rl.agents import BehaviorCloning, ImaginationConfig, train_in_imagination
from flam_rl.agents.ppo import judge
from flam_rl.core.heads import EventHead
from flam_rl.core.world import World
from flam_rl.envs import DecodedEnv, DecodedVectorEnv, make_sb3_vec_env
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.grounding.adapter import fit_labels
from flam_rl.types import LabelledTransitions, Video

UP, RIGHT = CODES[4], CODES[1]


@pytest.fixture
def world() -> World:
    return points_world()


@pytest.fixture
def grounds() -> World:
    """The same with a ground of another grey in each episode, which the observation tells."""
    return points_world(ground=True)


@pytest.fixture(scope="module")
def episode() -> np.ndarray:
    """Frames of the task under random actions, of more steps than an episode has."""
    task = PointsTask(max_steps=40)
    rng = np.random.default_rng(0)
    frames = [task.reset(seed=0)[0]]
    for _ in range(30):
        frames.append(task.step(rng.integers(5))[0])
    return np.stack(frames)


def moved(pixels: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The closed form of a step."""
    return np.clip(pixels + codes.astype(int), 0, SIDE - 1)


def observed(pixels: np.ndarray, level: int | None = None) -> np.ndarray:
    """The observation `factors` of points at these pixels, in front of a ground of this grey level if episodes have one."""
    factors = factors_of(torch.as_tensor(pixels).float()).flatten().numpy()
    return factors if level is None else np.append(factors, np.float32(level / GREYEST * 2 - 1))


def test_the_verbs_are_exact(world: World, episode: np.ndarray) -> None:
    scene = world.see(torch.as_tensor(episode)[None])
    assert scene.factors.shape == (1, 31, 3, 2)
    assert torch.equal(world.draw(type(scene)(scene.factors[0], scene.context)), torch.as_tensor(episode))
    latent = world.infer_actions(scene.factors).mean
    assert torch.allclose(world.step(scene.factors[:, :-1], latent), scene.factors[:, 1:], atol=1e-5)
    assert np.array_equal(world.predict(episode, 3, 20), episode[4:24])
    found = world.entities(episode, masks=True)
    assert found.presence.all()
    assert np.array_equal(found.box[0, :, :2], start_pixels(0))
    assert np.array_equal(found.mask, episode.transpose(0, 3, 1, 2) / 255)


def test_flam_v0_is_the_closed_form(world: World) -> None:
    env = gym.make("FLAM-v0", world=world, control="all", observation="pixels", masks=True).unwrapped
    observation, info = env.reset(seed=3)
    pixels = pixels_of(env.core.factors_BKS)[0].numpy()
    assert any(np.array_equal(pixels, start_pixels(seed)) for seed in range(256))
    assert np.array_equal(observation, frame_of(pixels))
    rng = np.random.default_rng(0)
    for step in range(HORIZON):
        codes = CODES[rng.integers(5, size=3)]
        wanted = codes + rng.uniform(-0.4, 0.4, codes.shape)  # the code nearest to it is taken
        observation, reward, terminated, truncated, info = env.step(wanted.ravel().astype(np.float32))
        pixels = moved(pixels, codes)
        assert np.array_equal(observation, frame_of(pixels))
        assert np.array_equal(info["masks"], frame_of(pixels).transpose(2, 0, 1) / 255)
        assert (reward, terminated) == (float(pixels[0, 0] >= GOAL), pixels[0, 0] >= GOAL)
        assert truncated == (step == HORIZON - 1 and not terminated)
        if terminated or truncated:
            break


def test_flam_v0_passes_gymnasiums_checker(world: World, recwarn: pytest.WarningsRecorder) -> None:
    check_env(gym.make("FLAM-v0", world=world).unwrapped)
    assert all("symmetric and normalized" in str(warning.message) for warning in recwarn)


def test_others_act_by_the_prior(world: World) -> None:
    venv = gym.make_vec("FLAM-v0", num_envs=4000, world=world, control="agent", compile=False).unwrapped
    venv.reset(seed=0)
    before = pixels_of(venv.factors_BKS)
    venv.step(np.zeros(venv.action_space.shape, np.float32))
    step = (pixels_of(venv.factors_BKS) - before).numpy()
    assert (step[:, 0] == 0).all()
    inside = ((before > 0) & (before < SIDE - 1)).all(-1).numpy()
    for point in (1, 2):
        taken = step[:, point][inside[:, point]]
        shares = [(taken == code).all(1).mean() for code in CODES]
        assert np.allclose(shares, 0.2, atol=0.03)
    assert np.allclose(venv.log_prior_BC, np.log(0.2))


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_the_vector_env_is_the_closed_form_whenever_worlds_end(world: World, mode: str) -> None:
    venv = gym.make_vec(
        "FLAM-v0", num_envs=50, world=world, control="all", horizon=7, autoreset_mode=mode
    ).unwrapped
    observations, _ = venv.reset(seed=0)
    rng = np.random.default_rng(1)
    elapsed, ended, ends = np.zeros(50, int), np.zeros(50, bool), 0
    for _ in range(20):
        pixels = pixels_of(torch.as_tensor(observations).view(50, 3, 2)).numpy()
        if mode == "Disabled" and ended.any():
            observations, _ = venv.reset(options={"reset_mask": ended})
            pixels = pixels_of(torch.as_tensor(observations).view(50, 3, 2)).numpy()
            elapsed[ended], ended = 0, np.zeros(50, bool)
        restarts = ended if mode == "NextStep" else np.zeros(50, bool)
        codes = CODES[rng.choice([0, 1, 1, 3, 4], size=(50, 3))]
        observations, rewards, terminated, truncated, infos = venv.step(codes.reshape(50, 6))
        elapsed = np.where(restarts, 0, elapsed + 1)
        pixels = moved(pixels, codes)
        expected = np.stack([observed(one) for one in pixels])
        ended = terminated | truncated
        shown = observations.copy()
        if mode == "SameStep" and ended.any():
            shown[ended] = np.stack(infos["final_obs"][ended])
        assert np.allclose(shown[~restarts], expected[~restarts], atol=1e-5)
        reached = pixels[:, 0, 0] >= GOAL
        assert np.array_equal(terminated[~restarts], reached[~restarts])
        assert np.array_equal(rewards[~restarts], reached[~restarts].astype(float))
        assert np.array_equal(truncated, (elapsed >= 7) & ~terminated)
        assert not ended[restarts].any()
        ends += ended.sum()
        if mode == "SameStep":
            elapsed[ended], ended = 0, np.zeros(50, bool)
    assert ends > 50


def test_stable_baselines_sees_the_same_steps(world: World) -> None:
    arguments = {"num_envs": 8, "world": world, "control": "all", "horizon": 5}
    sb3 = make_sb3_vec_env(**arguments)
    venv = gym.make_vec("FLAM-v0", **arguments, autoreset_mode="SameStep")
    sb3.seed(0)
    assert np.array_equal(sb3.reset(), venv.reset(seed=0)[0])
    actions = np.tile(np.concatenate([RIGHT, UP, UP]), (8, 1))
    for _ in range(5):
        mine, rewards, dones, infos = sb3.step(actions)
        theirs, others, terminated, truncated, _ = venv.step(actions)
        assert np.array_equal(rewards, others)
        assert np.array_equal(dones, terminated | truncated)
        assert np.allclose(mine[~dones], theirs[~dones])
        assert [info.get("TimeLimit.truncated", False) for info in infos] == truncated.tolist()
    assert dones.any()


def test_a_decoded_task_is_the_imagined_one(world: World) -> None:
    env = DecodedEnv(PointsTask(), world)
    imagined = gym.make("FLAM-v0", world=world)
    assert (env.observation_space, env.action_space) == (imagined.observation_space, imagined.action_space)
    observation, _ = env.reset(seed=5)
    assert np.allclose(observation, observed(start_pixels(5)))
    for code in CODES[[1, 3, 4, 2, 0]]:
        expected = moved(env.unwrapped.pixels[0], code)
        env.step(code + np.float32(0.3))
        assert np.array_equal(env.unwrapped.pixels[0], expected)


@pytest.mark.parametrize("mode", ["NextStep", "Disabled"])
def test_many_decoded_tasks_see_their_own_frames(world: World, mode: str) -> None:
    tasks = SyncVectorEnv([partial(PointsTask, steps) for steps in (3, 5, 7)], autoreset_mode=mode)
    env = DecodedVectorEnv(tasks, world)
    observations, _ = env.reset(seed=[0, 1, 2])
    for _ in range(20):
        shown = [observed(task.pixels) for task in tasks.envs]
        assert np.allclose(observations, shown)
        observations, _, terminated, truncated, _ = env.step(np.tile(UP, (3, 1)))
        ended = terminated | truncated
        if mode == "Disabled" and ended.any():
            assert np.allclose(observations, [observed(task.pixels) for task in tasks.envs])
            observations, _ = env.reset(seed=[7, 8, 9], options={"reset_mask": ended})


def test_imagine_is_differentiable_and_exact(world: World) -> None:
    starts = world.starts().select(slice(10))
    push = torch.tensor([0.9, 0.1], requires_grad=True)
    generator = torch.Generator().manual_seed(0)
    rollout = world.imagine(lambda seen: push.expand(len(seen), 2), starts, 4, [0], generator)
    after = pixels_of(rollout.factors_BTKS[:, :, 0, 0])
    assert torch.equal(after, after[:, :1] + torch.arange(5))
    assert torch.equal(rollout.factors_BTKS[:, 0], starts.factors)
    rollout.factors_BTKS[:, -1, 0, 0].mean().backward()
    assert torch.allclose(push.grad, torch.tensor([4 * 2 / (SIDE - 1), 0]))


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized.*")
def test_the_observation_tells_the_context_of_the_episode(grounds: World) -> None:
    env = gym.make("FLAM-v0", world=grounds).unwrapped
    check_env(env)
    check_for_sb3(env)
    assert env.observation_space.shape == (grounds.observation_dim,) == (7,)
    assert env.observation_space.high.tolist() == [1.0] * 6 + [3.0]
    assert points_world().observation_dim == 6
    told = {observed(start_pixels(seed), start_level(seed)).tobytes() for seed in range(256)}
    for seed in range(5):
        observation, _ = env.reset(seed=seed)
        rounded = pixels_of(torch.as_tensor(observation[:6].reshape(3, 2))).numpy()
        level = round((float(observation[6]) + 1) / 2 * GREYEST)
        assert observed(rounded, level).tobytes() in told
        for _ in range(3):
            following, *_ = env.step(env.action_space.sample())
            assert following[6] == observation[6]


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
@pytest.mark.parametrize("copy", [True, False])
def test_each_imagined_world_is_told_its_own_context(grounds: World, mode: str, copy: bool) -> None:
    venv = gym.make_vec(
        "FLAM-v0", num_envs=40, world=grounds, horizon=6, autoreset_mode=mode, copy=copy
    ).unwrapped
    observations, _ = venv.reset(seed=0)
    rng, changes = np.random.default_rng(0), 0
    for _ in range(20):
        context = venv.scene.context
        assert np.allclose(observations[:, 6:], grounds.context_code(context))
        assert np.allclose(observations[:, :6], venv.factors_BKS.flatten(1))
        before = observations[:, 6:].copy()
        observations, _, terminated, truncated, infos = venv.step(rng.uniform(-1, 1, (40, 2)))
        ended = terminated | truncated
        if mode == "SameStep" and ended.any():
            assert np.array_equal(np.stack(infos["final_obs"][ended])[:, 6:], before[ended])
        if mode == "Disabled" and ended.any():
            assert np.array_equal(observations[:, 6:], before)
            observations, _ = venv.reset(options={"reset_mask": ended})
        changes += (observations[:, 6:] != before).sum()
    assert changes > 50


def test_a_policy_in_imagination_gets_what_flam_v0_has(grounds: World) -> None:
    venv = gym.make_vec("FLAM-v0", num_envs=9, world=grounds, control="all", compile=False).unwrapped
    observations, _ = venv.reset(seed=0)
    start = type(venv.scene)(*(part.clone() for part in venv.scene))
    actions = torch.as_tensor(CODES[np.random.default_rng(0).integers(5, size=(5, 9, 3))]).flatten(2)
    seen: list[torch.Tensor] = []

    def policy(given: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return actions[len(seen) - 1]

    grounds.imagine(policy, start, 5, [0, 1, 2])
    for given, action in zip(seen, actions, strict=True):
        assert np.allclose(given, observations, atol=1e-6)
        observations, *_ = venv.step(action.numpy())
    weights = torch.zeros(grounds.observation_dim, 6, requires_grad=True)
    rollout = grounds.imagine(lambda given: given @ weights, start, 3, [0, 1, 2])
    rollout.factors_BTKS[:, -1].sum().backward()
    assert (weights.grad.abs().sum(1) > 0).all()


def test_decoded_tasks_tell_the_context_that_their_frames_show(grounds: World) -> None:
    env = DecodedEnv(PointsTask(ground=True), grounds)
    assert env.observation_space == gym.make("FLAM-v0", world=grounds).observation_space
    observation, _ = env.reset(seed=5)
    assert np.allclose(observation, observed(start_pixels(5), start_level(5)), atol=1e-6)
    tasks = SyncVectorEnv(
        [partial(PointsTask, steps, ground=True) for steps in (3, 5, 7)], autoreset_mode="Disabled"
    )
    many = DecodedVectorEnv(tasks, grounds)
    observations, _ = many.reset(seed=[0, 1, 2])
    for _ in range(12):
        shown = [observed(task.pixels, task.level) for task in tasks.envs]
        assert np.allclose(observations, shown, atol=1e-6)
        observations, _, terminated, truncated, _ = many.step(np.tile(UP, (3, 1)))
        if (ended := terminated | truncated).any():
            observations, _ = many.reset(seed=[7, 8, 9], options={"reset_mask": ended})
    assert len({task.level for task in tasks.envs}) == 3


@pytest.mark.learning
def test_latent_actions_are_cloned_from_what_flam_v0_shows(grounds: World) -> None:
    """Experts go right where the ground is dark, and up where it is light: only the context tells."""
    films, rng = [], np.random.default_rng(0)
    for level in [10, 90] * 12:
        pixels = rng.integers(5, 11, (3, 2))
        frames = [frame_of(pixels, level)]
        for _ in range(5):
            chosen = CODES[rng.integers(5, size=3)]
            chosen[0] = RIGHT if level < GREYEST / 2 else UP
            pixels = moved(pixels, chosen)
            frames.append(frame_of(pixels, level))
        films.append(np.stack(frames))
    clone = BehaviorCloning.from_expert_video(grounds, Video(tuple(films)))
    env = gym.make("FLAM-v0", world=grounds)
    for seed in range(20):
        observation, _ = env.reset(seed=seed)
        for level, expected in ((10, RIGHT), (90, UP)):
            observation[6] = level / GREYEST * 2 - 1
            action, _ = clone.predict(observation, deterministic=True)
            assert np.array_equal(action, expected)


CONFIG = ImaginationConfig(steps=24_576, num_envs=64, rollout=24, batch=512, checks=8, learning_rate=3e-3)


def test_ppo_in_imagination_solves_the_task_that_it_never_saw(world: World) -> None:
    model, history = train_in_imagination(world, CONFIG)
    assert history[0].success < 0.9
    assert max(found.success for found in history) > 0.99
    assert judge(model, world, CONFIG.gamma, seed=9).success > 0.99
    env = DecodedEnv(PointsTask(), world)
    returns, lengths = evaluate_policy(model, env, 40, return_episode_rewards=True, warn=False)
    assert np.mean(returns) > 0.99
    assert np.mean(lengths) < 1.2 * np.mean([GOAL - start_pixels(seed)[0, 0] for seed in range(256)])


def test_ppo_stops_when_it_gets_no_better(world: World) -> None:
    world.labels.reward.value.zero_()  # nothing is better than anything
    config = ImaginationConfig(steps=20_000, num_envs=64, rollout=8, batch=512, checks=20, patience=3)
    model, history = train_in_imagination(world, config)
    assert len(history) == 4
    assert model.num_timesteps < 6000


@pytest.mark.learning
def test_a_plain_ppo_that_knows_only_gymnasium_learns(world: World) -> None:
    env = gym.make_vec("FLAM-v0", num_envs=64, world=world, control="agent", compile=False)
    history = plain_ppo.train(env, 30_000, seed=0)
    assert np.mean(history[-3:]) > 2 * np.mean(history[:3])


def labelled_points(task: PointsTask, budget: int = 600) -> LabelledTransitions:
    episodes = record_episodes(task, budget, 0)
    return LabelledTransitions.from_episodes(episodes, budget, ActionSpace.from_gym(task.action_space))


@pytest.mark.learning
@pytest.mark.parametrize("agents", [(2,), (2, 0), (1, 2, 0)])
def test_labels_tell_which_part_of_an_action_moves_which_factor(agents: tuple[int, ...]) -> None:
    world, task = points_world(labels=False), PointsTask(agents=agents)
    world.labels, adapter = fit_labels(world, labelled_points(task), 600)
    assert adapter.agents.factors == agents
    assert adapter.agents.numbers == tuple((number,) for number in range(len(agents)))
    assert min(adapter.accuracy[factor] for factor in agents) > 0.8  # at the border nothing tells
    assert isinstance(world.labels.reward, EventHead)
    env = DecodedEnv(task, world)
    imagined = gym.make("FLAM-v0", world=world)
    assert (env.observation_space, env.action_space) == (imagined.observation_space, imagined.action_space)
    assert env.action_space.shape == (2 * len(agents),)
    env.reset(seed=5)
    rng, right = np.random.default_rng(0), []
    for _ in range(20):
        codes = CODES[rng.integers(len(CODES), size=len(agents))]
        before = task.pixels[list(agents)]
        _, _, terminated, truncated, _ = env.step(codes.ravel() + np.float32(0.2))
        right.append((task.pixels[list(agents)] == moved(before, codes)).all())
        if terminated or truncated:
            env.reset()
    assert np.mean(right) > 0.9
    tasks = SyncVectorEnv([partial(PointsTask, agents=agents)] * 2, autoreset_mode="Disabled")
    decoded = DecodedVectorEnv(tasks, world)
    decoded.reset(seed=0)
    before = np.stack([one.pixels[list(agents)] for one in tasks.envs])
    decoded.step(np.tile(RIGHT, (2, len(agents))))
    assert np.array_equal([one.pixels[list(agents)] for one in tasks.envs], moved(before, RIGHT))
