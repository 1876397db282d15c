"""How well factors follow entities without training, on Pucks of four kinds, each harder than the one before.

    python scripts/measure_tracking.py --out docs/results/tracking --episodes 4

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
from flam_rl.models.tracked import Tracks, track
from flam_rl.progress import progress
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
    episodes: int = 4
    """Of each kind, of 64 frames."""
    seed: int = 100
    """Of the first episode."""


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
    truths, found, off, touching, errors, context, seconds = [], [], [], [], [], [], 0.0
    each = []
    for seed in progress(seeds, desc=name, unit="episode"):
        film, truth = record(seed, options)
        began = time.process_time()
        tracks = track(film)
        seconds += time.process_time() - began
        entities = tracks.entities(*film.shape[1:3])
        far, contact = distances(truth, entities)
        off.append(far)
        touching.append(contact)
        drawn, behind = squared_errors(film, tracks)
        errors.append(drawn)
        context.append(behind)
        truths.append(truth)
        found.append(entities)
        figures = evaluate_tracking([truth], [entities])
        assert figures is not None
        each.append({"seed": seed} | {key: figures[key] for key in ("hota", "idf1", "f1", "switches")})
    pooled = evaluate_tracking(truths, found)
    assert pooled is not None
    far, contact = np.concatenate(off), np.concatenate(touching)
    return pooled | {
        "pixels_off": median(far[~contact]),
        "pixels_off_in_contact": median(far[contact]),
        "psnr_of_mean_error": decibel(np.concatenate(errors)),
        "psnr_of_context_alone": decibel(np.concatenate(context)),
        "ms_a_frame": 1000 * seconds / (FRAMES * len(seeds)),
        "episodes": each,
    }


def record(seed: int, options: dict[str, Any]) -> tuple[np.ndarray, Entities]:
    """An episode of `FRAMES` frames, the first from `1000 * seed` on that lasts as long, and its truth."""
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
            truth = true_entities(Truth.stack(steps), (task.height, task.width))
            assert truth is not None
            return np.stack(film), truth
        start += 1


def distances(truth: Entities, found: Entities) -> tuple[np.ndarray, np.ndarray]:
    """Pixels between the centres of the boxes of all that are matched, and which of these are in contact."""
    matched = match_frames(truth, found)
    frame, entity = np.nonzero(matched >= 0)
    apart = truth.box[frame, entity] - found.box[frame, matched[frame, entity]]
    return np.linalg.norm(apart[:, :2] + apart[:, 2:], axis=1) / 2, in_contact(truth)[frame, entity]


def squared_errors(film: np.ndarray, tracks: Tracks) -> tuple[np.ndarray, np.ndarray]:
    """Of each frame, of what factors and context draw, and of the context alone."""
    colors = torch.as_tensor(film).movedim(-1, 1) / 255
    pictures = tracks.draw()[0], tracks.context.expand(len(film), -1, -1, -1)
    drawn, alone = ((picture - colors).square().mean((1, 2, 3)).numpy() for picture in pictures)
    return drawn, alone


def decibel(errors: np.ndarray) -> float:
    return float(-10 * np.log10(errors.mean()))


def median(values: np.ndarray) -> float | None:
    return float(np.median(values)) if len(values) else None


if __name__ == "__main__":
    main(tyro.cli(TrackingConfig, description=__doc__))
