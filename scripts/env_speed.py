"""Speed of what is built on a world: its env, the heads and policies on it, training; for benchmark_speed.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import psutil
import torch

from flam_rl.agents.ppo import ImaginationConfig, train_in_imagination
from flam_rl.commands.tasks import find_task
from flam_rl.core.world import World, WorldInfo
from flam_rl.envs.decoded_env import DecodedVectorEnv
from flam_rl.envs.flam_vector_env import FLAMVectorEnv
from flam_rl.envs.sb3 import make_sb3_vec_env
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.measure import measure_world
from flam_rl.evaluation.policies import several
from flam_rl.evaluation.speed import (
    BATCH,
    Bench,
    beside_busy_neighbours,
    exponent,
)
from flam_rl.evaluation.truth import truths_of
from flam_rl.evaluation.validity import random_reward_rate
from flam_rl.models.tiles.clips import Clips, tokenize
from flam_rl.models.tiles.code_model import FLAMConfig
from flam_rl.models.tiles.tokenizer import TokenizerConfig
from flam_rl.models.tiles.tokenizer_training import TokenizerTrainingConfig, train_tokenizer
from flam_rl.models.tiles.training import WorldTrainingConfig, make_model, train_prior, train_world
from flam_rl.models.tracked.flam import TrackedConfig
from flam_rl.models.tracked.model import TrackedModel
from flam_rl.models.tracked.states import PRESENCE, StateConfig
from flam_rl.training.run import Log
from flam_rl.types import Json, Video


def stepping(bench: Bench, world: World, observation: Any, num_envs: int) -> float:
    """Env-steps/s of a plain step of `gym.make_vec("FLAM-v0")`, autoreset included."""
    return num_envs / bench(_stepper(world, num_envs, observation=observation, compile=False))


def _stepper(world: World, num_envs: int, **arguments: Any) -> Callable[[], Any]:
    env = gym.make_vec("FLAM-v0", num_envs=num_envs, world=world, **arguments)
    env.reset(seed=0)
    env.action_space.seed(0)
    actions = env.action_space.sample()
    return lambda: env.step(actions)


def against_the_real_task(bench: Bench, world: World, compile: bool) -> Json:
    """Env-steps/s at 256 worlds over steps/s of the real task with the same frames, resets included."""
    task = own_task(world)
    task.reset(seed=0)
    task.action_space.seed(0)

    def real() -> None:
        for _ in range(BATCH):
            _, _, terminated, truncated, _ = task.step(task.action_space.sample())
            if terminated or truncated:
                task.reset()

    functions = {
        "real": real,
        "factors, not compiled": _stepper(world, BATCH, compile=False),
        "pixels, not compiled": _stepper(world, BATCH, observation="pixels", compile=False),
    }
    if compile:
        functions |= {
            "factors": _stepper(world, BATCH),
            "pixels": _stepper(world, BATCH, observation="pixels"),
            "factors, bfloat16": _stepper(world, BATCH, precision="bfloat16"),
        }
    speeds = {name: BATCH / seconds for name, seconds in bench.compare(functions).items()}
    return {
        "env_steps_per_second": speeds,
        "over_real": {name: speed / speeds["real"] for name, speed in speeds.items() if name != "real"},
    }


def own_task(world: World) -> gym.Env:
    """The world's real task."""
    task = find_task(world.info.task, world.info.task_kwargs, None, "the world", needed=True)
    assert task is not None
    return task


