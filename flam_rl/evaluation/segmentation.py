"""Do masks show entities: foreground ARI and mask IoU of a clip."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from ..types import Entities, Json
from .matching import shuffle_identities


def evaluate_segmentation(truth: Sequence[Entities], found: Sequence[Entities], seed: int = 0) -> Json | None:
    """Masks of many clips against true ones; None where truth shows no entity.

    Args:
        truth, found: one of each for a clip, with masks of the same frames.
        seed: of the floor with random identities.

    Returns:
        `foreground_ari`: mean over the clips that show two entities or more, None if there are none; `mask_iou`: mean over
        the entities of all clips.
        `floors`: the same figures of one factor that draws everything (`one_factor`), and of what was found with identities
        drawn anew in each frame (`random_identities`).

    Raises:
        ValueError: there are not as many truths as clips, masks are missing, or those of a clip and its truth differ in
            frames or in size.
    """
    if not any(entities.presence.any() for entities in truth):
        return None
    rng = np.random.default_rng(seed)
    pairs = [(_masks(one) > 0.5, _masks(two)) for one, two in zip(truth, found, strict=True)]
    shuffled = [_masks(shuffle_identities(entities, rng)) for entities in found]
    floors = {
        "one_factor": [(true, np.ones_like(mask[:, :1])) for true, mask in pairs],
        "random_identities": [(true, mask) for (true, _), mask in zip(pairs, shuffled, strict=True)],
    }
    return _figures(pairs) | {"floors": {name: _figures(floor) for name, floor in floors.items()}}


def foreground_ari(true: np.ndarray, mask: np.ndarray) -> float:
    """Adjusted Rand index (Greff et al. 2019) of which factor draws most of a pixel, the background being one more, over
    the pixels that show entities, all frames at once: a factor has to keep its entity.

    Args:
        true: bool `(T, E, ...)`. mask: float `(T, K, ...)` in 0..1.
    """
    background = 1 - mask.sum(1, keepdims=True)
    drawn = np.concatenate([mask, background], 1).argmax(1)
    shown = true.any(1)
    return float(adjusted_rand_score(true.argmax(1)[shown], drawn[shown]))


def mask_iou(true: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Intersection over union of each entity's pixels with those that its factor draws more than half of, all frames at
    once, factors matched to entities once: float `(E,)`, 0 of an entity without a factor.

    Args:
        true: bool `(T, E, ...)`. mask: float `(T, K, ...)` in 0..1.
    """
    wanted, drawn = (
        np.moveaxis(part, 1, 0).reshape(part.shape[1], -1).astype(np.float32) for part in (true, mask > 0.5)
    )
    both = (wanted @ drawn.T).astype(np.float64)
    either = wanted.sum(1)[:, None] + drawn.sum(1) - both
    iou = both / np.maximum(either, 1)
    matched = np.zeros(len(iou))
    rows, columns = linear_sum_assignment(iou, maximize=True)
    matched[rows] = iou[rows, columns]
    return matched


def _figures(pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> Json:
    ari, iou = [], []
    for true, mask in pairs:
        if true.shape[:1] + true.shape[2:] != mask.shape[:1] + mask.shape[2:]:
            raise ValueError(
                f"masks of a clip, {mask.shape}, and of its truth, {true.shape}, differ in frames or size"
            )
        ever = true.any((0, 2, 3))
        iou.append(mask_iou(true[:, ever], mask))
        if ever.sum() > 1:
            ari.append(foreground_ari(true[:, ever], mask))
    return {
        "foreground_ari": float(np.mean(ari)) if ari else None,
        "mask_iou": float(np.concatenate(iou).mean()),
    }


def _masks(entities: Entities) -> np.ndarray:
    if entities.mask is None:
        raise ValueError("segmentation compares masks; these entities have none")
    return entities.mask
