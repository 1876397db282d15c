"""What can be known at the start of a command is checked there, not after hours."""

from __future__ import annotations

import tempfile
from dataclasses import asdict
from pathlib import Path

import torch

from ..core.config import VERSION, TokenizerSettings, WorldConfig
from ..core.world import WorldInfo
from ..models.tiles.build import BuildConfig


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
