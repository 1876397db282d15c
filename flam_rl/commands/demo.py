"""`flam-rl demo`: the whole road on the shipped world, from a label budget to success on the real task."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.vector import VectorEnv
from tabulate import tabulate

from ..actions import ActionSpace
from ..agents.behavior_cloning import BehaviorCloning
from ..agents.ppo import ImaginationConfig, save_policy, train_in_imagination
from ..core.checkpoint import load_world
from ..envs.decoded_env import DecodedEnv, DecodedVectorEnv
from ..envs.tasks.acting import check_policy
from ..envs.tasks.record import record_episodes, record_labels
from ..evaluation.pictures import write_gif
from ..evaluation.policies import PolicyScore, score_policy, several
from ..grounding.adapter import fit_labels
from ..results import write_results
from ..types import Video, check_ranges
from .checks import check_out
from .collect import parse_kwargs, with_bar
from .demo_pictures import rollout_frames, write_plot
from .endings import ended
from .tasks import find_task, fitted, misfit

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

    Example: flam-rl demo --task-kwargs '{"controlled": 2}' --out runs/demo-2
    """

    out: Path = Path("runs/demo")
    """Folder for results.json, plot.png, demo.gif, policy.zip and TensorBoard logs."""
    world: str = "multigrid"
    """A shipped world's name, a folder, a zip, or hf://user/name, also with @revision; it must have a task."""
    labels: int = 1000
    """Label budget, transitions."""
    expert_episodes: int = 100
    """Unlabelled expert video for latent BC."""
    episodes: int = 100
    """Fresh episodes on the real task for each policy."""
    task: str | None = None
    """Gymnasium id of the real task; for a world whose own is not one of flam_rl's."""
    task_kwargs: str = "{}"
    """Arguments of the task beyond the world's own, as a JSON object."""
    seed: int = 0
    """Changes every draw."""
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)

    def __post_init__(self) -> None:
        check_ranges(
            self, labels=(2, 10**9), expert_episodes=(1, 10**9), episodes=(1, 10**9), seed=(0, 2**31)
        )


def demo(config: DemoConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such world, or its task does not fit it or has no experts to clone.
    """
    began = time.perf_counter()
    check_out(config.out)
    world = load_world(config.world)
    kwargs = world.info.task_kwargs | parse_kwargs(config.task_kwargs)
    task = find_task(world.info.task, kwargs, config.task, f"the world {config.world}", True)
    assert task is not None
    task = fitted(task, (*world.frame_size, 3), world.info.fit)
    if reason := misfit(task, (*world.frame_size, 3)):
        raise ValueError(f"the task of the world {config.world} does not fit it: {reason}")
    for policy in ("mixed", "goal", "expert"):
        check_policy(task, policy)
    actions = ActionSpace.from_gym(task.action_space)
    if actions.kind != "discrete":
        raise ValueError(
            f"the task's actions are {actions}; allowed in the demo are Discrete and MultiDiscrete"
        )
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

    def by_chance(seen: np.ndarray) -> np.ndarray:
        count, start = (np.reshape(numbers, actions.shape) for numbers in (actions.count, actions.start))
        return start + rng.integers(count, size=(len(seen), *actions.shape))

    policies: dict[str, tuple[VectorEnv, Callable[[Any], Any]]] = {
        "random": (tasks, by_chance),
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
        "task_kwargs": kwargs,
        "agents": adapter.agents.factors,
        "adapter_accuracy": adapter.accuracy,
        "imagination": [asdict(found) for found in history],
    }
    path = write_results(config.out, results, config.seed)
    write_plot(config.out / "plot.png", {NAMES[name]: score for name, score in scores.items()}, history)
    print(table(scores))
    print(f"{results['wall_s']:.0f} s")
    ended(f"{path}, plot.png, demo.gif and policy.zip beside it", "flam-rl", "play", "--world", config.world)


def table(scores: dict[str, PolicyScore]) -> str:
    """The scores as text."""
    rows = [
        (
            NAMES[name],
            "-" if score.success_rate is None else f"{score.success_rate:.2f}",
            "-" if score.ci95 is None else "{:.2f} - {:.2f}".format(*score.ci95),
            f"{score.mean_return:.2f}",
        )
        for name, score in scores.items()
    ]
    header = ("policy", "success", "95% interval", "return")
    return tabulate(
        rows, header, tablefmt="plain", disable_numparse=True, colalign=("left", "right", "left", "right")
    )
