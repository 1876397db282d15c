"""What moves when one factor's latent action is changed: its own entity, or others too."""

from __future__ import annotations

import numpy as np

from ..types import Json
from .foreground import grow

CHANGED = 8
"""Grey levels of 255, in any channel, from which a pixel is changed."""
EDGE = 1
"""Pixels around an entity's mask that are still its own: those of its edge are mixed with what is beside it."""


def evaluate_intervention(
    plain: np.ndarray, changed: np.ndarray, masks: np.ndarray, entity: np.ndarray
) -> Json:
    """The share of changed pixels that lie on the entity whose latent action was changed, all frames together.

    Args:
        plain, changed: uint8 `(B, H, W, 3)`, frames drawn without and with the change.
        masks: `(B, K, H, W)`, bool or float in 0..1: where each entity is in either of the two frames, for it may have
            gone from one place to another. True masks, or the model's own.
        entity: int `(B,)`, whose latent action was changed in each.

    Returns:
        `on_entity`: that share, None where no pixel changed anywhere; `without_change`: the share of frames in which none
        did. `floors`: `chance`, what `on_entity` would be if as many changed pixels lay anywhere on entities, the mean
        of that entity's share of all entities' pixels.
    """
    own = (masks > 0.5)[np.arange(len(masks)), entity]
    everyone = (masks > 0.5).max(1)
    different = np.abs(plain.astype(np.int16) - changed).max(-1) > CHANGED
    pixels = different.sum((1, 2))
    hit = (different & grow(own, EDGE)).sum((1, 2))
    share = grow(own, EDGE).sum((1, 2)) / np.maximum(grow(everyone, EDGE).sum((1, 2)), 1)
    total = int(pixels.sum())
    return {
        "on_entity": float(hit.sum() / total) if total else None,
        "without_change": float((pixels == 0).mean()),
        "floors": {"chance": {"on_entity": float((share * pixels).sum() / total) if total else None}},
    }
