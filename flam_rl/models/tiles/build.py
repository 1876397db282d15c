"""From video to a world of a tile model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ...core.info import WorldInfo
from ...core.registry import kind_of
from ...core.world import World
from ...training.checkpoints import Checkpoints
from ...training.run import Log
from ..rivals import Oracle
from .clips import Clips, tokenize
from .model import TileModel, TileSettings, TokenizerSettings
from .tokenizer_training import train_tokenizer
from .training import make_model, train_prior, train_world

if TYPE_CHECKING:
    from ..build import BuildConfig, Footage


def build(
    config: BuildConfig,
    footage: Footage,
    info: WorldInfo,
    device: torch.device,
    log: Log,
    on_step: Callable[[World, int], None],
    folder: Path | None,
) -> World:
    """As `models.build.build_world`: tokenizer, model of its codes, prior. With the same video and seed every tile model gets
    the same tokenizer."""
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(folder, config.world.checkpoint_every)
    tokenizer = train_tokenizer(
        footage.training, config.tokenizer, config.tokenizer_training, config.seed, device, log, checkpoints
    )
    codes = tokenize(tokenizer, footage.training, folder and folder / "codes.npy")
    held_out = tokenize(tokenizer, footage.held_out)
    model = make_model(config.model, tokenizer, codes.episodes, config.flam, config.seed).to(device)
    if model.NEEDS_ACTIONS:
        _check_actions(config, footage.actions)
        assert footage.actions is not None
        codes = codes.with_actions(footage.actions)
    starts = clips_to_start_from(held_out.episodes, model.window).to(device)
    world = World(TileModel(config.model, tokenizer, model), {"starts": starts}, info)
    model.requires_grad_(True)
    clips = Clips(codes, config.seed)
    train_world(model, clips, config.world, log, lambda step: on_step(world, step), checkpoints)
    train_prior(model, codes.episodes, config.world, config.seed, log, checkpoints)
    return world


def check(config: BuildConfig, frame_size: tuple[int, int], actions: list[np.ndarray] | None) -> None:
    """As `models.build.check_build`."""
    height, width = frame_size
    patch = config.tokenizer.patch
    if height % patch or width % patch:
        up = [-(-side // patch) * patch for side in (height, width)]
        raise ValueError(
            f"frames of {height}x{width} do not divide into patches of {patch}x{patch} pixels; give for example "
            f"--files.height {up[0]} --files.width {up[1]}, or another --tokenizer.patch"
        )
    codes, factors = config.tokenizer.codebook_size, config.flam.factorizer.factors
    if factors >= codes:
        raise ValueError(
            f"factors is {factors}; allowed is 1 to {codes - 1}: each needs a code of the {codes} that moves, and the "
            "background one"
        )
    kind = kind_of(config.model)
    with torch.device("meta"):  # takes no memory and no time
        kind.make(
            TileSettings(TokenizerSettings(**asdict(config.tokenizer), frame_size=frame_size), config.flam)
        )
    if kind.needs_actions and actions is not None:
        _check_actions(config, actions)


def _check_actions(config: BuildConfig, actions: list[np.ndarray] | None) -> None:
    """
    Raises:
        ValueError: `actions` of the training episodes are not those of as many entities as there are factors.
    """
    if actions is None:
        raise ValueError(f"the model {config.model!r} is given true actions; this video comes without")
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
