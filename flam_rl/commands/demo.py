"""`flam-rl demo`: the whole road on the shipped world, from a label budget to success on the real task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import torch
from gymnasium.vector import VectorEnv
from stable_baselines3 import PPO

from ..agents.behavior_cloning import BehaviorCloning
from ..agents.ppo import ImaginationConfig, Judgement, save_policy, train_in_imagination
from ..core.checkpoint import load_world
from ..core.world import World
from ..envs.decoded_env import DecodedEnv, DecodedVectorEnv
from ..envs.tasks.record import check_policy, record_episodes, record_labels
from ..evaluation.pictures import enlarge, factor_colors, figure_to_image, mask_picture, write_gif
from ..evaluation.policies import PolicyScore, score_policy, several
from ..grounding.adapter import fit_labels
from ..results import write_results
from ..types import Scene, Video, check_ranges
from .checks import check_out
from .collect import with_bar
from .tasks import find_task, misfit

NAMES = {
    "random": "random",
    "bc": "BC on the labels",
    "latent_bc": "latent BC on expert video",
    "imagination": "PPO in imagination",
    "expert": "scripted expert",
}


@dataclass(frozen=True)
class DemoConfig:
    """Learn an agent inside the shipped world from 1,000 labelled steps and evaluate it on the real task.

    Example: flam-rl demo --seed 1 --out runs/demo-1
    """

    out: Path = Path("runs/demo")
    """Folder for results.json, plot.png, demo.gif, policy.zip and TensorBoard logs."""
    world: str = "multigrid"
    """Name of a shipped world, or a folder; it must have a task."""
    labels: int = 1000
    """Label budget, transitions."""
    expert_episodes: int = 100
    """Unlabelled expert video for latent BC."""
    episodes: int = 100
    """Fresh episodes on the real task for each policy."""
    task: str | None = None
    """Gymnasium id of the real task; for a world whose own is not one of flam_rl's."""
    seed: int = 0
    """Changes every draw."""
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)

    def __post_init__(self) -> None:
        check_ranges(
            self, labels=(2, 10**9), expert_episodes=(1, 10**9), episodes=(1, 10**9), seed=(0, 2**31)
        )


def demo(config: DemoConfig) -> None:
    """Run the command."""
    began = time.perf_counter()
    check_out(config.out)
    world = load_world(config.world)
    task = find_task(world.info.task, world.info.task_kwargs, config.task, f"the world {config.world}", True)
    assert task is not None
    if reason := misfit(task, (*world.frame_size, 3)):
        raise ValueError(f"the task of the world {config.world} does not fit it: {reason}")
    for policy in ("mixed", "goal", "expert"):
        check_policy(task, policy)
    if not isinstance(task.action_space, gym.spaces.Discrete):
        raise ValueError(f"the task's actions are {task.action_space}; allowed in the demo is Discrete")
    seeds = [int(s) for s in np.random.SeedSequence(config.seed).generate_state(4)]

    print(f"1/4 recording {config.labels} labelled transitions, fitting adapter and heads")
    labelled = record_labels(task, config.labels, seeds[0])
    world.labels, adapter = fit_labels(world, labelled, config.labels, config.seed)
    print(f"    {adapter.summary}")

    print("2/4 training PPO in imagination")
    model, history = train_in_imagination(world, config.imagination, config.seed, config.out / "logs")
    save_policy(model, config.out / "policy.zip")

    print("3/4 cloning: the labels, and unlabelled expert video")
    bc = BehaviorCloning.from_labels(labelled, config.seed)
    expert = with_bar(record_episodes(task, 10**9, seeds[1], "expert"), 0, "expert video")
    video = Video(
        tuple(episode.frames for episode, _ in zip(expert, range(config.expert_episodes), strict=False))
    )
    latent_bc = BehaviorCloning.from_expert_video(world, video, config.seed)

    print(f"4/4 {config.episodes} fresh episodes on the real task for each policy")
    tasks = several(task)
    decoded = DecodedVectorEnv(tasks, world)
    rng = np.random.default_rng(seeds[2])
    policies: dict[str, tuple[VectorEnv, Callable[[Any], Any]]] = {
        "random": (tasks, lambda seen: rng.integers(labelled.action_space.count[0], size=len(seen))),
        "bc": (tasks, lambda seen: bc.predict(seen)[0]),
        "latent_bc": (decoded, lambda seen: latent_bc.predict(seen)[0]),
        "imagination": (decoded, lambda seen: model.predict(seen, deterministic=True)[0]),
        "expert": (tasks, lambda seen: np.array(tasks.call("expert_action"))),
    }
    scores = {
        name: score_policy(env, act, config.episodes, seeds[3], NAMES[name])
        for name, (env, act) in policies.items()
    }
    write_gif(config.out / "demo.gif", rollout_frames(world, DecodedEnv(task, world), model, seeds[3]))
    results = {
        "wall_s": time.perf_counter() - began,
        "label_budget": config.labels,
        "seed": config.seed,
        "episodes": config.episodes,
        "policies": {name: asdict(score) for name, score in scores.items()},
        "adapter_accuracy": adapter.accuracy,
        "imagination": [asdict(found) for found in history],
    }
    path = write_results(config.out, results, config.seed)
    _plot(scores, history, config.out / "plot.png")
    print(table(scores))
    print(f"{results['wall_s']:.0f} s; wrote {path}, plot.png and demo.gif beside it")


