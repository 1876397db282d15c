"""The report at the end of `flam-rl train` and its preview for tracked worlds: a film, figures, known failures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..core.world import World
from ..files import written_whole
from ..models.tracked import TrackerConfig, Tracks
from ..models.tracked.build import tracks_of
from ..models.tracked.seeing import first_frames
from ..types import Json, Video
from .films import tracks_film
from .pictures import write_gif
from .tracked import measure_tracks

CLIP = 96
"""Frames of a clip at most."""
CLIPS = 12
"""Clips at most."""
FILMED, FILM_FRAMES, FILM_HEIGHT = 2, 64, 256
"""Clips in the film, frames of each clip, and least height of the film in pixels."""


def report_of(world: World, video: Video, fps: float, kept: Path, out: Path) -> Json | None:
    """Write `out/film.gif` of the first frames of episodes and return their figures; None for a world without tracks.

    Args:
        fps: frames a second of the video.
        kept: folder with the tracks that training found, so that no frame is tracked again.
    """
    found = tracks_of(world.model, Video(video.episodes[:CLIPS]), kept)
    if found is None:
        return None
    tracks, config, factors = found
    clips = [np.asarray(frames[:CLIP]) for frames in video.episodes[:CLIPS]]
    shown = [first_frames(each, CLIP) for each in tracks]
    long = [index for index, clip in enumerate(clips) if len(clip) > 1]
    return write_report([clips[i] for i in long], [shown[i] for i in long], config, fps, out, factors)


def write_report(
    clips: Sequence[np.ndarray],
    tracks: Sequence[Tracks],
    config: TrackerConfig,
    fps: float,
    out: Path,
    factors: int | None = None,
) -> Json:
    """Write `out/film.gif` (boxes and trails, frames as factors draw them, masks) and return the figures of
    `measure_tracks`."""
    results = measure_tracks(clips, tracks, config, fps, factors)
    scale = max(1, FILM_HEIGHT // clips[0].shape[1])
    film = [
        picture
        for clip, found in list(zip(clips, tracks, strict=True))[:FILMED]
        for picture in tracks_film(clip[:FILM_FRAMES], found, scale)
    ]
    out.mkdir(parents=True, exist_ok=True)
    with written_whole(out / "film.gif") as scratch:
        write_gif(scratch, film, fps=max(1, round(fps)))
    return results


def report_lines(results: Json) -> list[str]:
    """The figures as lines for a terminal, known failures last."""
    psnr = {name: value["mean_db"] for name, value in results["psnr"].items()}
    return [
        f"factors: {results['factors_at_once']} at once; --factors {results['default_factors']} is enough for 99 of 100 frames",
        f"factors explain {100 * results['explained']:.1f}% of what differs from the background",
        f"births {results['births_per_minute']:.1f}, ends {results['ends_per_minute']:.1f} and switches "
        f"{results['switches_per_minute']:.1f} a minute at {results['frames_per_second']:.0f} frames a second; "
        f"a track lasts {results['track_frames']:.0f} frames",
        f"reconstruction {psnr['reconstruction']:.1f} dB; last frame copied {psnr['last_frame']:.1f}, "
        f"background alone {psnr['context']:.1f}",
        *(f"warning: {line}" for line in results["failures"]),
    ]
