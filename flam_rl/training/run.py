"""What every training loop shares: device, seeds, a progress bar and TensorBoard."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from ..progress import EVERY, progress

DeviceName = Literal["auto", "cpu", "cuda"]


def pick_device(name: DeviceName) -> torch.device:
    """`auto` is CUDA when there is one.

    Raises:
        ValueError: CUDA was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is 'cuda', but torch sees none; allowed here are 'cpu' and 'auto'")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def seed_everything(seed: int, deterministic: bool = False) -> None:
    """Seed the global generators that third-party code draws from.

    Args:
        deterministic: let torch use only algorithms whose result does not depend on how threads interleave:
            slower on CUDA; on CPU training is deterministic as it is.
    """
    if deterministic:
        torch.use_deterministic_algorithms(True)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when cuBLAS is first used
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002
    torch.manual_seed(seed)


class Log:
    """TensorBoard in `folder` (nothing is written without one) and progress with losses, speed and time left.

    Args:
        every: seconds between lines of progress where there is no terminal.
    """

    def __init__(self, folder: Path | None, every: float = EVERY) -> None:
        self.every = every
        self.writer = SummaryWriter(str(folder)) if folder else None

    def steps(
        self, name: str, total: int, frames_per_step: int, start: int = 0
    ) -> Iterator[tuple[int, tqdm]]:
        """Step numbers with the bar to describe them on; logs frames/s at the end."""
        bar = progress(
            range(start, total), every=self.every, desc=name, initial=start, total=total, unit="step"
        )
        began = time.perf_counter()
        for step in bar:
            yield step, bar
        seconds = max(time.perf_counter() - began, 1e-9)
        self.scalar(f"{name}/frames_per_second", (total - start) * frames_per_step / seconds, total)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a number at a step, for TensorBoard."""
        if self.writer:
            self.writer.add_scalar(tag, value, step)

    def metrics(self, prefix: str, metrics: dict[str, torch.Tensor], step: int) -> None:
        """Scalars as they are, vectors an entry each."""
        for key, value in metrics.items():
            if value.ndim == 0:
                self.scalar(f"{prefix}/{key}", float(value), step)
            else:
                for index, entry in enumerate(value.tolist()):
                    self.scalar(f"{prefix}/{key}_{index}", entry, step)

    def picture(self, tag: str, image: np.ndarray, step: int) -> None:
        """uint8 `(H, W, 3)`."""
        if self.writer:
            self.writer.add_image(tag, image, step, dataformats="HWC")

    def close(self) -> None:
        """Write what is pending."""
        if self.writer:
            self.writer.close()

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
