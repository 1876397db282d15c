"""Figures of tracking without truth: how much of the motion tracks explain, and which known failures they show."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ..models.tracked import TrackerConfig, Tracks
from ..models.tracked.camera import shift_between, shifted
from ..models.tracked.tokens import differs, find_tokens
from ..models.tracked.views import as_colors
from ..types import Json

STARTS = 3
"""A track that begins in the first frames of a clip, or stops in the last, counts as no birth and no end."""
LAG = 4
"""Frames between the two frames that the camera's motion is measured from."""
CAMERA = 0.1
"""Pixels per frame from which the camera counts as moving."""
STILL = 1e-3
"""Share of pixels that change from frame to frame, below which nothing counts as moving."""
NOTHING = "nothing moves: no world can be learned from such a film; give one in which things move"
RESTLESS = 0.5
"""Share of pixels that change from frame to frame, from which the background counts as changing."""
OFTEN = 0.02
"""Share of frames with too many things at once, from which that is reported as a failure."""
UNFOLLOWED, NEAR = 0.2, 3.0
"""Share of frames with things too small to follow, from which that is reported, and pixels around a track within
which such things belong to the track."""
BRIEF = 16
"""Mean length of tracks in frames (half a clip, if that is shorter) below which tracks are reported as broken."""
BREAKS = 0.015
"""Switches per factor and frame above which tracks are reported as broken, whatever their length."""


def measure_tracks(
    clips: Sequence[np.ndarray],
    tracks: Sequence[Tracks],
    config: TrackerConfig,
    fps: float,
    factors: int | None = None,
) -> Json:
    """Figures of tracking over clips, pooled over all frames.

    Args:
        clips: uint8 `(T, H, W, 3)`, tracks: one of each.
        fps: frames a second, for rates a minute.
        factors: number of factors of the world that the tracks are for; by default the number that was followed.

    Returns:
        `factors_at_once` (the most), `default_factors` (enough for 99 of 100 frames), `explained` (share of the
        context's squared error that factors remove), `births_per_minute`, `ends_per_minute`, `switches_per_minute` (ends after which
        another track begins at that place), `track_frames` (mean length),
        `psnr` of `reconstruction`, `last_frame` copied and `context` alone, each as `mean_db` and `db_of_mean`, and
        `failures`, a plain line for each that was seen.
    """
    errors: dict[str, list[Tensor]] = {"reconstruction": [], "last_frame": [], "context": []}
    at_once, births, ends, switches, frames = [], 0, 0, 0, 0
    for clip, found in zip(clips, tracks, strict=True):
        colors = as_colors(clip)
        drawn, _ = found.draw()
        errors["reconstruction"].append((colors - drawn).square().mean((1, 2, 3)))
        errors["last_frame"].append((colors[1:] - colors[:-1]).square().mean((1, 2, 3)))
        errors["context"].append((colors - found.context).square().mean((1, 2, 3)))
        at_once.append(found.presence.sum(1))
        for first, last in _spans(found):
            births += int(first >= STARTS)
            ends += int(last < len(clip) - STARTS)
        switches += _switches(found, config.patience)
        frames += len(clip)
    pooled = {name: torch.cat(parts).double() for name, parts in errors.items()}
    context, left = pooled["context"].sum(), pooled["reconstruction"].sum()
    most = torch.cat(at_once).double()
    return {
        "clips": len(clips),
        "frames": frames,
        "factors_at_once": int(most.max()),
        "default_factors": max(1, int(most.quantile(0.99).ceil())),
        "explained": float(1 - left / context) if context > 0 else 0.0,
        "births_per_minute": 60 * fps * births / frames,
        "ends_per_minute": 60 * fps * ends / frames,
        "switches_per_minute": 60 * fps * switches / frames,
        "frames_per_second": fps,
        "track_frames": mean_length(tracks),
        "psnr": {name: _psnr(error) for name, error in pooled.items()},
        "failures": find_failures(clips, tracks, config, factors),
    }


def mean_length(tracks: Sequence[Tracks]) -> float:
    """Mean number of frames from the first to the last of a track; 0 without tracks."""
    lengths = [last - first + 1 for found in tracks for first, last in _spans(found)]
    return float(np.mean(lengths)) if lengths else 0.0


