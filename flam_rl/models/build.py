"""From video to a world, whatever the model: what `flam-rl train` and a cell of `flam-rl benchmark` share."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from ..core.info import WorldInfo
from ..core.registry import ModelName, kind_of
from ..core.world import World
from ..training.run import Log
from ..types import Video
from .choosing import choose_model
from .tiles.code_model import FLAMConfig
from .tiles.tokenizer import TokenizerConfig
from .tiles.tokenizer_training import TokenizerTrainingConfig
from .tiles.training import WorldTrainingConfig
from .tracked.build import TrackedBuildConfig


@dataclass(frozen=True)
class BuildConfig:
    """All that a world depends on but the video."""

    model: ModelName | Literal["auto"] = "flam"
    """`auto` is FLAM on tiles (`flam`) or on tracked layers (`tracked`), whichever suits the video. The others are what
    these are compared with: rivals on tiles, matched to FLAM there in size, and `joint` and `tracked-joint`, which have one latent
    action for all factors."""
    seed: int = 0
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    tokenizer_training: TokenizerTrainingConfig = field(default_factory=TokenizerTrainingConfig)
    flam: FLAMConfig = field(default_factory=FLAMConfig)
    world: WorldTrainingConfig = field(default_factory=WorldTrainingConfig)
    tracked: TrackedBuildConfig = field(default_factory=TrackedBuildConfig)
    """Settings of the model `tracked`; those above are of all other models."""


@dataclass(frozen=True)
class Footage:
    """What a world is made from.

    Attributes:
        training: what is trained on.
        held_out: episodes that imagination starts from.
        actions: int `(T, E)` of each training episode, what each entity did to come to a frame, -1 where that is not known;
            for a model that needs them, no other is given any.
    """

    training: Video
    held_out: Video
    actions: list[np.ndarray] | None = None


def build_world(
    config: BuildConfig,
    footage: Footage,
    info: WorldInfo,
    device: torch.device,
    log: Log,
    on_step: Callable[[World, int], None] = lambda world, step: None,
    folder: Path | None = None,
) -> World:
    """Train the model that `config` names, from frames to its prior.

    Args:
        on_step: called after each step of the world's training with the world as it is, for pictures.
        folder: where to keep what an interrupted run goes on from.

    Raises:
        ValueError: the model needs the true actions and there are none.
    """
    return _family(config).build(config, footage, info, device, log, on_step, folder)


def check_build(
    config: BuildConfig, frame_size: tuple[int, int], actions: list[np.ndarray] | None = None
) -> None:
    """Check what can be known before training.

    Args:
        frame_size: height and width in pixels. actions: as in `Footage`, where they are known already.

    Raises:
        ValueError: the networks that `config` describes cannot be made for such frames, or are not for such actions.
    """
    _family(config).check(config, frame_size, actions)


def settled(config: BuildConfig, video: Video | None, factors: int | None = None) -> tuple[BuildConfig, str]:
    """`config` with a model in place of `auto`, chosen by the video, and with so many factors; and why that model."""
    reason = "as was asked for"
    if config.model == "auto":
        assert video is not None
        model, reason = choose_model(video, config.tokenizer.patch)
        config = replace(config, model=model)
    if factors is not None:
        factorizer = replace(config.flam.factorizer, factors=factors)
        config = replace(
            config,
            flam=replace(config.flam, factorizer=factorizer),
            tracked=replace(config.tracked, factors=factors),
        )
    return config, reason


def _family(config: BuildConfig) -> Any:
    return importlib.import_module(kind_of(config.model).trained_by)
