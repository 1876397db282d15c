"""`flam-rl train --preview`: tracking alone, within a minute, before anything is trained."""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..data.reading import ReadingConfig, read
from ..evaluation.films import tracks_film
from ..evaluation.pictures import write_gif
from ..evaluation.tracked import measure_tracks
from ..files import written_whole
from ..models.tracked import TrackerConfig, Tracks, clip_view, patch_for, shared_context, track
from ..progress import progress
from ..results import write_results
from ..types import Json
from .checks import check_out

CLIP = 96
"""Frames of a clip at most."""
CLIPS = 12
"""Clips at most, from episodes spread over the film."""
FILMED, FILM_FRAMES, FILM_HEIGHT = 2, 64, 256
"""Clips in the film, frames of each, and pixels that the film is high at least, if frames are not higher themselves."""
SECONDS = 40.0
"""No further clip is tracked after so many seconds."""
SMALLEST = 16
"""Height and width of frames at least, pixels."""
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
    rates = [info.fps for info in reading.episodes if info.fps]
    fps = files.fps or (float(np.median(rates)) if rates else FPS)
    fps /= files.stride
    height, width = video.episodes[0].shape[1:3]
    if min(height, width) < SMALLEST:
        raise ValueError(f"frames are {height}x{width}; tracking needs {SMALLEST}x{SMALLEST} pixels or more")
    config = TrackerConfig() if factors is None else replace(TrackerConfig(), factors=factors)
    _check_memory(config.factors, height, width)
    clips = choose_clips(video.episodes, seed)
    views = [clip_view(clip, config) for clip in clips]
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
    results = measure_tracks(clips, tracks, config, fps)
    results |= {
        "factors": config.factors,
        "patch": config.patch,
        "one_background": ground is not None,
        "tracking_ms_a_frame": 1000 * (time.perf_counter() - began) / results["frames"],
        "wall_s": time.perf_counter() - began,
    }
    scale = max(1, FILM_HEIGHT // height)
    film = [
        picture
        for clip, found in list(zip(clips, tracks, strict=True))[:FILMED]
        for picture in tracks_film(clip[:FILM_FRAMES], found, scale)
    ]
    out.mkdir(parents=True, exist_ok=True)
    with written_whole(out / "film.gif") as scratch:
        write_gif(scratch, film, fps=max(1, round(fps)))
    write_results(out, results, seed)
    print(summary(results))
    print(f"wrote {out}/film.gif and {out}/results.json in {time.perf_counter() - began:.0f} s")
    return results


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


def summary(results: Json) -> str:
    """The figures as lines for a terminal."""
    psnr = {name: value["mean_db"] for name, value in results["psnr"].items()}
    lines = [
        f"tracked {results['frames']} frames of {results['clips']} clips, {results['tracking_ms_a_frame']:.0f} ms a frame",
        f"factors: {results['factors_at_once']} at once; --factors {results['default_factors']} is enough for 99 of 100 frames",
        f"factors explain {100 * results['explained']:.1f}% of what differs from the background",
        f"births {results['births_per_minute']:.1f} and ends {results['ends_per_minute']:.1f} a minute at "
        f"{results['frames_per_second']:.0f} frames a second; a track lasts {results['track_frames']:.0f} frames",
        f"reconstruction {psnr['reconstruction']:.1f} dB; last frame copied {psnr['last_frame']:.1f}, "
        f"background alone {psnr['context']:.1f}",
    ]
    return "\n".join(lines + [f"warning: {line}" for line in results["failures"]])


def _check_memory(factors: int, height: int, width: int) -> None:
    needed = 100 * factors * height * width * 4  # some 25 maps of four channels, float32
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    if factors < 1 or needed > there:
        raise ValueError(
            f"--factors is {factors}; frames of {height}x{width} allow 1 to {there // (400 * height * width)} on this machine"
        )
