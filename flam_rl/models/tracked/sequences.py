"""Factors of all episodes of a video, on disk, and clips drawn from them."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Sequences:
    """Factors float `(T, K, S)` of episodes one after the other, in a mapped file that is deleted with the object.

    Args:
        folder: the file's folder; by default the system's folder for temporary files.

    Raises:
        OSError: the disk is full.
        ValueError: there is no episode.
    """

    def __init__(self, episodes: Iterable[Float[Tensor, "_ K S"]], folder: Path | None = None) -> None:
        lengths: list[int] = []
        shape: tuple[int, ...] = ()
        with tempfile.TemporaryFile(dir=folder) as file:
            for factors in episodes:
                lengths.append(len(factors))
                shape = tuple(factors.shape[1:])
                file.write(factors.contiguous().numpy().data)
            if not lengths:
                raise ValueError("there is no episode of factors; give one or more")
            file.flush()
            mapped = np.memmap(file, np.float32, "r+", shape=(sum(lengths), *shape))
        self.lengths = torch.tensor(lengths)
        self.first = self.lengths.cumsum(0) - self.lengths
        self._flat_NKS = torch.from_numpy(mapped)

    def sample(self, batch: int, frames: int, generator: torch.Generator) -> Float[Tensor, "B T K S"]:
        """Clips of `length` frames (or of the longest episode, if that is shorter), drawn uniformly from all places
        in the video."""
        frames = min(frames, int(self.lengths.max()))
        room = (self.lengths - frames + 1).clamp_min(0)
        drawn = torch.randint(int(room.sum()), (batch,), generator=generator)
        ends = room.cumsum(0)
        episode = torch.searchsorted(ends, drawn, right=True)
        start = self.first[episode] + drawn - (ends - room)[episode]
        return self._flat_NKS[start[:, None] + torch.arange(frames)]

    def pairs(self, most: int) -> tuple[Float[Tensor, "N K S"], Float[Tensor, "N K S"]]:
        """Frames with a next frame in their episode, and these next frames: all, or `most` evenly spread."""
        last = torch.zeros(len(self._flat_NKS), dtype=torch.bool)
        last[self.first + self.lengths - 1] = True
        at = (~last).nonzero()[:, 0]
        if len(at) > most:
            at = at[torch.arange(most) * len(at) // most]
        return self._flat_NKS[at], self._flat_NKS[at + 1]
