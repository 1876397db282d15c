"""Which FLAM suits a video: the one on tiles where few patches make all of it, else the one on tracked layers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..core.registry import ModelName
from ..types import Video

SAMPLE, FRAMES = 4000, 600
"""Patches that are looked at, of so many frames at most, evenly spread."""
ALIKE = 0.025
"""Mean absolute difference, of colours in 0..1, up to which two patches are one: more than a lossy film adds to a tile, less than
between two tiles."""
RARE = 0.02
"""Share of patches that may be unlike all others: what a film damages, or what is seen once."""
MOST = 64
"""Different patches that move over a grid of tiles at most: a tokenizer has as many codes."""


class Choice(NamedTuple):
    """A model and why."""

    model: ModelName
    reason: str


def choose_model(video: Video, patch: int) -> Choice:
    """FLAM on tiles or on tracked layers, by how many different patches of `patch` pixels the frames are made of.

    The patches are those of the tokenizer's own grid, where they differ from the frame before: what moves over the grid
    continuously makes ever new ones.
    """
    height, width = video.episodes[0].shape[1:3]
    if height % patch or width % patch:
        return Choice("tracked", f"frames of {height}x{width} are no grid of {patch}x{patch} patches")
    found = different_patches(video, patch)
    if found <= MOST:
        return Choice(
            "flam",
            f"what changes is made of {found} different patches of {patch}x{patch} pixels: a grid of tiles",
        )
    return Choice(
        "tracked",
        f"what changes is made of more than {MOST} different patches of {patch}x{patch} pixels: no grid of tiles",
    )


def different_patches(video: Video, patch: int) -> int:
    """How many different patches make all but `RARE` of what changes; `MOST + 1` stands for any number above."""
    lengths = np.array([len(episode) for episode in video.episodes])
    pairs = [(i, t) for i, length in enumerate(lengths) for t in range(1, length)]
    kept = np.linspace(0, len(pairs) - 1, min(len(pairs), FRAMES)).round().astype(int)
    parts = []
    for i, t in (pairs[at] for at in np.unique(kept)):
        before, now = (_patches(video.episodes[i][at], patch) for at in (t - 1, t))
        parts.append(now[np.abs(now - before).mean(1) > ALIKE])
    changed = np.concatenate(parts) if parts else np.zeros((0, 1), np.float32)
    if not len(changed):
        return 0
    left = changed[np.linspace(0, len(changed) - 1, min(len(changed), SAMPLE)).round().astype(int)]
    allowed, count = RARE * len(left), 0
    while len(left) > allowed and count <= MOST:
        count += 1
        left = left[np.abs(left - left[0]).mean(1) > ALIKE]
    return count


def _patches(frame: np.ndarray, patch: int) -> np.ndarray:
    """The patches of a frame uint8 `(H, W, 3)`: float `(N, patch * patch * 3)` in 0..1."""
    rows, columns = frame.shape[0] // patch, frame.shape[1] // patch
    parts = frame.reshape(rows, patch, columns, patch, 3).swapaxes(1, 2)
    return parts.reshape(rows * columns, -1).astype(np.float32) / 255
