"""Training that is interrupted in the middle of a loop."""

from __future__ import annotations

from collections.abc import Iterator

from tqdm import tqdm

from flam_rl.training.run import Log


class Interrupted(Exception):
    """As if the process ended."""


class Interrupting(Log):
    """A log that interrupts the loop `name` before step `at`, and remembers which steps there were."""

    def __init__(self, name: str = "", at: int = -1) -> None:
        super().__init__(None)
        self.name, self.at = name, at
        self.done: list[tuple[str, int]] = []

    def steps(
        self, name: str, total: int, frames_per_step: int, start: int = 0
    ) -> Iterator[tuple[int, tqdm]]:
        for step, bar in super().steps(name, total, frames_per_step, start):
            if (name, step) == (self.name, self.at):
                raise Interrupted
            self.done.append((name, step))
            yield step, bar
