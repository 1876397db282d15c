"""Worlds of tile models for tests."""

from __future__ import annotations

import torch

from flam_rl.core.heads import Labels
from flam_rl.core.info import WorldInfo
from flam_rl.core.world import World
from flam_rl.models.tiles.code_model import CodeModel
from flam_rl.models.tiles.kinds import CODE_MODELS
from flam_rl.models.tiles.model import TileModel
from flam_rl.models.tiles.tokenizer import Tokenizer


def tile_world(
    tokenizer: Tokenizer,
    model: CodeModel,
    starts_STN: torch.Tensor,
    info: WorldInfo = WorldInfo(),
    labels: Labels | None = None,
) -> World:
    """A world of a model of codes, whichever it is."""
    kind = next(name for name, of in CODE_MODELS.items() if of is type(model))
    return World(TileModel(kind, tokenizer, model), {"starts": starts_STN}, info, labels)
