"""From video to a world of tracked layers: tracks, look codes, dynamics, prior."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from ...core.info import WorldInfo
from ...core.model import Model
from ...core.registry import kind_of
from ...core.threads import one_core
from ...core.world import World
from ...training.checkpoints import Checkpoints
from ...training.run import Log
from ...types import Video, check_ranges
from .context_codes import EPISODES, fit_codes
from .dynamics import DynamicsConfig
from .flam import LossConfig, TrackedConfig
from .model import TrackedModel
from .seeing import context_of, first_frames
from .sequences import Sequences
from .states import Rows, StateConfig, rows_of
from .track_cache import Ground, find_ground, track_video
from .tracker import TrackerConfig
from .tracks import Tracks
from .training import (
    DynamicsTrainingConfig,
    LookTrainingConfig,
    PriorTrainingConfig,
    find_typical,
    sample_looks,
    set_ranges,
    train_dynamics,
    train_looks,
    train_prior,
)

if TYPE_CHECKING:
    from ..build import BuildConfig, Footage

ENOUGH = 0.98
"""Share of episodes for whose entities there are factors, where the number is found from the video."""
MOST = 256
"""Factors at most, whatever memory holds."""
SMALLEST = 16
"""Height and width of frames at least, pixels."""
TRACKING, TRAINING = 100, 400
"""Float32 numbers that are held at once for each factor and pixel of a frame: by tracking, and by training looks on a batch."""
TRACKS = "tracks"
"""Where in a run's folder tracks are kept."""
STARTS, GROUNDS = 1024, 64
"""Start states at most, and backgrounds that they are in front of."""
AHEAD = 24
"""Frames that the camera may move on from a start before the context ends."""


