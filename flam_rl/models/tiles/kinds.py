"""The models of codes: FLAM on tiles and its rivals."""

from __future__ import annotations

from functools import partial

from ...core.registry import Kind
from ..rivals import LAPO, AdaWorld, CopyLastFrame, Genie, GenieMatched, Joint, Oracle, PlaySlot
from .code_model import CodeModel
from .flam import FLAM
from .model import TileModel, TileSettings

CODE_MODELS: dict[str, type[CodeModel]] = {
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
KINDS = {
    name: Kind(
        TileSettings,
        partial(TileModel.blank, name, model),
        "flam_rl.models.tiles.build",
        (model.__doc__ or "").splitlines()[0],
        model.NEEDS_ACTIONS,
    )
    for name, model in CODE_MODELS.items()
}
