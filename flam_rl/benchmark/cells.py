"""Run one cell: from nothing to its results."""

from __future__ import annotations

import resource
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3 import PPO

from ..agents.behavior_cloning import BehaviorCloning
from ..agents.ppo import train_in_imagination
from ..core.checkpoint import load_world, save_world
from ..core.info import Origin, WorldInfo
from ..core.registry import CONTROLS
from ..envs.decoded_env import DecodedVectorEnv
from ..envs.frames import Frames
from ..envs.tasks.record import record_episodes, record_labels
from ..evaluation.encoded import encode
from ..evaluation.measure import measure_world
from ..evaluation.perceptual import FVD, LPIPS
from ..evaluation.policies import PolicyScore, score_policy, several
from ..evaluation.truth import truths_of
from ..files import remove_whole
from ..grounding.adapter import fit_labels
from ..models.build import BuildConfig, Footage, build_world, settled
from ..results import made_by, read_json, write_json
from ..training.checkpoints import seconds_spent
from ..training.run import Log, pick_device, seed_everything
from ..types import Episode, Json, Video
from .budgets import Budget
from .suites import Cell, TaskSettings, cell_config

FRAME_SIZE = 64
"""Height and width to which frames of other sizes are fitted."""
TEST_SEED = 1_000_000
"""Added to a cell's seed for video that nothing is trained on."""


def run_cell(
    cell: Cell, budget: Budget, folder: Path, lpips: Path | None = None, fvd: Path | None = None
) -> Json:
    """Everything that a cell has to say; what it made stays in `folder`.

    Args:
        lpips, fvd: weights of feature networks.
    """
    seed_everything(cell.seed)
    if cell.build is not None:
        found = _world_cell(cell, budget, folder, lpips, fvd)
    else:
        found = _labels_cell(cell, budget, folder)
    return {
        "suite": cell.suite,
        "model": cell.model,
        "task": cell.task.name,
        "entities": cell.task.entities,
        "seed": cell.seed,
        "labels": cell.labels,
        **found,
        "config": cell_config(cell, budget, lpips is not None, fvd is not None),
    }


def _world_cell(cell: Cell, budget: Budget, folder: Path, lpips: Path | None, fvd: Path | None) -> Json:
    """A world, trained unless the one in `folder` was finished before, and all that can be measured of it."""
    test_task = make_task(cell.task, held_out=True)
    test = list(record_episodes(test_task, budget.test_transitions, TEST_SEED + cell.seed))
    made = folder / "made.json"
    # What a world depends on: how it is measured may change without it.
    asked = cell_config(cell, budget)
    config = {key: asked[key] for key in ("build", "transitions", "test_transitions")}
    if not made.is_file() or read_json(made).get("config") != config:
        made.unlink(missing_ok=True)  # it speaks of a world that is about to be replaced
        unfinished = _unfinished(folder, config)
        cost = _make_world(cell, budget, folder, _video(test), unfinished)
        write_json(made, {"config": config, "spent": cost})
        remove_whole(unfinished)
    spent = read_json(made)["spent"]
    began = time.perf_counter()
    world = load_world(folder / "world", pick_device("auto"))
    measured = measure_world(
        encode(world, _video(test), truths_of([episode.entities for episode in test])),
        test_task.unwrapped,
        cell.seed,
        probe_iterations=budget.probe_iterations,
        lpips=LPIPS(lpips).to(world.device) if lpips else None,
        fvd=FVD(fvd) if fvd else None,
    )
    spent["wall_s"] += time.perf_counter() - began
    return measured | spent | {"parameters": world.model.size, "kind": world.model.kind}


def _unfinished(folder: Path, config: Json) -> Path:
    """The folder that the cell's training goes on from; what is there of other settings is deleted."""
    path = folder / "unfinished"
    said = path / "config.json"
    if path.exists() and not (said.is_file() and read_json(said) == config):
        remove_whole(path)
    write_json(said, config)
    return path


def make_task(task: TaskSettings, held_out: bool = False) -> gym.Env:
    """The task, with frames of `FRAME_SIZE`."""
    env = gym.make(task.id, **(task.kwargs | task.held_out if held_out else task.kwargs))
    size = (FRAME_SIZE, FRAME_SIZE)
    return env if env.observation_space.shape == (*size, 3) else Frames(env, *size)


