"""FLAM on tiles trains as it did: the losses of its first steps are the stored ones.

`tests/stored/multigrid.npz` holds a short video of MultiGrid as indices of its distinct patches. `python
tests/test_losses.py` writes `tests/stored/losses.json` anew, for a change that is meant to change them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flam_rl.models.tiles.binding import code_statistics, coherent_keys
from flam_rl.models.tiles.clips import Clips, Codes
from flam_rl.models.tiles.code_model import CodeFacts, FLAMConfig
from flam_rl.models.tiles.flam import FLAM
from flam_rl.models.tiles.tokenizer import TokenizerConfig
from flam_rl.models.tiles.tokenizer_training import TokenizerTrainingConfig, train_tokenizer
from flam_rl.models.tiles.training import WorldTrainingConfig, train_prior, train_world
from flam_rl.training.run import Log
from flam_rl.types import Video

STORED = Path(__file__).parent / "stored"
GRID = (8, 8)


class Kept(Log):
    """Keeps what is logged of losses, by tag and step."""

    def __init__(self) -> None:
        super().__init__(None)
        self.values: dict[str, float] = {}

    def scalar(self, tag: str, value: float, step: int) -> None:
        if not tag.endswith("frames_per_second"):
            self.values[f"{tag} at step {step}"] = float(value)


def load() -> tuple[np.ndarray, Codes]:
    """Distinct patches uint8 `(V, 192)` and the video as indices of them."""
    with np.load(STORED / "multigrid.npz") as stored:
        codes = Codes(torch.as_tensor(stored["codes"]), tuple(stored["lengths"].tolist()))
        return stored["patches"], codes


def tokenizer_losses() -> dict[str, float]:
    patches, codes = load()
    tiles = patches[codes.frames_FN].reshape(-1, *GRID, 8, 8, 3)
    frames = tiles.transpose(0, 1, 3, 2, 4, 5).reshape(-1, 64, 64, 3)
    torch.manual_seed(0)
    log = Kept()
    train_tokenizer(
        Video((frames,)), TokenizerConfig(), TokenizerTrainingConfig(steps=12), 0, torch.device("cpu"), log
    )
    return {tag: value for tag, value in log.values.items() if "mse" in tag or "loss" in tag}


def world_losses() -> dict[str, float]:
    patches, codes = load()
    config = FLAMConfig()
    statistics = code_statistics([e.numpy() for e in codes.episodes], GRID, len(patches))
    keys, queries = coherent_keys(statistics, config.factorizer.factors)
    torch.manual_seed(0)
    facts = CodeFacts(
        torch.as_tensor(patches / 255).float(),
        torch.randn(len(patches), 32),
        torch.as_tensor(keys),
        torch.as_tensor(queries),
        torch.as_tensor(statistics.frequency).float(),
        torch.as_tensor(statistics.activity).float(),
        torch.as_tensor(statistics.background).float(),
        GRID,
    )
    training = WorldTrainingConfig(steps=16, frames=64, learning_rate=2e-2, prior_steps=20, prior_batch=64)
    log = Kept()
    flam = train_world(FLAM(config, facts), Clips(codes, 0), training, log)
    train_prior(flam, codes.episodes, training, 0, log)
    return log.values


LOSSES = {"tokenizer": tokenizer_losses, "world": world_losses}
# The tokenizer's k-means meets ties that rounding decides: other instruction sets differ by 0.4% there, 1e-6 elsewhere.
TOLERANCE = {"tokenizer": 2e-2, "world": 1e-4}


@pytest.mark.parametrize("part", LOSSES)
def test_the_first_losses_are_the_stored_ones(part: str) -> None:
    stored: dict[str, Any] = json.loads((STORED / "losses.json").read_text())[part]
    assert LOSSES[part]() == pytest.approx(stored, rel=TOLERANCE[part])


if __name__ == "__main__":
    values = {part: losses() for part, losses in LOSSES.items()}
    (STORED / "losses.json").write_text(json.dumps(values, indent=1) + "\n")
