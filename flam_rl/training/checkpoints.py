"""Where a loop of training is, kept in a file: it goes on from there as if it had not been interrupted."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from ..core.weights import check_finite, fill
from ..files import written_whole


class Stateful(Protocol):
    """Anything else whose state is made of tensors, numbers and text."""

    def state_dict(self) -> dict[str, Any]:
        """All that it goes on from."""

    def load_state_dict(self, state: dict[str, Any]) -> Any:
        """
        Raises:
            ValueError: the state is of another.
        """


Part = nn.Module | torch.optim.Optimizer | LRScheduler | torch.Generator | Stateful
"""What changes from step to step. A schedule comes after its optimizer."""


SECONDS = "seconds.txt"
MOVES = ("last_epoch", "_step_count", "_last_lr")
"""What changes in a schedule from step to step."""


def seconds_spent(folder: Path | None) -> float:
    """What a run whose loops keep their states in `folder` took until the last of these was kept."""
    path = folder and folder / SECONDS
    return float(path.read_text()) if path and path.exists() else 0.0


class Checkpoints:
    """Where the loops of a run keep their states.

    Args:
        folder: a file a loop; None keeps nothing.
        every: steps after which an interrupted loop can go on.
    """

    def __init__(self, folder: Path | None = None, every: int = 250) -> None:
        self.folder, self.every = folder, every
        self._began = time.perf_counter() - seconds_spent(folder)

    def for_loop(self, name: str, steps: int, **parts: Part) -> Checkpoint:
        """That of the loop `name` over so many steps."""
        path = self.folder and self.folder / f"{name}.pt"
        return Checkpoint(path, self.every, steps, parts, self._began)


@dataclass(frozen=True)
class Checkpoint:
    """The state of one loop, with that of torch's own generators."""

    path: Path | None
    every: int
    steps: int
    parts: dict[str, Part]
    began: float

    def resume(self) -> int:
        """The step to go on with, all parts as they were before it; 0 where nothing is kept.

        Raises:
            ValueError: the file is damaged or of another run.
        """
        if self.path is None or not self.path.exists():
            return 0
        try:
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            step = state["step"]
            if type(step) is not int or not 0 < step <= self.steps:
                raise ValueError(f"step is {step!r}; allowed is 1 to {self.steps}")
            for name, part in self.parts.items():
                _put(part, state[name])
                if isinstance(part, LRScheduler) and part.last_epoch != step:
                    raise ValueError(f"a schedule is at step {part.last_epoch!r}; allowed is {step}")
            torch.set_rng_state(state["random"])
            torch.cuda.set_rng_state_all(state["random_cuda"])
        except (
            Exception
        ) as error:  # of bytes that are no checkpoint, torch says anything from EOFError to TypeError
            reason = (str(error) or type(error).__name__).splitlines()[0]
            raise ValueError(
                f"{self.path}: damaged, or of another run ({reason}); delete it to start anew"
            ) from error
        return step

    def after(self, step: int) -> None:
        """Keep the state after `step`, if it is time or the last one."""
        done = step + 1
        if done % self.every == 0 or done == self.steps:
            self.save(done)

    def save(self, done: int) -> None:
        """Keep the state after so many steps, 1 or more."""
        if self.path is None:
            return
        state = {
            "step": done,
            **{name: _taken(part) for name, part in self.parts.items()},
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all(),
        }
        buffer = (
            io.BytesIO()
        )  # written by torch itself, a full disk would be a RuntimeError that does not say so
        torch.save(state, buffer)
        with written_whole(self.path) as scratch:
            scratch.write_bytes(buffer.getbuffer())
        with written_whole(self.path.with_name(SECONDS)) as scratch:
            scratch.write_text(str(time.perf_counter() - self.began))


def _taken(part: Part) -> Any:
    return part.get_state() if isinstance(part, torch.Generator) else part.state_dict()


def _put(part: Part, state: Any) -> None:
    """Make `state` that of `part`.

    Raises:
        ValueError: it does not fit; or what torch raises.
    """
    match part:
        case torch.Generator():
            part.set_state(state)
        case nn.Module():
            fill(part, state)
        case torch.optim.Optimizer():
            part.load_state_dict(state)
            for parameter, moments in part.state.items():
                for name, tensor in moments.items():
                    check_finite(name, tensor)
                    if tensor.ndim and tensor.shape != parameter.shape:
                        raise ValueError(
                            f"tensor {name!r} has shape {tuple(tensor.shape)}; allowed is {tuple(parameter.shape)}"
                        )
        case LRScheduler():
            own = part.state_dict()
            for name in own.keys() | state.keys():
                if name not in MOVES and state.get(name) != own.get(name):
                    raise ValueError(
                        f"{name} of a schedule is {state.get(name)!r}; allowed is {own.get(name)!r}"
                    )
            part.load_state_dict(state)
        case _:
            part.load_state_dict(state)