@dataclass(frozen=True)
class TrackedBuildConfig:
    """All that a world of tracked layers depends on but the video."""

    factors: int | None = None
    """Entities at most at one time; by default as many as the video has."""
    tracker: TrackerConfig = field(default_factory=TrackerConfig)
    look_dim: int = 12
    """Numbers of a look code."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    loss: LossConfig = field(default_factory=LossConfig)
    looks: LookTrainingConfig = field(default_factory=LookTrainingConfig)
    dynamics_training: DynamicsTrainingConfig = field(default_factory=DynamicsTrainingConfig)
    prior_training: PriorTrainingConfig = field(default_factory=PriorTrainingConfig)

    def __post_init__(self) -> None:
        if self.factors is not None:
            check_ranges(self, factors=(1, MOST))
        check_ranges(self, look_dim=(1, 256))


def check(config: BuildConfig, frame_size: tuple[int, int], actions: list[np.ndarray] | None) -> None:
    """As `models.build.check_build`."""
    tracked = config.tracked
    check_frames(frame_size, tracked.factors or tracked.tracker.factors, TRAINING)
    StateConfig(*frame_size, tracked.factors or 1, look_dim=tracked.look_dim)


def check_frames(frame_size: tuple[int, ...], factors: int, maps: int) -> None:
    """Whether so many factors can be followed in frames of this height and width.

    Args:
        maps: float32 numbers that are held at once for each factor and pixel.

    Raises:
        ValueError: frames are too small, or there are more factors than memory holds.
    """
    height, width = frame_size
    if min(frame_size) < SMALLEST:
        raise ValueError(f"frames are {height}x{width}; tracking needs {SMALLEST}x{SMALLEST} pixels or more")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
    allowed = min(MOST, memory // (4 * maps * height * width))
    if not 1 <= factors <= allowed:
        advice = f"allow 1 to {allowed}" if allowed else "are too large"
        raise ValueError(f"--factors is {factors}; frames of {height}x{width} {advice} on this machine")


@one_core()
def build(
    config: BuildConfig,
    footage: Footage,
    info: WorldInfo,
    device: torch.device,
    log: Log,
    on_step: Callable[[World, int], None],
    folder: Path | None,
) -> World:
    """As `models.build.build_world`. Tracks are kept in `folder`, so that an interrupted run does not find them again.

    Raises:
        ValueError: nothing moves in the video, or an episode has one frame.
    """
    tracked, generator = config.tracked, torch.Generator().manual_seed(config.seed)
    checkpoints = Checkpoints(folder, config.world.checkpoint_every)
    with tempfile.TemporaryDirectory(prefix="flam_rl-tracks-") as scratch:
        cache = folder / TRACKS if folder else Path(scratch)
        ground = find_ground(footage.training, tracked.tracker)

        def episodes(video: Video) -> Iterator[tuple[np.ndarray, Tracks]]:
            """Of looks that are known by now."""
            yield from zip(video.episodes, track_video(video, ground, cache), strict=True)

        state = state_config(footage.training, ground, episodes, tracked)
        shared = ground.context is not None
        context_codes = None
        if not shared:
            coded = episodes(spread_over(footage.training, EPISODES))
            context_codes = fit_codes(context_of(state, tracks) for _, tracks in coded)
        settings = TrackedConfig(
            state,
            ground.tracker,
            tracked.dynamics,
            tracked.loss,
            shared,
            len(context_codes.components_CP) if context_codes else 0,
        )
        torch.manual_seed(config.seed)
        model = cast(TrackedModel, kind_of(config.model).make(settings))
        model.context_codes = context_codes
        flam = model.flam
        if ground.context is not None:
            flam.ground_3HW.copy_(ground.context)
        laid = (
            (frames, rows_of(tracks, state.entities), tracks.context)
            for frames, tracks in episodes(footage.training)
        )
        sample = sample_looks(laid, footage.training.frames, state, tracked.looks.frames)
        train_looks(flam.codes, sample, state, tracked.looks, log, generator, checkpoints)
        if ground.context is None:
            flam.known_ML.copy_(find_typical(flam.codes, sample, len(flam.known_ML), config.seed))
        ground = replace(ground, looks=flam.known_looks)
        factors = (
            _factors(model, rows_of(tracks, state.entities))
            for _, tracks in episodes(footage.training)
            if len(tracks.presence) > 1
        )
        sequences = Sequences(factors, folder)
        set_ranges(flam, sequences, tracked.prior_training.frames)
        train_dynamics(flam, sequences, tracked.dynamics_training, log, generator, checkpoints)
        train_prior(flam, sequences, tracked.prior_training, log, generator, checkpoints)
        shown = started_from(footage.held_out, settings)
        starts = starts_of(model, len(shown.episodes), (tracks for _, tracks in episodes(shown)))
    return World(model, starts, info).to(device)


def tracks_of(model: Model, video: Video, kept: Path) -> tuple[list[Tracks], TrackerConfig, int] | None:
    """The tracks of a video as a model's training found them, how, and how many entities the model has factors for; None of a
    model that has no tracks.

    Args:
        kept: the folder that was given to `build`; what is not there is tracked.
    """
    if not isinstance(model, TrackedModel):
        return None
    settings, flam = model.settings, model.flam
    shared = flam.ground_3HW.cpu() if settings.shared_ground else None
    ground = Ground(settings.tracker, shared, flam.known_looks.cpu())
    return list(track_video(video, ground, kept / TRACKS)), settings.tracker, settings.state.entities


def state_config(
    video: Video,
    ground: Ground,
    episodes: Callable[[Video], Iterator[tuple[np.ndarray, Tracks]]],
    config: TrackedBuildConfig,
) -> StateConfig:
    """How many factors the video needs, and how far its camera moves.

    Raises:
        ValueError: nothing moves.
    """
    needed, moved = [], 0.0
    for _, tracks in episodes(video):
        needed.append(int(tracks.presence.any(0).sum()) and rows_of(tracks).presence.shape[1])
        path = tracks.camera
        ahead = min(AHEAD, len(path) - 1)
        moved = max(moved, float((path[ahead:] - path[: len(path) - ahead]).abs().max()))
    if not any(needed):
        raise ValueError(
            "nothing that moves was found in the video; flam-rl train --preview shows what is seen, and why"
        )
    height, width = video.episodes[0].shape[1:3]
    return StateConfig(
        height,
        width,
        config.factors or max(1, int(np.quantile(needed, ENOUGH, method="higher"))),
        ground.tracker.patch,
        config.look_dim,
        margin=int(np.ceil(moved)) if moved > 0 else 0,
    )


@torch.no_grad()
def _factors(model: TrackedModel, rows: Rows) -> torch.Tensor:
    return rows.factors(model.settings.state, model.flam.codes.encode(rows.look))


def spread_over(video: Video, most: int) -> Video:
    """So many episodes at most, evenly spread."""
    return Video(video.episodes[:: -(-len(video.episodes) // most)])


def started_from(video: Video, settings: TrackedConfig) -> Video:
    """The episodes that imagination starts from: so many have a background of their own, or share one."""
    most = STARTS if settings.shared_ground else GROUNDS
    return Video(tuple(frames for frames in video.episodes if len(frames) > 1)[:most])


def starts_of(model: TrackedModel, count: int, episodes: Iterable[Tracks]) -> dict[str, torch.Tensor]:
    """Factors and backgrounds of held-out frames, spread over `count` episodes."""
    state = model.settings.state
    still = state.margin == 0
    each = max(1, (STARTS if still else GROUNDS) // count)
    factors: list[torch.Tensor] = []
    contexts: list[torch.Tensor] = []
    rows: list[int] = []
    for tracks in episodes:
        found = _factors(model, rows_of(tracks, state.entities))
        first = min(2, len(found) - 1)
        for at in sorted({int(t) for t in np.linspace(first, len(found) - 1, each)}):
            if still:
                new = not contexts or (not model.settings.shared_ground and at == first)
                factors.append(found[at])
            else:
                # A context is around the last frame that was seen, and the camera starts there.
                known = first_frames(tracks, at + 1)
                new = True
                factors.append(_factors(model, rows_of(known, state.entities))[at])
            if new:
                shown = tracks if still else known
                contexts.append(
                    (context_of(state, shown).clamp(0, 1) * 255).round().to(torch.uint8).flatten()
                )
            rows.append(len(contexts) - 1)
    return {"factors": torch.stack(factors), "context": torch.stack(contexts), "episode": torch.tensor(rows)}
