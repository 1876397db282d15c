"""Clips: tokenized video, cut at random into pieces of a few frames."""

from __future__ import annotations

import numpy as np
import torch

from ..models.tokenizer import Tokenizer
from ..types import Video


@torch.inference_mode()
def tokenize(tokenizer: Tokenizer, video: Video, batch: int = 512) -> list[torch.Tensor]:
    """Codes int64 `(T, N)` of each episode: done once, a 64x64 frame is then 64 small integers."""
    device = tokenizer.codebook.device
    return [
        torch.cat(
            [tokenizer.encode(torch.as_tensor(part).to(device)).cpu() for part in _parts(episode, batch)]
        )
        for episode in video.episodes
    ]


def _parts(episode: np.ndarray, batch: int) -> list[np.ndarray]:
    return [episode[start : start + batch] for start in range(0, len(episode), batch)]


class Clips:
    """Random clips of codes, drawn with a generator of its own.

    Args:
        episodes: int64 `(T, N)` each; an episode too short for a clip is drawn from only for shorter ones.
    """

    def __init__(self, episodes: list[torch.Tensor], seed: int) -> None:
        self.codes = torch.cat(episodes)
        self.lengths = np.array([len(episode) for episode in episodes])
        self.first = np.cumsum(np.concatenate([[0], self.lengths[:-1]]))
        self.generator = torch.Generator().manual_seed(seed)
        self._starts: dict[int, torch.Tensor] = {}

    @property
    def longest(self) -> int:
        """Frames of the longest episode."""
        return int(self.lengths.max())

    def sample(self, batch: int, frames: int) -> torch.Tensor:
        """Codes int64 `(batch, frames, N)`, each clip equally likely.

        Raises:
            ValueError: no episode has that many frames.
        """
        if frames not in self._starts:
            spans = [
                np.arange(start, start + length - frames + 1)
                for start, length in zip(self.first, self.lengths, strict=True)
            ]
            found = np.concatenate(spans)
            if not len(found):
                raise ValueError(
                    f"clips of {frames} frames asked for; the longest episode has {self.longest}"
                )
            self._starts[frames] = torch.as_tensor(found)
        starts = self._starts[frames]
        drawn = starts[torch.randint(len(starts), (batch,), generator=self.generator)]
        return self.codes[drawn[:, None] + torch.arange(frames)]
