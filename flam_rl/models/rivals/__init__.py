"""FLAM's rivals: one latent action for the whole scene, behind the same verbs.

All of them share with FLAM what is not the question: tokenizer, loss of drawing and predicting codes, open-loop
unroll, optimiser and steps, the number of latent dims of a step, and, within 10%, parameters. What the papers do
otherwise is said class by class.
"""

from __future__ import annotations

from typing import Literal

from ..tiles.code_model import WorldModel
from ..tiles.flam import FLAM
from .floor import CopyLastFrame
from .joint import Joint
from .oracle import Oracle
from .playslot import PlaySlot
from .scene import LAPO, AdaWorld, Genie, GenieMatched

ModelName = Literal[
    "flam", "genie", "genie-matched", "adaworld", "lapo", "playslot", "joint", "copy", "oracle"
]
MODELS: dict[ModelName, type[WorldModel]] = {
    "flam": FLAM,
    "genie": Genie,
    "genie-matched": GenieMatched,
    "adaworld": AdaWorld,
    "lapo": LAPO,
    "playslot": PlaySlot,
    "joint": Joint,
    "copy": CopyLastFrame,
    "oracle": Oracle,
}
"""Every model by its name; `copy` is copy-last-frame."""


def name_of(model: WorldModel) -> ModelName:
    """The name of a model's class."""
    return next(name for name, kind in MODELS.items() if kind is type(model))
