"""How well factors follow entities without training, on Pucks of four kinds, each harder than the one before.

    python scripts/measure_tracking.py --out docs/results/tracking --episodes 8

Episodes are of seeds from 100 on, which nothing was tuned on. Truth is the task's own; a box of an entity is clipped to the
frame. One processor core.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
import tyro

import flam_rl  # noqa: F401  # registers the tasks
from flam_rl.evaluation.matching import in_contact, match_frames
from flam_rl.evaluation.tracking import evaluate_tracking
from flam_rl.evaluation.truth import true_entities
from flam_rl.models.tracked import Tracks, track_all
from flam_rl.results import write_results
from flam_rl.types import Entities, Json, Truth

RUNGS: dict[str, dict[str, Any]] = {
    "four looks": {"pucks": 4},
    "eight alike": {"pucks": 8, "looks": 1, "background": "new_texture"},
    "come and go": {"pucks": 8, "background": "new_texture", "visits": True},
    "moving camera": {"pucks": 6, "background": "new_texture", "camera": "moving", "visits": True},
}
FRAMES = 64


@dataclass(frozen=True)
class TrackingConfig:
    """Follow entities and write OUT/results.json."""

    out: Path
    episodes: int = 8
    """Episodes of each kind, of 64 frames."""
    seed: int = 100
    """Seed of the first episode."""


def main(config: TrackingConfig) -> None:
    """Run the script."""
    torch.set_num_threads(1)
    results = {}
    for name, options in RUNGS.items():
        seeds = range(config.seed, config.seed + config.episodes)
        results[name] = measure(options, seeds, name)
        print(name, {key: results[name][key] for key in ("hota", "idf1", "f1", "switches")}, flush=True)
    results_of = {"frames": FRAMES, "kinds": {name: RUNGS[name] | results[name] for name in RUNGS}}
    write_results(config.out, results_of, list(range(config.seed, config.seed + config.episodes)))


def measure(options: dict[str, Any], seeds: range, name: str) -> Json:
    """Figures of tracking pooled over the episodes, of what factors draw, and milliseconds a frame."""
    films, truths, cameras = zip(*(record(seed, options) for seed in seeds), strict=True)
    began = time.process_time()
    tracks = track_all(films, described=name)
    seconds = time.process_time() - began
    found, each = [], []
    off, touching, drawn, behind, camera = (list[np.ndarray]() for _ in range(5))
    for seed, film, truth, ground, own in zip(seeds, films, truths, cameras, tracks, strict=True):
        entities = own.entities(*film.shape[1:3])
        found.append(entities)
        for parts, more in zip((off, touching), distances(truth, entities), strict=True):
            parts.append(more)
        for parts, more in zip((drawn, behind), squared_errors(film, own), strict=True):
            parts.append(more)
        camera.append(np.linalg.norm(own.camera.numpy() - (ground[0] - ground), axis=1))
        figures = evaluate_tracking([truth], [entities])
        assert figures is not None
        each.append({"seed": seed} | {key: figures[key] for key in ("hota", "idf1", "f1", "switches")})
    pooled = evaluate_tracking(truths, found)
    assert pooled is not None
    far, contact = np.concatenate(off), np.concatenate(touching)
    return pooled | {
        "pixels_off": median(far[~contact]),
        "pixels_off_in_contact": median(far[contact]),
        "camera_pixels_off": float(np.concatenate(camera).mean()),
        "psnr_of_mean_error": decibel(np.concatenate(drawn)),
        "psnr_of_context_alone": decibel(np.concatenate(behind)),
        "ms_a_frame": 1000 * seconds / (FRAMES * len(seeds)),
        "episodes": each,
    }


def record(seed: int, options: dict[str, Any]) -> tuple[np.ndarray, Entities, np.ndarray]:
    """An episode of `FRAMES` frames, the first from `1000 * seed` on that lasts as long, its truth, and the view's corner."""
    task: Any = gym.make("flam_rl/Pucks-v0", goal="flee", **options).unwrapped
    start = 1000 * seed
    while True:
        frame, info = task.reset(seed=start)
        act = task.make_behavior("patrol", np.random.default_rng(seed))
        film, steps, over = [frame], [info["truth"]], False
        while len(film) < FRAMES and not over:
            frame, _, terminated, truncated, info = task.step(act())
            over = terminated or truncated
            film.append(frame)
            steps.append(info["truth"])
        if len(film) == FRAMES:
            steps_of = Truth.stack(steps)
            truth = true_entities(steps_of, (task.height, task.width))
            assert truth is not None
            assert steps_of.camera is not None
            return np.stack(film), truth, steps_of.camera
        start += 1


def distances(truth: Entities, found: Entities) -> tuple[np.ndarray, np.ndarray]:
    """Pixels between the centres of the boxes of all that are matched, and which of these are in contact."""
    matched = match_frames(truth, found)
    frame, entity = np.nonzero(matched >= 0)
    apart = truth.box[frame, entity] - found.box[frame, matched[frame, entity]]
    return np.linalg.norm(apart[:, :2] + apart[:, 2:], axis=1) / 2, in_contact(truth)[frame, entity]


def squared_errors(film: np.ndarray, tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Mean squared error of each frame `(T,)`: of what factors and context draw, and of the context alone."""
    colors = torch.as_tensor(film).movedim(-1, 1) / 255
    pictures = tracks.draw()[0], tracks.context.expand(len(film), -1, -1, -1)
    drawn, alone = ((picture - colors).square().mean((1, 2, 3)).numpy() for picture in pictures)
    return drawn, alone


def decibel(errors: np.ndarray) -> float:
    """PSNR in dB of the mean of squared errors of colours in 0..1."""
    return float(-10 * np.log10(errors.mean()))


def median(values: np.ndarray) -> float | None:
    """The median, or None where there are no values."""
    return float(np.median(values)) if len(values) else None


if __name__ == "__main__":
    main(tyro.cli(TrackingConfig, description=__doc__))
