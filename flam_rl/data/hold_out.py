"""Which frames are trained on and which only evaluated on."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..types import Video

LONGEST = 1000
"""Frames; a longer episode goes to training and evaluation in pieces, because some of it works on a whole episode at once."""


ENOUGH = 20_000
"""Frames held out at most, however large the video: figures of more are no surer, and evaluation holds factors of all of them."""


class Piece(NamedTuple):
    """Frames `start` to `stop` of an episode."""

    episode: int
    start: int
    stop: int

    def select(self, values: np.ndarray) -> np.ndarray:
        """The same part of an array over the frames of the episode: a view."""
        return values[self.start : self.stop]


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out.

    Attributes:
        pieces: which frames each episode of `training` is.
        training_entities, held_out_entities: true entities of the same frames, where they are known.
    """

    training: Video
    held_out: Video
    pieces: tuple[Piece, ...]
    training_entities: list[dict[str, np.ndarray]] | None
    held_out_entities: list[dict[str, np.ndarray]] | None


def hold_out(video: Video, entities: list[dict[str, np.ndarray]] | None, seed: int, share: float) -> Split:
    """Whole episodes are held out, of `ENOUGH` frames at most but for the last one; where that would be most of the video, the
    last part of the longest one.

    Raises:
        ValueError: no episode is long enough to be parted.
    """
    lengths = [len(frames) for frames in video.episodes]
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    seen_before = np.cumsum([0] + [lengths[number] for number in order[:-1]])
    cut = max(1, min(round(share * len(order)), int((seen_before < ENOUGH).sum())))
    held_out = [Piece(number, 0, lengths[number]) for number in order[:cut]]
    training = [Piece(number, 0, lengths[number]) for number in order[cut:]]
    if 2 * sum(lengths[number] for number in order[:cut]) > video.frames:
        longest = max(order, key=lambda number: lengths[number])
        last = lengths[longest] - max(2, min(ENOUGH, round(share * lengths[longest])))
        if last < 2:
            raise ValueError(
                f"training needs 4 frames or more of one episode; the longest of {len(order)} has {lengths[longest]}"
            )
        held_out = [Piece(longest, last, lengths[longest])]
        training = [Piece(number, 0, last if number == longest else lengths[number]) for number in order]
    training, held_out = _short(training), _short(held_out)

    def truth(pieces: list[Piece]) -> list[dict[str, np.ndarray]] | None:
        return entities and [
            {name: piece.select(values) for name, values in entities[piece.episode].items()}
            for piece in pieces
        ]

    return Split(
        Video(tuple(piece.select(video.episodes[piece.episode]) for piece in training)),
        Video(tuple(piece.select(video.episodes[piece.episode]) for piece in held_out)),
        tuple(training),
        truth(training),
        truth(held_out),
    )


def in_pieces(video: Video) -> list[Piece]:
    """All frames of a video, in pieces of `LONGEST` at most."""
    return _short([Piece(number, 0, len(frames)) for number, frames in enumerate(video.episodes)])


def _short(pieces: list[Piece]) -> list[Piece]:
    """The same frames in pieces of `LONGEST` at most, 2 at least."""
    found = []
    for number, start, stop in pieces:
        count = -(-(stop - start) // LONGEST)
        edges = np.linspace(start, stop, count + 1).round().astype(int).tolist()
        found += [Piece(number, first, last) for first, last in itertools.pairwise(edges)]
    return found