def table(scores: dict[str, PolicyScore]) -> str:
    """The scores as text."""
    lines = [f"{'policy':<28}{'success':>8}  {'95% interval':<14}{'return':>7}"]
    for name, score in scores.items():
        interval = f"{score.ci95[0]:.2f} - {score.ci95[1]:.2f}"
        lines.append(f"{NAMES[name]:<28}{score.success_rate:>8.2f}  {interval:<14}{score.mean_return:>7.2f}")
    return "\n".join(lines)


@torch.inference_mode()
def rollout_frames(
    world: World, decoded: DecodedEnv, model: PPO, seed: int, episodes: int = 4
) -> list[np.ndarray]:
    """Frames of a GIF: the agent on the real task | in imagination from the same frame | the factors' masks."""
    assert world.labels is not None
    frames: list[np.ndarray] = []
    task: Any = decoded.env
    imagination, colors = world.imagination([world.moved_by(decoded.agent_factor)]), factor_colors(world)
    for index in range(episodes):
        observation, _ = decoded.reset(seed=seed + index)
        imagined_steps = 0
        state, context = imagination.begin(decoded.scene.factors), decoded.scene.context
        generator = torch.Generator().manual_seed(seed + index)
        done = finished = False
        real = task.render()
        while not (done and finished):
            factors = state.factors_BKS
            imagined = world.draw(Scene(factors, context))[0].numpy()
            frames.append(_side_by_side([real, imagined, mask_picture(world, factors, colors)[0]]))
            if not done:
                action = model.predict(observation, deterministic=True)[0]
                observation, _, terminated, truncated, _ = decoded.step(action)
                real = task.render()
                done = terminated or truncated
            if not finished:
                wanted = torch.as_tensor(model.predict(factors.flatten(1).numpy(), deterministic=True)[0])
                state, _ = imagination.step(state, wanted[:, None], generator)
                imagined_steps += 1
                ended = bool(world.labels.termination(state.factors_BKS) > 0.5)
                finished = ended or imagined_steps == world.info.horizon
        frames += frames[-1:] * 4
    return frames


def _side_by_side(images: list[np.ndarray], gap: int = 8) -> np.ndarray:
    large = [enlarge(image, 3) for image in images]
    between = np.full((large[0].shape[0], gap, 3), 255, np.uint8)
    return np.concatenate([large[0], between, large[1], between, large[2]], 1)


def _plot(scores: dict[str, PolicyScore], history: list[Judgement], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for index, (name, score) in enumerate(scores.items()):
        error = [[score.success_rate - score.ci95[0]], [score.ci95[1] - score.success_rate]]
        left.barh(
            index,
            score.success_rate,
            xerr=np.maximum(error, 0),
            color="tab:blue" if name == "imagination" else "silver",
            capsize=3,
        )
    left.set_yticks(range(len(scores)), [NAMES[name] for name in scores])
    left.invert_yaxis()
    left.set_xlim(0, 1.05)
    left.set_xlabel("success on the real task, 95% interval")
    checks = np.arange(1, len(history) + 1)
    right.plot(checks, [found.success for found in history], label="imagined success, pessimistic")
    right.plot(checks, [found.plausible for found in history], label="plausible latent actions")
    right.set_ylim(0, 1.05)
    right.set_xlabel("check during training in imagination")
    right.legend()
    imageio.imwrite(path, figure_to_image(figure))
