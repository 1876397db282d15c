"""`flam-rl agent`: train an agent in a world and score it on the world's real task."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path

import gymnasium as gym

from ..agents.imagination import ImaginationConfig, train_in_imagination
from ..checkpoint import load_world
from ..envs.decoded_env import DecodedVectorEnv
from ..evaluation.policies import score_policy, several
from ..results import write_results


@dataclass(frozen=True)
class AgentConfig:
    """Train PPO inside a world that has labels, and score it on the world's real task.

    Example: flam-rl agent --world runs/multigrid --out runs/agent
    """

    out: Path
    """Folder for policy.zip (Stable-Baselines3), results.json and TensorBoard logs."""
    world: str = "multigrid"
    """Name of a shipped world, or a folder."""
    episodes: int = 100
    """Episodes on the real task."""
    seed: int = 0
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)


def agent(config: AgentConfig) -> None:
    """Run the command."""
    world = load_world(config.world)
    model, history = train_in_imagination(world, config.imagination, config.seed, config.out / "logs")
    config.out.mkdir(parents=True, exist_ok=True)
    model.save(config.out / "policy.zip")
    results = {"seed": config.seed, "imagination": [asdict(found) for found in history], "task": None}
    if world.info.task:
        tasks = DecodedVectorEnv(several(gym.make(world.info.task, **world.info.task_kwargs)), world)
        score = score_policy(
            tasks,
            lambda seen: model.predict(seen, deterministic=True)[0],
            config.episodes,
            config.seed,
            "real task",
        )
        results["task"] = asdict(score)
        print(
            f"success on the real task {score.success_rate:.2f}, 95% interval {score.ci95[0]:.2f} to {score.ci95[1]:.2f}"
        )
    print(f"wrote {write_results(config.out, results)}")
