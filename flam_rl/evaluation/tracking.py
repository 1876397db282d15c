"""Does a factor keep its entity: HOTA, IDF1 and identity switches, the measures of multi-object tracking."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ..types import Entities, Json
from .matching import box_iou, in_contact, match_frames, nothing_found, shuffle_identities


def evaluate_tracking(truth: Sequence[Entities], found: Sequence[Entities], seed: int = 0) -> Json | None:
    """Tracking of many clips, matched by boxes, counts pooled over the clips; None where truth shows no entity.

    Args:
        truth, found: one of each for a clip, of as many frames; E true entities and K found ones may differ.
        seed: of the floor with random identities.

    Returns:
        `hota`, `deta`, `assa` (Luiten et al. 2021: means over the overlaps 0.05 to 0.95), `idf1` (Ristani et al. 2016) and
        `precision`, `recall`, `f1` of detection, from an overlap of 0.5: all in 0..1. `entity_frames`, `switches` and
        `switches_per_1000` entity-frames; the same three with `_in_contact`, of frames that an entity came to from or into
        contact (`in_contact`), and `_apart`, of the others; rates are None where there are no such frames.
        `floors`: the same figures of what was found with identities drawn anew in each frame (`random_identities`), and
        of nothing found at all (`nothing`).

    Raises:
        ImportError: trackeval is not installed.
        ValueError: there are not as many truths as clips, or one is not as long as its clip.
    """
    lengths = [[len(entities.presence) for entities in side] for side in (truth, found)]
    if lengths[0] != lengths[1]:
        raise ValueError(
            f"each clip needs a truth as long as it is; given truths of {lengths[0]}, clips of {lengths[1]} frames"
        )
    if not any(entities.presence.any() for entities in truth):
        return None
    rng = np.random.default_rng(seed)
    floors = {
        "random_identities": [shuffle_identities(entities, rng) for entities in found],
        "nothing": [nothing_found(entities) for entities in found],
    }
    return _figures(truth, found) | {
        "floors": {name: _figures(truth, floor) for name, floor in floors.items()}
    }


def count_switches(matched: np.ndarray, contact: np.ndarray) -> np.ndarray:
    """Identity switches apart from others and in contact: int `(2,)`.

    A switch is a frame in which an entity is matched to another found one than when it was last matched. It is in contact
    if the entity was so at any time between those two frames, both included: who is who shows only after two have parted.

    Args:
        matched: int `(T, E)`, of `match_frames`. contact: bool `(T, E)`, of `in_contact`.
    """
    switches = np.zeros(2, int)
    for identity, touches in zip(matched.T, contact.T, strict=True):
        seen = np.flatnonzero(identity >= 0)
        for before, now in pairwise(seen):
            if identity[before] != identity[now]:
                switches[int(touches[before : now + 1].any())] += 1
    return switches


def _figures(truth: Sequence[Entities], found: Sequence[Entities]) -> Json:
    right, frames, switches = 0, np.zeros(2, int), np.zeros(2, int)
    for one, two in zip(truth, found, strict=True):
        matched, contact = match_frames(one, two), in_contact(one)
        right += int((matched >= 0).sum())
        stepped = contact | np.concatenate([contact[:1], contact[:-1]])
        frames += np.bincount(stepped[one.presence], minlength=2)
        switches += count_switches(matched, contact)
    given = sum(int(entities.presence.sum()) for entities in found)
    result = _hota_and_idf1(truth, found) | {
        "precision": right / max(given, 1),
        "recall": right / int(frames.sum()),
        "f1": 2 * right / (given + int(frames.sum())),
    }
    for name, kinds in {"": slice(2), "_apart": slice(1), "_in_contact": slice(1, 2)}.items():
        total, count = int(frames[kinds].sum()), int(switches[kinds].sum())
        result |= {
            f"entity_frames{name}": total,
            f"switches{name}": count,
            f"switches_per_1000{name}": 1000 * count / total if total else None,
        }
    return result


def _hota_and_idf1(truth: Sequence[Entities], found: Sequence[Entities]) -> Json:
    try:
        from trackeval.metrics import HOTA, Identity  # late: a second, for who measures no tracking
    except ImportError as error:
        raise ImportError(
            "tracking is measured by the package trackeval: pip install 'flam_rl[tracking]'"
        ) from error
    clips = [_clip(*pair) for pair in zip(truth, found, strict=True)]
    pooled: dict[str, Any] = {}
    for metric in (HOTA(), Identity({"PRINT_CONFIG": False})):
        pooled |= metric.combine_sequences(
            {index: metric.eval_sequence(clip) for index, clip in enumerate(clips)}
        )
    return {name.lower(): float(np.mean(pooled[name])) for name in ("HOTA", "DetA", "AssA", "IDF1")}


def _clip(truth: Entities, found: Entities) -> dict[str, Any]:
    """A clip as trackeval takes it; identities that are never present would be divided by."""
    result: dict[str, Any] = {"num_timesteps": len(truth.presence)}
    boxes = []
    for name, entities in (("gt", truth), ("tracker", found)):
        ever = entities.presence.any(0)
        presence = entities.presence[:, ever]
        boxes.append([box[there] for box, there in zip(entities.box[:, ever], presence, strict=True)])
        result |= {
            f"{name}_ids": [np.flatnonzero(there) for there in presence],
            f"num_{name}_ids": presence.shape[1],
            f"num_{name}_dets": int(presence.sum()),
        }
    result["similarity_scores"] = [box_iou(*pair) for pair in zip(*boxes, strict=True)]
    return result
