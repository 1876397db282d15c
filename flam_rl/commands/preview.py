"""`flam-rl train --preview`: tracking alone, within a minute, before anything is trained."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.reading import Reading, ReadingConfig, read
from ..evaluation.report import CLIP, CLIPS, report_lines, write_report
from ..models.tracked import TrackerConfig, Tracks, clip_view, patch_for, shared_context, track
from ..models.tracked.build import TRACKING, check_frames
from ..progress import progress
from ..results import write_results
from ..types import Json
from .checks import check_out
from .endings import ended

SECONDS, FEWEST = 40.0, 3
"""No further clip is tracked after so many seconds, nor its background found after half of them, but for so many clips."""
FPS = 15.0
"""Frames a second that are taken for granted where no film says."""


def preview(data: Path, out: Path, files: ReadingConfig, factors: int | None, seed: int) -> Json:
    """Track a part of the film and write `out/film.gif` (boxes and trails, what factors draw, masks) and `out/results.json`.

    Args:
        factors: at most; by default as many as tracking takes up to 32.

    Raises:
        ValueError: frames too small, more factors than memory holds, or `out` cannot be written.
        FileNotFoundError: there is no video.
    """
    began = time.perf_counter()
    check_out(out)
    reading = read(data, files, but=out)
    video = reading.video
    fps = frame_rate(reading, files)
    check_frames(video.episodes[0].shape[1:3], factors or TrackerConfig().factors, TRACKING)
    config = TrackerConfig() if factors is None else replace(TrackerConfig(), factors=factors)
    clips = choose_clips(video.episodes, seed)
    views = []
    for clip in progress(clips, desc="background", unit="clip"):
        views.append(clip_view(clip, config))
        if len(views) >= FEWEST and time.perf_counter() - began > SECONDS / 2:
            break
    clips = clips[: len(views)]
    ground = shared_context(views)
    config = replace(
        config, patch=patch_for(clips, views if ground is None else [ground[None]] * len(clips), config)
    )
    tracks: list[Tracks] = []
    for clip in progress(clips, desc="tracking", unit="clip"):
        tracks.append(track(clip, config, ground=ground))
        if time.perf_counter() - began > SECONDS:
            break
    clips = clips[: len(tracks)]
    results = write_report(clips, tracks, config, fps, out)
    results |= {
        "factors": config.factors,
        "patch": config.patch,
        "one_background": ground is not None,
        "tracking_ms_a_frame": 1000 * (time.perf_counter() - began) / results["frames"],
        "wall_s": time.perf_counter() - began,
    }
    write_results(out, results, seed)
    print(
        f"tracked {results['frames']} frames of {results['clips']} clips, {results['tracking_ms_a_frame']:.0f} ms a frame"
    )
    print("\n".join(report_lines(results)))
    ended(
        f"{out}/film.gif and {out}/results.json in {time.perf_counter() - began:.0f} s",
        *("flam-rl", "train", "--data", data, "--out", "runs/mine"),
    )
    return results


def frame_rate(reading: Reading, files: ReadingConfig) -> float:
    """Frames per second of the video: as the films say, or as the options ask."""
    rates = [info.fps for info in reading.episodes if info.fps]
    return (files.fps or (float(np.median(rates)) if rates else FPS)) / files.stride


def choose_clips(episodes: tuple[np.ndarray, ...], seed: int) -> list[np.ndarray]:
    """Clips of `CLIP` frames at most, from different episodes first, then from further on in long ones."""
    pieces = [
        (start, index) for index, e in enumerate(episodes) for start in range(0, max(1, len(e) - 1), CLIP)
    ]
    order = np.random.default_rng(seed).permutation(len(pieces))
    rank = {index: 0 for index in range(len(episodes))}
    ranked = []
    for piece in order:
        start, index = pieces[piece]
        ranked.append((rank[index], start, index))
        rank[index] += 1
    chosen = sorted(ranked, key=lambda piece: piece[0])[:CLIPS]
    clips = [np.asarray(episodes[index][start : start + CLIP]) for _, start, index in chosen]
    return [clip for clip in clips if len(clip) > 1]
