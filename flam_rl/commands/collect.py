"""`flam-rl collect`: record video of a real task as a Minari dataset."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym

from ..data.minari import write_dataset
from ..envs.tasks.record import PolicyName, record_episodes
from ..progress import progress
from ..types import Episode


@dataclass(frozen=True)
class CollectConfig:
    """Record episodes of a real task, frames lossless, as a Minari dataset.

    Example: flam-rl collect --out data/multigrid --steps 60000
    """

    out: Path
    """Folder of the new dataset; must not exist or be empty."""
    task: str = "flam_rl/MultiGrid-v0"
    """Gymnasium id."""
    agents: int = 4
    """Entities in the task, the caller's included."""
    steps: int = 60_000
    """Transitions to record, in whole episodes."""
    policy: PolicyName = "mixed"
    """Of the caller's agent: mixed draws a behaviour an episode, goal seeks the goal, random is uniform, expert is the shortest path."""
    seed: int = 0


def collect(config: CollectConfig) -> None:
    """Run the command."""
    task = gym.make(config.task, agents=config.agents)
    episodes = with_bar(record_episodes(task, config.steps, config.seed, config.policy), config.steps)
    dataset = write_dataset(config.out, task, episodes)
    print(f"{config.out}: {dataset.total_episodes} episodes, {dataset.total_steps} transitions")


def with_bar(episodes: Iterator[Episode], steps: int, name: str = "recording") -> Iterator[Episode]:
    """The same episodes, with a progress bar over transitions."""
    with progress(total=steps, desc=name, unit="step") as bar:
        for episode in episodes:
            bar.update(len(episode.actions))
            yield episode
