"""Rivals of FLAM for tests, untrained and small."""

from __future__ import annotations

import torch

from flam_rl.core.registry import TILE_MODELS, ModelName
from flam_rl.models.tiles.code_model import CodeFacts, CodeModel, FLAMConfig
from flam_rl.models.tiles.factorizer import FactorizerConfig
from flam_rl.models.tiles.kinds import CODE_MODELS

CODES, KINDS = 10, list(TILE_MODELS)
TRAINED: list[ModelName] = [name for name in TILE_MODELS if name != "copy"]
CONFIG = FLAMConfig(FactorizerConfig(factors=3))


def make_model(name: ModelName, config: FLAMConfig = CONFIG) -> CodeModel:
    torch.manual_seed(0)
    facts = CodeFacts(
        looks_VP=torch.rand(CODES, 192),
        codebook_VD=torch.randn(CODES, 32),
        keys_VE=torch.randn(CODES, 4),
        queries_KE=torch.randn(4, 4),
        frequency_V=torch.full((CODES,), 1 / CODES),
        activity_V=torch.rand(CODES),
        background_NV=torch.full((16, CODES), 1 / CODES),
        grid=(4, 4),
    )
    return CODE_MODELS[name](config, facts)


def model_input(model: CodeModel, z: torch.Tensor) -> torch.Tensor:
    """What the model sees: the oracle, actions as well."""
    if not model.NEEDS_ACTIONS:
        return z
    return torch.cat([z, torch.randint(1, 5, (*z.shape[:2], 3))], -1)
