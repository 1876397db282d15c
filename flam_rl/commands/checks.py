"""What can be known at the start of a command is checked there, not after hours."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from ..models.world import World, WorldInfo
from ..training.build import BuildConfig
from ..types import Video
from ..world_config import VERSION, TokenizerSettings, WorldConfig


def check_out(out: Path) -> None:
    """Nothing is left behind, no folder either.

    Raises:
        ValueError: nothing can be written to the folder `out`.
    """
    there = out.absolute()
    while not there.exists() and there != there.parent:
        there = there.parent
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".flam-rl-", buffering=0) as probe:
            probe.write(bytes(4096))  # a full disk takes files, but nothing in them
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror} ({there})") from error


def check_settings(config: BuildConfig, frame_size: tuple[int, int]) -> None:
    """
    Args:
        frame_size: height and width in pixels.

    Raises:
        ValueError: the networks that `config` describes cannot be made for such frames.
    """
    codes, factors = config.tokenizer.codebook_size, config.flam.factorizer.factors
    if factors >= codes:
        raise ValueError(
            f"factors is {factors}; allowed is 1 to {codes - 1}: each needs a code of the {codes} that moves, and the "
            "background one"
        )
    tokenizer = TokenizerSettings(**asdict(config.tokenizer), frame_size=frame_size)
    with torch.device("meta"):  # takes no memory and no time
        WorldConfig(VERSION, tokenizer, config.model, config.flam, WorldInfo(), None).make()


def check_frames(world: World, video: Video, source: Path) -> None:
    """
    Raises:
        ValueError: the frames of `video` are of another size than the world's.
    """
    found, allowed = video.episodes[0].shape[1:3], tuple(world.tokenizer.frame_size)
    if found != allowed:
        raise ValueError(
            f"frames of {source} are {found[0]}x{found[1]} (height x width); the world was trained on, and allowed "
            f"are, {allowed[0]}x{allowed[1]}"
        )