def find_failures(
    clips: Sequence[np.ndarray],
    tracks: Sequence[Tracks],
    config: TrackerConfig,
    factors: int | None = None,
) -> list[str]:
    """A line for each known failure that the clips show: the failure, and what helps.

    Args:
        factors: number of factors of the world that the tracks are for; by default the number that was followed.
    """
    limit = config.factors if factors is None else min(factors + 1, config.factors)
    full, small, large, things = [], [], 0, 0
    for clip, found in zip(clips, tracks, strict=True):
        colors = as_colors(clip)
        full.append(found.presence.sum(1) >= limit)
        apart = differs(colors - found.context, config.threshold)[::4].cpu().numpy()
        for mask, box in zip(apart, _boxes(found)[::4], strict=True):
            tokens = find_tokens(mask, 2)
            small.append(any(t.area < config.area and not _is_near(t.place, box) for t in tokens))
            large += sum(max(t.size) > config.patch - 2 for t in tokens)
            things += len(tokens)
    lines = failures_of_frames(clips, config)
    if lines == [NOTHING] and not any(bool(found.presence.any()) for found in tracks):
        return lines
    lines = [line for line in lines if line != NOTHING]
    if (share := float(np.mean(small))) > UNFOLLOWED:
        lines.append(
            f"things are smaller than {config.area} pixels in area: {100 * share:.0f}% of frames show some that are too small "
            "to follow; give larger frames"
        )
    if things and large / things > 0.1:
        lines.append(
            f"things are larger than {config.patch} pixels: {100 * large / things:.0f}% of what moves is split; give smaller frames"
        )
    length, seen = mean_length(tracks), sum(int(found.presence.sum()) for found in tracks)
    broken = sum(_switches(found, config.patience) for found in tracks) > BREAKS * seen
    if broken or 0 < length < min(BRIEF, max(len(clip) for clip in clips) / 2):
        lines.append(
            f"tracks break: mean length {length:.0f} frames; things jump from frame to frame (tiles?): tracking is no use here, "
            "train a world without it"
        )
    if (share := float(torch.cat(full).float().mean())) > OFTEN:
        if limit == config.factors:
            said, enough = f"{limit} or more at once", 2 * limit
        else:
            said = f"more than {factors} things at once"
            enough = int(max(found.presence.sum(1).max() for found in tracks))
        lines.append(f"{said} in {100 * share:.0f}% of frames: try --factors {enough}")
    return lines


def failures_of_frames(clips: Sequence[np.ndarray], config: TrackerConfig) -> list[str]:
    """The known failures that show in frames before tracking, as lines like those of `find_failures`."""
    changed, shifts = [], []
    for clip in clips:
        colors = as_colors(clip)
        changed.append(differs(colors[1:] - colors[:-1], config.threshold).float().mean((1, 2)))
        lag = min(LAG, len(colors) - 1)
        shifts.append(_camera(colors[:-lag], colors[lag:]) / lag)
    pixels, shift = torch.cat(changed), torch.cat(shifts)
    if float(pixels.mean()) < STILL:
        return [NOTHING]
    if (typical := float(shift.norm(dim=-1).mean())) > CAMERA:
        across, down = shift.mean(0).tolist()
        steady = float(shift.mean(0).norm()) > 0.5 * typical
        ways = f"{across:+.1f} to the right and {down:+.1f} down" if steady else "in changing directions"
        return [
            f"the camera moves by {typical:.1f} pixels a frame, {ways}: one still background does not hold"
        ]
    if (often := float(pixels.median())) > RESTLESS:
        return [
            f"the background changes with every frame: {100 * often:.0f}% of the pixels; what moves cannot be told apart from it"
        ]
    return []


def _spans(found: Tracks) -> list[tuple[int, int]]:
    """The first and the last frame of each track."""
    spans = []
    for number in found.identity[found.presence].unique():
        seen = (found.presence & (found.identity == number)).any(1).nonzero()[:, 0]
        spans.append((int(seen[0]), int(seen[-1])))
    return spans


def _switches(found: Tracks, patience: int) -> int:
    """How many tracks end where another track begins within a few frames, with its centre in the box that was left."""
    box, place, count = found.box, found.place, 0
    ways = {}
    for number in found.identity[found.presence].unique():
        frames, rows = (found.presence & (found.identity == number)).nonzero(as_tuple=True)
        ways[int(number)] = (int(frames[0]), int(rows[0]), int(frames[-1]), int(rows[-1]))
    for _, _, last, row in ways.values():
        left = box[last, row]
        count += any(
            0 < first - last <= patience
            and bool(((place[first, other] > left[:2]) & (place[first, other] < left[2:])).all())
            for first, other, _, _ in ways.values()
        )
    return count


def _boxes(found: Tracks) -> list[np.ndarray]:
    """For each frame the boxes of the present factors, `(n, 4)`."""
    boxes, presence = found.box.cpu().numpy(), found.presence.cpu().numpy()
    return [box[there] for box, there in zip(boxes, presence, strict=True)]


def _is_near(place: tuple[float, float], boxes: np.ndarray) -> bool:
    inside = (boxes[:, :2] - NEAR < place) & (place < boxes[:, 2:] + NEAR)
    return bool(inside.all(1).any())


def _camera(before: Tensor, after: Tensor, inner: int = 8) -> Tensor:
    """The camera's motion between frames, 0 where moving the whole picture does not make most of it fit better."""
    shift = shift_between(before, after)
    inside = (..., slice(inner, -inner), slice(inner, -inner))
    still = (after - before)[inside].abs().clamp(max=0.2).mean((1, 2, 3))
    moved = (after - shifted(before, shift))[inside].abs().clamp(max=0.2).mean((1, 2, 3))
    return torch.where(((moved < 0.7 * still) & (shift.abs().amax(1) < inner))[:, None], shift, 0)


def _psnr(error: Tensor) -> Json:
    least = error.clamp_min(1e-8)
    return {
        "mean_db": float((-10 * least.log10()).mean()),
        "db_of_mean": float(-10 * error.mean().clamp_min(1e-8).log10()),
    }
