"""Whether factors keep their entities: HOTA, IDF1 and identity switches, the measures of multi-object tracking."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..types import Entities, Json, Truth
from .encoded import Encoded, left_out
from .matching import MATCHES, box_iou, in_contact, match_frames, nothing_found, shuffle_identities
from .truth import true_entities

OVERLAPS = np.arange(1, 20) / 20
"""Least overlaps for boxes to match: HOTA is a mean over these."""
EPSILON = np.finfo(float).eps


def measure(encoded: Encoded, truth: Sequence[Truth] | None, seed: int = 0) -> Json | None:
    """Apply `evaluate_tracking` to the entities that the world finds; None where truth has no boxes, or the world has
    no entities."""
    true = [true_entities(one, encoded.world.frame_size) for one in truth or ()]
    if truth is None or None in true:
        left_out("tracking", "there is no truth of who is where")
        return None
    if encoded.world.factors == 1:
        left_out("tracking", "the world draws the scene as one factor")
        return None
    found = evaluate_tracking([one for one in true if one is not None], encoded.entities, seed)
    if found is None:
        left_out("tracking", "no entity is ever there")
    return found


def evaluate_tracking(truth: Sequence[Entities], found: Sequence[Entities], seed: int = 0) -> Json | None:
    """Tracking of many clips, matched by boxes, counts pooled over the clips; None where truth shows no entity.

    Args:
        truth, found: one pair for each clip, equally long; the numbers E of true and K of found entities may differ.
        seed: of the floor with random identities.

    Returns:
        `hota`, `deta`, `assa` (Luiten et al. 2021: means over the overlaps 0.05 to 0.95), `idf1` (Ristani et al. 2016) and
        `precision`, `recall`, `f1` of detection, from an overlap of 0.5: all in 0..1. `entity_frames`, `switches` and
        `switches_per_1000` entity-frames; the same three with `_in_contact`, over frames in which an entity is in
        contact or has just been (`in_contact`), and with `_apart`, over the others; rates are None where there are no
        such frames. `floors`: the same figures for the found boxes with identities drawn anew in each frame
        (`random_identities`), and for no boxes at all (`nothing`).

    Raises:
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
    """Count identity switches, first those of entities apart from others, then those in contact: int `(2,)`.

    A switch is a frame in which an entity is matched to another found entity than at its last match. It counts as in
    contact if the entity was in contact in any frame between the two matches, both included, because identities
    become clear only after two entities have parted.

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
    true_pairs, kept, right = np.zeros(len(OVERLAPS)), np.zeros(len(OVERLAPS)), 0
    for one, two in zip(truth, found, strict=True):
        overlap = box_iou(one.box, two.box)
        frames = one.presence.sum(0)[:, None] + two.presence.sum(
            0
        )  # frames of the one plus frames of the other
        matches = _matches(one, two, overlap, frames)
        true_pairs += matches.sum((1, 2))
        kept += (matches**2 / np.maximum(1, frames - matches)).sum((1, 2))
        shared = (overlap >= MATCHES).sum(0)
        right += int(shared[linear_sum_assignment(shared, maximize=True)].sum())
    boxes = sum(int(entities.presence.sum()) for entities in (*truth, *found))
    deta, assa = true_pairs / (boxes - true_pairs), kept / np.maximum(1, true_pairs)
    means = {"hota": np.sqrt(deta * assa), "deta": deta, "assa": assa}
    return {name: float(values.mean()) for name, values in means.items()} | {"idf1": 2 * right / boxes}


def _matches(truth: Entities, found: Entities, overlap: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """In how many frames each pair is matched, at each of `OVERLAPS`: `(19, E, K)`.

    Within a frame the matching maximises overlap, weighted by how well the two entities agree over the whole clip.

    Args:
        overlap: `(T, E, K)`. frames: `(E, K)`, frames with the one entity plus frames with the other.
    """
    beside = overlap.sum(1, keepdims=True) + overlap.sum(2, keepdims=True) - overlap
    shared = np.divide(overlap, beside, out=np.zeros_like(overlap), where=beside > 0).sum(0)
    agree = shared / np.maximum(frames - shared, EPSILON)
    matches = np.zeros((len(OVERLAPS), *agree.shape))
    for t in np.flatnonzero(truth.presence.any(1) & found.presence.any(1)):
        there = np.ix_(truth.presence[t], found.presence[t])
        rows, columns = linear_sum_assignment((agree * overlap[t])[there], maximize=True)
        e, k = np.flatnonzero(truth.presence[t])[rows], np.flatnonzero(found.presence[t])[columns]
        matches[:, e, k] += overlap[t, e, k] >= OVERLAPS[:, None] - EPSILON
    return matches
