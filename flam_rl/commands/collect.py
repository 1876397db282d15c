"""`flam-rl collect`: record video of a real task as a Minari dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..data.minari import write_dataset
from ..envs.tasks.record import PolicyName, record_episodes
from ..progress import progress
from ..types import Episode, Json, check_ranges
from .checks import check_out
from .tasks import make_task


@dataclass(frozen=True)
class CollectConfig:
    """Record episodes of a real task, frames lossless, as a Minari dataset.

    Examples: flam-rl collect --out data/multigrid --steps 60000
    flam-rl collect --out data/pucks --task flam_rl/Pucks-v0 --task-kwargs '{"pucks": 6, "looks": 1}'
    """

    out: Path
    """Folder of the new dataset; must not exist or be empty."""
    task: str = "flam_rl/MultiGrid-v0"
    """Gymnasium id."""
    task_kwargs: str = "{}"
    """The task's arguments, as a JSON object."""
    steps: int = 60_000
    """Transitions to record, in whole episodes."""
    policy: PolicyName = "mixed"
    """Of the caller's agent: mixed draws a behaviour an episode, goal seeks the goal, random is uniform, expert is the task's own."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, steps=(1, 10**12), seed=(0, 2**63))


def collect(config: CollectConfig) -> None:
    """Run the command.

    Raises:
        ValueError: the task's arguments are no JSON object, or not what the task takes.
    """
    check_out(config.out)
    task = make_task(config.task, parse_kwargs(config.task_kwargs))
    episodes = with_bar(record_episodes(task, config.steps, config.seed, config.policy), config.steps)
    dataset = write_dataset(config.out, task, episodes)
    print(f"{config.out}: {dataset.total_episodes} episodes, {dataset.total_steps} transitions")


def parse_kwargs(kwargs: str) -> Json:
    """A task's arguments from the command line.

    Raises:
        ValueError: `kwargs` is no JSON object.
    """
    try:
        arguments = json.loads(kwargs)
    except ValueError as error:
        raise ValueError(f"--task-kwargs is {kwargs!r}, which is not JSON ({error})") from error
    if not isinstance(arguments, dict):
        raise ValueError(f"--task-kwargs is {kwargs!r}; allowed is a JSON object, as '{{\"pucks\": 6}}'")
    return arguments


def with_bar(episodes: Iterator[Episode], steps: int, name: str = "recording") -> Iterator[Episode]:
    """The same episodes, with a progress bar over transitions."""
    with progress(total=steps, desc=name, unit="step") as bar:
        for episode in episodes:
            bar.update(len(episode.actions))
            yield episode
