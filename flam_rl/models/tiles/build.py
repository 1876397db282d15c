"""From tokenized video to a world: what `flam-rl train` and a cell of `flam-rl benchmark` share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ...core.world import World, WorldInfo
from ...training.run import Log
from ..rivals import MODELS, ModelName, Oracle
from .clips import Clips, Codes
from .code_model import FLAMConfig
from .tokenizer import Tokenizer, TokenizerConfig
from .tokenizer_training import TokenizerTrainingConfig
from .training import WorldTrainingConfig, make_model, train_prior, train_world


@dataclass(frozen=True)
class BuildConfig:
    """All that a world depends on but the video."""

    model: ModelName = "flam"
    """FLAM, or one of the rivals that it is compared with, matched to it in size."""
    seed: int = 0
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    tokenizer_training: TokenizerTrainingConfig = field(default_factory=TokenizerTrainingConfig)
    flam: FLAMConfig = field(default_factory=FLAMConfig)
    world: WorldTrainingConfig = field(default_factory=WorldTrainingConfig)


def build_world(
    config: BuildConfig,
    tokenizer: Tokenizer,
    codes: Codes,
    held_out: Codes,
    info: WorldInfo,
    log: Log,
    on_step: Callable[[World, int], None] = lambda world, step: None,
    checkpoint: Path | None = None,
    actions: list[np.ndarray] | None = None,
) -> World:
    """Train the model that `config` names and its prior.

    Args:
        codes: what to train on.
        held_out: codes of episodes that imagination starts from.
        on_step: called after each step with the world as it is, for pictures.
        checkpoint: as `train_world`'s.
        actions: of each training episode, for the one model that is told them, as `Codes.with_actions`.

    Raises:
        ValueError: the model needs the true actions and there are none.
    """
    device = tokenizer.codebook.device
    model = make_model(config.model, tokenizer, codes.episodes, config.flam, config.seed).to(device)
    check_told(config, actions)
    if model.TOLD:
        assert actions is not None
        codes = codes.with_actions(actions)
    world = World(tokenizer, model, clips_to_start_from(held_out.episodes, model.window).to(device), info)
    model.requires_grad_(True)
    clips = Clips(codes, config.seed)
    train_world(model, clips, config.world, log, lambda step: on_step(world, step), checkpoint)
    train_prior(model, codes.episodes, config.world, config.seed, log)
    return world


def check_told(config: BuildConfig, actions: list[np.ndarray] | None) -> None:
    """
    Raises:
        ValueError: the model needs the true actions, and `actions` of the training episodes are not those.
    """
    if not MODELS[config.model].TOLD:
        return
    if actions is None:
        raise ValueError(f"the model {config.model!r} is told true actions; this video comes without")
    shapes = {a.shape[1] for a in actions} | {config.flam.factorizer.factors}
    if len(shapes) > 1 or max(a.max() for a in actions) >= Oracle.CHOICES:
        raise ValueError(
            f"the oracle has {config.flam.factorizer.factors} entities with actions 0 to {Oracle.CHOICES - 1}; "
            f"the video has {sorted({a.shape[1] for a in actions})}, actions up to {max(a.max() for a in actions)}"
        )


def clips_to_start_from(episodes: list[torch.Tensor], window: int, most: int = 1024) -> torch.Tensor:
    """The first frames of episodes and, spread over them, later ones: uint8 or int16 `(S, window, N)`."""
    clips = []
    for codes in episodes:
        padded = torch.cat([codes[:1].expand(window - 1, -1), codes])
        clips += [padded[start : start + window] for start in range(0, len(codes) - 1, 4)]
    kept = min(most, len(clips))
    return torch.stack([clips[i * len(clips) // kept] for i in range(kept)])
