"""`flam-rl collect`: record video of a real task as a Minari dataset."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from ..data.fingerprints import fingerprints
from ..data.minari_writing import record_dataset
from ..envs.tasks.acting import check_policy
from ..envs.tasks.record import Recording
from ..progress import progress
from ..types import Episode, Json, check_ranges
from .checks import check_out
from .endings import ended
from .runs import resolved
from .tasks import fitted, make_task


@dataclass(frozen=True)
class CollectConfig:
    """Record episodes of a real task, frames lossless, as a Minari dataset.

    Examples: flam-rl collect --out data/multigrid --steps 60000
    flam-rl collect --out data/pucks --task flam_rl/Pucks-v0 --task-kwargs '{"pucks": 6, "looks": 1}'
    flam-rl collect --out data/freeway --task ALE/Freeway-v5 --height 64 --width 64
    flam-rl collect --out data/mine --task mymodule:My-v0 --policy runs/ppo.zip

    An interrupted recording goes on with the next episode when the same command is given again.
    """

    out: Path
    """Folder of the new dataset; must not exist or be empty."""
    task: str = "flam_rl/MultiGrid-v0"
    """Gymnasium id of any task whose observations are uint8 frames or that renders rgb. A module to import first may stand before it, with a colon."""
    task_kwargs: str = "{}"
    """The task's arguments, as a JSON object."""
    height: int | None = None
    """Pixels of the recorded frames; by default those of the task. Where its aspect is another, bars are added."""
    width: int | None = None
    """As --height; both or none."""
    steps: int = 60_000
    """Transitions to record, in whole episodes; one that has as many by itself is cut there."""
    policy: str | None = None
    """Of what the caller controls: random is uniform over actions; mixed draws one of the task's behaviours an episode; goal, or another's name, is that one; expert is the task's own; PATH.zip is a policy that Stable-Baselines3 saved, which acts on the task's own observations. Such a zip may run code: name only one that you trust. By default mixed where the task has behaviours, else random."""
    seed: int = 0

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number is out of its range, or only one of height and width is given.
        """
        check_ranges(self, steps=(1, 10**12), seed=(0, 2**63))
        if (self.height is None) != (self.width is None):
            raise ValueError(f"--height is {self.height} and --width {self.width}; give both or none")
        if self.height is not None:
            check_ranges(self, height=(8, 4096), width=(8, 4096))


def collect(config: CollectConfig) -> None:
    """Run the command.

    Raises:
        ValueError: the task's arguments are no JSON object, or not what the task takes; or it has no such policy; or an interrupted
            recording has other settings.
    """
    check_out(config.out)
    task = make_task(config.task, parse_kwargs(config.task_kwargs))
    if config.height and config.width:
        task = fitted(task, (config.height, config.width, 3))
    check_policy(task, config.policy)
    recording = Recording(task, config.steps, config.seed, config.policy)
    settings = {name: value for name, value in resolved(config).items() if name != "out"}
    if config.policy and config.policy.endswith(".zip"):
        settings["policy"] = fingerprints([Path(config.policy)], Path(config.policy).parent)
    dataset = record_dataset(config.out, task, recording, settings)
    ended(
        f"{config.out}: {dataset.total_episodes} episodes, {dataset.total_steps} transitions",
        *("flam-rl", "train", "--data", config.out, "--out", "runs/mine"),
    )


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
