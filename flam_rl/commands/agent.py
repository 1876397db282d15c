"""`flam-rl agent`: train an agent in a world, or plan in it, and score it on the world's real task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..agents.planning import Planner, PlanningConfig
from ..agents.ppo import ImaginationConfig, save_policy, train_in_imagination
from ..core.checkpoint import load_world
from ..core.sources import WORLD_FILES, world_source
from ..data.fingerprints import fingerprints
from ..envs.decoded_env import DecodedVectorEnv
from ..envs.spaces import controlled_factors
from ..evaluation.policies import PolicyScore, acting, score_policy, several
from ..results import write_results
from ..types import check_ranges
from .checks import check_out
from .endings import ended
from .runs import Run, resolved
from .tasks import find_task, fitted

POLICY = "policy.zip"
"""What PPO makes."""
MADE_FROM = tuple(name for name in WORLD_FILES if name != "README.md")
"""Files of a world that an agent depends on."""


@dataclass(frozen=True)
class AgentConfig:
    """Train PPO inside a world that has labels, or plan each action in it (CEM, MPPI), and score that on the world's real task.

    Example: flam-rl agent --world runs/multigrid --out runs/agent

    Example: flam-rl agent --algo cem --planning.rollouts 256 --out runs/cem

    An interrupted run goes on where it was when the same command is given again; a finished one is kept.
    """

    out: Path
    """Folder for results.json; of PPO also for policy.zip (Stable-Baselines3) and TensorBoard logs."""
    algo: Literal["ppo", "cem", "mppi"] = "ppo"
    """PPO learns a policy in imagination; CEM and MPPI learn none, and imagine what follows before each action."""
    world: str = "multigrid"
    """A shipped world's name, a folder, a zip, or hf://user/name, also with @revision."""
    episodes: int = 100
    """Episodes on the real task."""
    task: str | None = None
    """Gymnasium id of the real task; for a world whose own is not one of flam_rl's."""
    seed: int = 0
    overwrite: bool = False
    """Start anew where OUT holds another run, or this one finished."""
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    """Of PPO."""
    planning: PlanningConfig = field(default_factory=PlanningConfig)
    """Of CEM and MPPI."""

    def __post_init__(self) -> None:
        check_ranges(self, episodes=(1, 10**9), seed=(0, 2**31))


def agent(config: AgentConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such world or task, the world has no labels or nothing to plan with, or `out` cannot be written.
    """
    check_out(config.out)
    world = load_world(config.world)
    planned = config.algo != "ppo"
    task = find_task(
        world.info.task, world.info.task_kwargs, config.task, f"the world {config.world}", planned
    )
    decoded = None
    if task is not None:
        task = fitted(task, (*world.frame_size, 3), world.info.fit)
        decoded = DecodedVectorEnv(several(task), world)
    controlled_factors(world, "agent")
    assert world.source is not None
    with world_source(world.source) as source:
        files = [source.folder / name for name in MADE_FROM]
        prints = fingerprints([path for path in files if path.exists()], source.folder)
    product = "results.json" if planned else POLICY
    run = Run(config.out, resolved(config), prints, product, overwrite=config.overwrite)
    if run.state() == "finished":
        print(f"{config.out} holds this run, finished; --overwrite starts it anew")
        return
    results: dict[str, Any] = {"seed": config.seed, "algo": config.algo, "task": None}
    with run.locked():
        run.begin()
        if config.algo != "ppo":
            act = acting(Planner(world, config.algo, config.planning, seed=config.seed))
            results["planning"] = asdict(config.planning)
        else:
            model, history = train_in_imagination(
                world, config.imagination, config.seed, config.out / "logs", run.unfinished
            )
            save_policy(model, config.out / POLICY)
            results["imagination"] = [asdict(found) for found in history]
            act = acting(model)
        if decoded is not None:
            score, floor = _scores(act, decoded, config)
            results["task"] = asdict(score) | {"floors": {"random_actions": asdict(floor)}}
            print(f"real task: {said(score)}\nfloor, random actions: {said(floor)}")
        path = write_results(config.out, results, config.seed)
        run.finish()
    wrote = f"{path}" if planned else f"{path} and {config.out / POLICY}"
    ended(wrote, "flam-rl", "play", "--world", config.world)


def _scores(
    act: Callable[[np.ndarray], np.ndarray], decoded: DecodedVectorEnv, config: AgentConfig
) -> tuple[PolicyScore, PolicyScore]:
    """On the real task: the agent's, and that of random actions."""
    score = score_policy(decoded, act, config.episodes, config.seed, "real task")
    tasks = decoded.env
    tasks.action_space.seed(config.seed)
    floor = score_policy(
        tasks, lambda seen: tasks.action_space.sample(), config.episodes, config.seed, "random actions"
    )
    return score, floor


def said(score: PolicyScore) -> str:
    """A score in words."""
    parts = [
        (name, value, interval)
        for name, value, interval in (
            ("success", score.success_rate, score.ci95),
            ("return", score.mean_return, score.return_ci95),
        )
        if value is not None
    ]
    return ", ".join(
        f"{name} {value:.2f}" + (f" ({interval[0]:.2f} to {interval[1]:.2f})" if interval else "")
        for name, value, interval in parts
    )
