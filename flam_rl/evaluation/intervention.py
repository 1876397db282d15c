"""What moves when one factor's latent action is changed: its own entity, or others too."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from ..core.threads import one_core
from ..types import Json, Scene, Truth
from .encoded import Encoded, left_out
from .foreground import grow

COUNT, BATCH = 512, 64
"""How many latent actions are changed in all, and how many in one batch."""

CHANGED = 8
"""Grey levels of 255, in any channel, from which a pixel is changed."""
EDGE = 1
"""Pixels around an entity's mask that are still its own: those of its edge are mixed with what is beside it."""


@one_core()
@torch.inference_mode()
def measure(
    encoded: Encoded, truth: Sequence[Truth] | None = None, seed: int = 0, count: int = COUNT
) -> Json | None:
    """Apply `evaluate_intervention` to steps from frames of the video: of the inferred latent actions, one is
    replaced by the same factor's latent action from another frame.

    Entities are where the model itself draws them; no truth is needed.

    Returns:
        None where the world has no entities, or no episode has a second frame.
    """
    world = encoded.world
    if world.factors == 1:
        left_out("intervention", "the world draws the scene as one factor")
        return None
    steps = [(index, t) for index, acted in enumerate(encoded.latent_actions) for t in range(len(acted))]
    there = [(index, t, k) for index, t in steps for k in np.flatnonzero(encoded.entities[index].presence[t])]
    if not there:
        left_out("intervention", "the world tells no entity in any frame that another follows")
        return None
    rng = np.random.default_rng(seed)
    drawn = [there[row] for row in rng.integers(len(there), size=count)]
    others = [steps[row] for row in rng.integers(len(steps), size=count)]
    rows = torch.arange(BATCH)
    frames: tuple[list[np.ndarray], list[np.ndarray]] = [], []
    masks = []
    for first in range(0, count, BATCH):
        part, other = drawn[first : first + BATCH], others[first : first + BATCH]
        now = torch.stack([encoded.scenes[index].factors[t] for index, t, _ in part])
        context = torch.stack([encoded.scenes[index].context for index, _, _ in part])
        plain = torch.stack([encoded.latent_actions[index][t] for index, t, _ in part])
        changed, moved = plain.clone(), [world.moved_by(int(k)) for _, _, k in part]
        changed[rows[: len(part)], moved] = torch.stack(
            [encoded.latent_actions[index][t, which] for (index, t), which in zip(other, moved, strict=True)]
        )
        after = [Scene(world.step(now, taken), context) for taken in (plain, changed)]
        for side, scene in zip(frames, after, strict=True):
            side.append(world.draw(scene).cpu().numpy())
        shares = torch.maximum(*(world.shares(scene) for scene in after))
        masks.append((shares > 0.5).cpu().numpy())
    entity = np.array([k for _, _, k in drawn])
    before, after_change = (np.concatenate(side) for side in frames)
    return evaluate_intervention(before, after_change, np.concatenate(masks), entity)


def evaluate_intervention(
    plain: np.ndarray, changed: np.ndarray, masks: np.ndarray, entity: np.ndarray
) -> Json:
    """The share of changed pixels that lie on the entity whose latent action was changed, all frames together.

    Args:
        plain, changed: uint8 `(B, H, W, 3)`, frames drawn without and with the change.
        masks: `(B, K, H, W)`, bool or float in 0..1: where each entity is in either of the two frames, for it may have
            gone from one place to another. True masks, or the model's own.
        entity: int `(B,)`, the entity whose latent action was changed.

    Returns:
        `on_entity`: that share, None where no pixel changed in any frame; `without_change`: the share of frames
            without a changed pixel. `floors`: `chance`, what `on_entity` would be if as many changed pixels lay anywhere on entities, the mean
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
