"""Minari datasets for tests, written by Minari itself, and their films as they should be read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import minari
import numpy as np
from gymnasium.spaces import Box, Discrete
from minari.data_collector.episode_buffer import EpisodeBuffer

from flam_rl.data.minari import episodes

H, W = 32, 48
RGB = Box(0, 255, (H, W, 3), np.uint8)
FORMATS = ("parquet", "hdf5", "arrow")


def film(steps: int, seed: int = 0) -> np.ndarray:
    """A bright block that moves over a ground of many colours: uint8 `(steps, H, W, 3)`."""
    ground = np.random.default_rng(seed).integers(0, 200, (H, W, 3), np.uint8)
    frames = np.repeat(ground[None], steps, 0)
    for step, frame in enumerate(frames):
        frame[8:16, 2 * step % (W - 8) : 2 * step % (W - 8) + 8] = 255, 220, 10
    return frames


FILMS = [film(5, 0), film(9, 1), film(3, 2)]


def grey(frames: np.ndarray) -> np.ndarray:
    return frames[..., 1]


def stacked(frames: np.ndarray, count: int) -> np.ndarray:
    """`(T, count, ...)`, each frame after the `count - 1` before it, as gymnasium's FrameStackObservation."""
    padded = np.concatenate([np.repeat(frames[:1], count - 1, 0), frames])
    return np.stack([padded[i : i + len(frames)] for i in range(count)], 1)


def write_dataset(
    root: Path,
    space: gym.Space,
    observations: list[Any],
    name: str = "test/film-v0",
    data_format: str = "parquet",
    jpeg: bool = False,
    actions: gym.Space = Discrete(5000),
    infos: Callable[[int], dict] = lambda steps: {},
    taken: list[np.ndarray] | None = None,
) -> Path:
    """Record a dataset below `root` by Minari's own writer; gives the folder of its data."""
    steps = [_rows(o) - 1 for o in observations]
    taken = taken or [
        list(range(n)) if isinstance(actions, Discrete) else [actions.sample() for _ in range(n)]
        for n in steps
    ]
    buffers = [
        EpisodeBuffer(
            observations=o,
            actions=list(a),
            rewards=list(np.arange(n) / 2),
            terminations=[False] * n,
            truncations=[False] * (n - 1) + [True],
            infos=infos(n + 1),
        )
        for o, a, n in zip(observations, taken, steps, strict=True)
    ]
    minari.create_dataset_from_buffers(
        name, buffers, observation_space=space, action_space=actions, data_format=data_format, jpeg_encoding=jpeg,
        algorithm_name="none", author="a", author_email="a@b.c", code_permalink="c", description="d",
    )  # fmt: skip
    return root / name / "data"


def _rows(observations: Any) -> int:
    while isinstance(observations, (dict, tuple)):
        observations = next(iter(observations.values() if isinstance(observations, dict) else observations))
    return len(observations)


def read(folder: Path, key: str | None = None) -> list[np.ndarray]:
    found = [frames for frames, _ in episodes(folder, key)]
    assert all(frames.dtype == np.uint8 and frames.shape[1:] == (H, W, 3) for frames in found)
    assert all(frames.flags.writeable and frames.flags.c_contiguous for frames in found)
    return found


def assert_films(found: list[np.ndarray], expected: list[np.ndarray], within: int = 0) -> None:
    assert [len(frames) for frames in found] == [len(frames) for frames in expected]
    for frames, frames_expected in zip(found, expected, strict=True):
        assert np.abs(frames.astype(int) - frames_expected).max(initial=0) <= within


def broken(folder: Path, **fields: Any) -> None:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))
