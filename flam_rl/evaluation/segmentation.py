"""How well masks show entities: foreground ARI and mask IoU."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment
from sklearn.metrics import adjusted_rand_score

from ..types import Entities, Json, Truth
from .encoded import Encoded, left_out
from .matching import shuffle_identities
from .truth import true_entities

MOST = 1000
"""Most frames that are measured."""


def measure(encoded: Encoded, truth: Sequence[Truth] | None, seed: int = 0, most: int = MOST) -> Json | None:
    """Apply `evaluate_segmentation` to whole episodes, until `most` frames are measured; None where truth lacks the
    entities' boxes, or the world has no entities."""
    size = encoded.world.frame_size
    if truth is None or any(true_entities(one, size) is None for one in truth):
        left_out("masks", "there is no truth of who is where")
        return None
    if encoded.world.factors == 1:
        left_out("masks", "the world draws the scene as one factor")
        return None
    lengths = np.cumsum([len(frames) for frames in encoded.frames])
    count = int(np.searchsorted(lengths, most)) + 1

    def pairs() -> Iterator[tuple[Entities, Entities]]:
        for index, one in enumerate(truth[:count]):
            true = true_entities(one, size, masks=True)
            assert true is not None
            yield true, encoded.masked(index)

    found = evaluate_segmentation(pairs(), seed)
    if found is None:
        left_out("masks", "no entity is ever there")
    return found


def evaluate_segmentation(pairs: Iterable[tuple[Entities, Entities]], seed: int = 0) -> Json | None:
    """Compare masks of many clips with true masks; None where truth shows no entity.

    Args:
        pairs: true and found entities of each clip, with masks of the same frames; read one pair at a time.
        seed: of the floor with random identities.

    Returns:
        `foreground_ari`: mean over the clips that show two entities or more, None if there are none; `mask_iou`: mean over
        the entities of all clips.
        `floors`: the same figures for one factor that draws everything (`one_factor`), and for the found masks with
            identities drawn anew in each frame (`random_identities`).

    Raises:
        ValueError: masks are missing, or those of a clip and its truth differ in frames or in size.
    """
    rng = np.random.default_rng(seed)
    clips: dict[str, list[tuple[float | None, np.ndarray]]] = {
        "": [],
        "one_factor": [],
        "random_identities": [],
    }
    for truth, found in pairs:
        true, mask = _masks(truth) > 0.5, _masks(found)
        if true.shape[:1] + true.shape[2:] != mask.shape[:1] + mask.shape[2:]:
            raise ValueError(
                f"masks of a clip, {mask.shape}, and of its truth, {true.shape}, differ in frames or size"
            )
        clips[""].append(_clip(true, mask))
        clips["one_factor"].append(_clip(true, np.ones_like(mask[:, :1])))
        clips["random_identities"].append(_clip(true, _masks(shuffle_identities(found, rng))))
    if not any(len(iou) for _, iou in clips[""]):
        return None
    figures = {name: _mean(each) for name, each in clips.items()}
    return figures.pop("") | {"floors": figures}


def foreground_ari(true: np.ndarray, mask: np.ndarray) -> float:
    """Adjusted Rand index (Greff et al. 2019) between entities and the factors that draw most of each pixel.

    It covers the pixels that show entities, in all frames together, so that a factor has to keep its entity; the
    background counts as one more factor.

    Args:
        true: bool `(T, E, ...)`. mask: float `(T, K, ...)` in 0..1.
    """
    background = 1 - mask.sum(1, keepdims=True)
    drawn = np.concatenate([mask, background], 1).argmax(1)
    shown = true.any(1)
    return float(adjusted_rand_score(true.argmax(1)[shown], drawn[shown]))


def mask_iou(true: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Intersection over union of each entity's pixels and the pixels of which its factor draws more than half: float
    `(E,)`, 0 for an entity without a factor.

    All frames count together, and factors are matched to entities once for the clip.

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


def _clip(true: np.ndarray, mask: np.ndarray) -> tuple[float | None, np.ndarray]:
    """Foreground ARI (None where fewer than two entities are ever present), and the IoU of each entity that is ever
    present."""
    ever = true.any((0, 2, 3))
    if not ever.any():
        return None, np.zeros(0)
    return foreground_ari(true[:, ever], mask) if ever.sum() > 1 else None, mask_iou(true[:, ever], mask)


def _mean(clips: Sequence[tuple[float | None, np.ndarray]]) -> Json:
    ari = [one for one, _ in clips if one is not None]
    return {
        "foreground_ari": float(np.mean(ari)) if ari else None,
        "mask_iou": float(np.concatenate([iou for _, iou in clips]).mean()),
    }


def _masks(entities: Entities) -> np.ndarray:
    if entities.mask is None:
        raise ValueError("segmentation compares masks; these entities have none")
    return entities.mask