def _make_world(cell: Cell, budget: Budget, folder: Path, test: Video, unfinished: Path) -> Json:
    """Train a world into `folder/world`, from what is in `unfinished` on; what that took, with what that had taken."""
    earlier = seconds_spent(unfinished)
    began = time.perf_counter() - earlier
    task = make_task(cell.task)
    assert task.spec is not None
    info = WorldInfo(task.spec.id, cell.task.kwargs)
    episodes = list(record_episodes(task, budget.transitions, cell.seed))
    with Log(folder / "logs") as log:
        known = "action" in episodes[0].entities
        actions = [episode.entities["action"] for episode in episodes] if known else None
        footage = Footage(_video(episodes), test, actions)
        training_began = time.perf_counter() - earlier
        build = settle(cell, footage.training)
        world = build_world(build, footage, info, pick_device("auto"), log, folder=unfinished)
    ended = time.perf_counter()
    origin = Origin.from_made_by(made_by(cell.seed), footage.training.frames, ended - began)
    world.info = replace(info, origin=origin)
    save_world(world, folder / "world")
    return {
        "training_s": ended - training_began,
        "wall_s": ended - began,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def settle(cell: Cell, video: Video) -> BuildConfig:
    """The cell's build with the model that suits the video in place of `auto`; of the control, that with one latent action."""
    assert cell.build is not None
    build, _ = settled(cell.build, video)
    if cell.build.model == "auto" and cell.model == "joint":
        assert build.model != "auto"
        return replace(build, model=CONTROLS[build.model])
    return build


def _video(episodes: list[Episode]) -> Video:
    return Video(tuple(episode.frames for episode in episodes))


def _labels_cell(cell: Cell, budget: Budget, folder: Path) -> Json:
    began = time.perf_counter() - seconds_spent(folder / "unfinished")
    found = _learned(cell, budget, folder)
    return found | {"wall_s": time.perf_counter() - began}


def _learned(cell: Cell, budget: Budget, folder: Path) -> Json:
    """A policy and its success on the real task."""
    task = make_task(cell.task)
    seeds = [int(s) for s in np.random.SeedSequence([cell.seed, cell.labels or 0]).generate_state(3)]
    if cell.labels is None:
        return {"curve": _real_ppo(cell, task, budget, seeds[0], folder)}
    labelled, tasks = record_labels(task, cell.labels, seeds[0]), several(task)
    if cell.model == "bc":
        clone = BehaviorCloning.from_labels(labelled, cell.seed)
        return _scored(score_policy(tasks, lambda seen: clone.predict(seen)[0], budget.episodes, seeds[2]))
    world = load_world("multigrid")
    world.labels, adapter = fit_labels(world, labelled, cell.labels, cell.seed)
    decoded = DecodedVectorEnv(tasks, world)
    if cell.model == "latent-bc":
        expert = record_episodes(task, 10**9, seeds[1], "expert")
        video = _video([episode for episode, _ in zip(expert, range(budget.expert_episodes), strict=False)])
        clone = BehaviorCloning.from_expert_video(world, video, cell.seed)
        score = score_policy(decoded, lambda seen: clone.predict(seen)[0], budget.episodes, seeds[2])
    else:
        unfinished = _unfinished(folder, cell_config(cell, budget))
        model, _ = train_in_imagination(world, budget.imagination, cell.seed, folder / "logs", unfinished)
        score = score_policy(
            decoded, lambda seen: model.predict(seen, deterministic=True)[0], budget.episodes, seeds[2]
        )
        remove_whole(unfinished)
    return _scored(score) | {"adapter_accuracy": max(adapter.accuracy)}


def _scored(score: PolicyScore) -> Json:
    return {"success": score.success_rate, "ci95": score.ci95, "return": score.mean_return}


def _real_ppo(cell: Cell, task: gym.Env, budget: Budget, test_seed: int, folder: Path) -> list[Json]:
    """PPO from pixels on the real task, scored after so many environment steps on an instance of its own."""
    model = PPO(
        "CnnPolicy",
        make_task(cell.task),
        n_steps=256,
        batch_size=128,
        n_epochs=4,
        gamma=0.95,
        ent_coef=1e-2,
        tensorboard_log=str(folder / "logs"),
        seed=cell.seed,
        device="cpu",
    )
    curve: list[Json] = []
    tasks = several(task)
    for steps in budget.real_steps:
        model.learn(steps - model.num_timesteps, reset_num_timesteps=not curve, progress_bar=False)
        score = score_policy(
            tasks, lambda seen: model.predict(seen, deterministic=True)[0], budget.episodes, test_seed
        )
        curve.append({"steps": model.num_timesteps, **_scored(score)})
    return curve