def busy(world: World, device: torch.device, quick: bool) -> Json:
    """Stepping, training and evaluation beside as many busy processes as there are cores."""
    task = own_task(world)
    episodes = list(record_episodes(task, 300 if quick else 1000, 0))
    video, entities = Video(tuple(e.frames for e in episodes)), [e.entities for e in episodes]
    tiles: Any = world.model  # of codes, as every one that is shipped
    codes = tokenize(tiles.tokenizer, video)
    flam = make_model("flam", tiles.tokenizer, codes.episodes, FLAMConfig(), 0).to(device)
    some = 2 if quick else 30
    recipe = WorldTrainingConfig(steps=some, prior_steps=some)
    patches = TokenizerTrainingConfig(steps=some)
    log, clips, tasks = Log(None), Clips(codes, 0), DecodedVectorEnv(several(task), world)

    def stepped(step: Callable[[], Any]) -> Callable[[], int]:
        return lambda: BATCH * len([step() for _ in range(10)])

    def tokenizer() -> int:
        train_tokenizer(video, TokenizerConfig(), patches, 0, device, log)
        return some * patches.batch

    def model() -> int:
        flam.requires_grad_(True)
        train_world(flam, clips, recipe, log)
        return some * recipe.frames

    def prior() -> int:
        train_prior(flam.requires_grad_(True), codes.episodes, recipe, 0, log)
        return some * recipe.prior_batch

    def measures() -> int:
        encoded = encode(world, video, truths_of(entities))
        measure_world(encoded, task.unwrapped, 0, probe_iterations=2 if quick else 40)
        return video.frames

    def policies() -> int:
        random_reward_rate(tasks, 0, len(episodes))
        return len(episodes)

    works = {
        "env-steps, not compiled": stepped(_stepper(world, BATCH, compile=False)),
        "frames, world training": model,
    }
    if not quick:
        works |= {
            "env-steps": stepped(_stepper(world, BATCH)),
            "env-steps, pixels": stepped(_stepper(world, BATCH, observation="pixels")),
            "patches, tokenizer training": tokenizer,
            "transitions, prior training": prior,
            "frames, evaluation's measures": measures,
            "episodes, a random policy": policies,
        }
    return beside_busy_neighbours(works, 0.3 if quick else 5.0, 1 if quick else 3)


def precision_choice(bench: Bench, world: World) -> Json:
    """bfloat16 over float32: its speed, and the share of tokens that are equal after 15 steps of the same latent
    actions for all factors."""
    start = world.start(BATCH, torch.Generator(world.device).manual_seed(0))
    everyone = range(world.factors)
    rollout = world.imagine(lambda seen: seen, start, 15, (), torch.Generator(world.device).manual_seed(1))
    tokens: list[torch.Tensor] = []
    tiles: Any = world.model
    for dtype in (torch.float32, torch.bfloat16):
        again = world.imagine(_replay(rollout.latent_actions_BTLA), start, 15, everyone, None, dtype)
        tokens.append(tiles.aggregate(again.factors_BTKS[:, -1]).log_probs_BNV.argmax(-1))
    seconds = bench.compare(
        {p: _stepper(world, BATCH, precision=p, compile=False) for p in ("float32", "bfloat16")}
    )
    return {
        "bfloat16_over_float32": seconds["float32"] / seconds["bfloat16"],
        "same_tokens_after_15_steps": float((tokens[0] == tokens[1]).float().mean()),
    }


