"""Clips: tokenized video, cut at random into pieces of a few frames."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from ...core.threads import one_core
from ...files import new_array, written_whole
from ...types import Video
from .tokenizer import Tokenizer


@dataclass(frozen=True)
class Codes:
    """Tokenized video: a 64x64 frame is 64 small integers.

    Attributes:
        frames_FN: uint8 or int16 `(frames, N)`, all episodes one after the other; may be mapped from a file.
        lengths: frames of each episode.
    """

    frames_FN: torch.Tensor
    lengths: tuple[int, ...]

    @property
    def episodes(self) -> list[torch.Tensor]:
        """The codes of each episode `(T, N)`: views."""
        return list(self.frames_FN.split(list(self.lengths)))

    def with_actions(self, actions: list[np.ndarray]) -> Codes:
        """The same with `actions`, int `(T, entities)` of each episode, -1 where there was none: the oracle's clips."""
        return Codes(with_actions(self.frames_FN, np.concatenate(actions)), self.lengths)


@one_core()
@torch.inference_mode()
def tokenize(tokenizer: Tokenizer, video: Video, cache: Path | None = None, batch: int = 512) -> Codes:
    """The codes of `video`: made once, an episode at a time.

    Args:
        cache: file to keep them in, mapped instead of held in memory: a byte or two a token.
        batch: frames encoded at once.
    """
    lengths = tuple(len(episode) for episode in video.episodes)
    shape = (sum(lengths), math.prod(tokenizer.grid))
    dtype = np.uint8 if len(tokenizer.codebook) <= 256 else np.int16
    if cache is None:
        codes = np.empty(shape, dtype)
        _encode(tokenizer, video, codes, batch)
        return Codes(torch.from_numpy(codes), lengths)
    with written_whole(cache) as scratch:
        codes = new_array(scratch, dtype, shape)
        _encode(tokenizer, video, codes, batch)
    return Codes(torch.from_numpy(codes), lengths)


def _encode(tokenizer: Tokenizer, video: Video, codes: np.ndarray, batch: int) -> None:
    """Fill `codes`, `(frames, N)`."""
    device, first = tokenizer.codebook.device, 0
    for episode in video.episodes:
        for start in range(0, len(episode), batch):
            part = tokenizer.encode(torch.as_tensor(episode[start : start + batch]).to(device))
            codes[first : first + len(part)] = part.cpu().numpy()
            first += len(part)


class Clips:
    """Random clips of codes, drawn with a generator of its own.

    An episode too short for a clip is drawn from only for shorter ones.
    """

    def __init__(self, codes: Codes, seed: int) -> None:
        self.frames_FN = codes.frames_FN
        self.lengths = np.array(codes.lengths)
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
        return self.frames_FN[drawn[:, None] + torch.arange(frames)].long()


def with_actions(z: torch.Tensor, actions: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Codes `(..., N)` followed by what the oracle is given, `(..., N + E)`.

    Args:
        actions: int `(..., E)`, what each entity did to come to a frame, -1 where that is not known.
    """
    return torch.cat([z, torch.as_tensor(actions + 1, device=z.device).to(z.dtype)], -1)
