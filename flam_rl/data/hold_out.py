"""Which frames are trained on and which only evaluated on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..types import Video


@dataclass(frozen=True)
class Split:
    """What is trained on and what is held out.

    Attributes:
        numbers: which episode each of `training` is of.
    """

    training: Video
    held_out: Video
    numbers: tuple[int, ...]
    training_entities: list[dict[str, np.ndarray]] | None
    held_out_entities: list[dict[str, np.ndarray]] | None


def hold_out(video: Video, entities: list[dict[str, np.ndarray]] | None, seed: int, share: float) -> Split:
    """Whole episodes are held out; where that would be most of the video, the last part of the longest one.

    Raises:
        ValueError: no episode is long enough to be parted.
    """
    lengths = [len(frames) for frames in video.episodes]
    order = np.random.default_rng(seed).permutation(len(lengths)).tolist()
    cut = max(1, round(share * len(order)))
    held_out = [(number, slice(None)) for number in order[:cut]]
    training = [(number, slice(None)) for number in order[cut:]]
    if 2 * sum(lengths[number] for number, _ in held_out) > video.frames:
        longest = max(order, key=lambda number: lengths[number])
        last = lengths[longest] - max(2, round(share * lengths[longest]))
        if last < 2:
            raise ValueError(
                f"training needs 4 frames or more of one episode; the longest of {len(order)} has {lengths[longest]}"
            )
        held_out = [(longest, slice(last, None))]
        training = [(number, slice(last if number == longest else None)) for number in order]

    def truth(pieces: list[tuple[int, slice]]) -> list[dict[str, np.ndarray]] | None:
        return entities and [
            {name: values[part] for name, values in entities[number].items()} for number, part in pieces
        ]

    return Split(
        Video(tuple(video.episodes[number][part] for number, part in training)),
        Video(tuple(video.episodes[number][part] for number, part in held_out)),
        tuple(number for number, _ in training),
        truth(training),
        truth(held_out),
    )