def _replay(latent_actions_BTLA: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    actions = iter(latent_actions_BTLA.flatten(2).unbind(1))
    return lambda seen: next(actions)


def split(bench: Bench, world: World) -> dict[str, float]:
    """Share of each part in a step with pixels: what of it is spent inside calls of that part."""
    env = FLAMVectorEnv(BATCH, world, [0], "pixels", compile=False)
    env.reset(seed=0)
    actions = env.action_space.sample()
    spent: dict[str, float] = {}
    imagination = env._imagination
    parts = {
        "prior and dynamics, all factors at once": (imagination, "_prepare"),
        "prior": (imagination, "_logits"),
        "dynamics": (imagination, "_moved"),
        "places": (imagination, "_places"),
        "heads": (imagination, "events"),
        "observations": (env, "_observe"),  # decoded by several threads at once
    }
    for name, (owner, method) in parts.items():
        if function := getattr(owner, method):
            setattr(owner, method, _timed(function, name, spent))
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < 2 * bench.seconds:
        env.step(actions)
        steps += 1
    total = time.perf_counter() - began
    shares = {name: seconds / total for name, seconds in spent.items()}
    return shares | {"overhead": 1 - sum(shares.values()), "milliseconds": 1e3 * total / steps}


def _timed(function: Callable, name: str, spent: dict[str, float]) -> Callable:
    def timed(*arguments: Any) -> Any:
        began = time.perf_counter()
        result = function(*arguments)
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return result

    return timed


def wrapping(bench: Bench, world: World) -> dict[str, float]:
    """What gymnasium and Stable-Baselines3 cost on top of `world.imagine` with its heads, at 256 worlds."""
    horizon = 32
    start = world.start(BATCH)
    controlled = list(world.labels.agents.factors) if world.labels else [0]
    actions = torch.zeros(BATCH, world.latent_action_dim, device=world.device)
    gymnasium_env = gym.make_vec("FLAM-v0", num_envs=BATCH, world=world, copy=False, compile=False)
    sb3 = make_sb3_vec_env(num_envs=BATCH, world=world, copy=False, compile=False)
    gymnasium_env.reset(seed=0)
    sb3.reset()
    zeros = actions.cpu().numpy()
    seconds = bench.compare(
        {
            "core": lambda: world.imagine(lambda seen: actions, start, horizon, controlled),
            "gymnasium": lambda: [gymnasium_env.step(zeros) for _ in range(horizon)],
            "sb3": lambda: [sb3.step(zeros) for _ in range(horizon)],
        }
    )
    return {
        "world_imagine_milliseconds": 1e3 * seconds["core"] / horizon,
        "gymnasium_overhead": seconds["gymnasium"] / seconds["core"] - 1,
        "sb3_overhead": seconds["sb3"] / seconds["core"] - 1,
    }


def tracked(bench: Bench, device: torch.device, quick: bool) -> Json:
    """Env-steps/s of the plain call of FLAM-v0 at 256 worlds on tracked layers, by the number of entities, whose weights have not
    been trained, and the exponent of the time for a step; and with pixels."""
    counts = (4, 8) if quick else (4, 8, 16, 32)

    def seconds(count: int, observation: str) -> float:
        torch.manual_seed(0)
        state = StateConfig(entities=count)
        model = TrackedModel(TrackedConfig(state, shared_ground=True))
        factors = 0.5 * torch.randn(BATCH, count, state.dim).clamp(-1, 1)
        factors[..., PRESENCE] = 1
        starts = {
            "factors": factors,
            "context": torch.zeros(1, model.context_dim, dtype=torch.uint8),
            "episode": torch.zeros(BATCH, dtype=torch.int64),
        }
        model.flam.latent_action_prior.codebook.normal_()
        world = World(model, starts, WorldInfo()).to(device)
        compile = False if quick else None
        return bench(_stepper(world, BATCH, observation=observation, control=[0], compile=compile))

    taken = {count: seconds(count, "factors") for count in counts}
    return exponent(taken) | {
        "env_steps_per_second": {str(count): BATCH / each for count, each in taken.items()},
        "pixels_per_second": {"8": BATCH / seconds(8, "pixels")},
    }


def training(world: World, device: torch.device, quick: bool) -> dict[str, float]:
    """Frames/s of tokenizer and world training, steps/s of PPO in imagination from end to end."""
    task = own_task(world)
    video = Video(tuple(e.frames for e in record_episodes(task, 300 if quick else 4000, 0)))
    log = Log(None)
    steps = 10 if quick else 300
    began = time.perf_counter()
    settings = TokenizerTrainingConfig(steps=steps)
    tokenizer = train_tokenizer(video, TokenizerConfig(), settings, 0, device, log)
    tokens = tokenizer.grid[0] * tokenizer.grid[1]
    result = {"tokenizer_frames_per_second": steps * settings.batch / tokens / (time.perf_counter() - began)}
    tiles: Any = world.model  # of codes, as every one that is shipped
    codes = tokenize(tiles.tokenizer, video)
    flam = make_model("flam", tiles.tokenizer, codes.episodes, FLAMConfig(), 0).to(device)
    began = time.perf_counter()
    recipe = WorldTrainingConfig(steps=steps)
    train_world(flam, Clips(codes, 0), recipe, log)
    result["world_frames_per_second"] = steps * recipe.frames / (time.perf_counter() - began)
    ppo = ImaginationConfig(steps=4096 if quick else 65_536, checks=2)
    began = time.perf_counter()
    train_in_imagination(world, ppo)
    result["ppo_steps_per_second"] = ppo.steps / (time.perf_counter() - began)
    return result


def memory(world: World, steps: int) -> Json:
    """Resident memory over `steps` env-steps at 256 worlds, after the first tenth of them."""
    env = FLAMVectorEnv(BATCH, world, autoreset_mode="SameStep", compile=False)
    env.reset(seed=0)
    actions = env.action_space.sample()
    process = psutil.Process()
    seen = []
    for step in range(steps // BATCH):
        env.step(actions)
        if step >= steps // BATCH // 10:
            seen.append(process.memory_info().rss)
    return {
        "steps": steps,
        "resident_mib": seen[-1] / 2**20,
        "growth": max(seen) / seen[0] - 1,
        "peak_mib": max(seen) / 2**20,
    }
