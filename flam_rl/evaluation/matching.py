"""Which found entity is which true one: overlap of boxes, frame by frame and for a whole clip."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..types import Entities

MATCHES = 0.5
"""Intersection over union from which two boxes are of one entity."""
NEAR = 2.0
"""Pixels between the edges of two entities below which they are in contact."""


def by_identity(values: np.ndarray, identity: np.ndarray, missing: float) -> np.ndarray:
    """Reorder values `(T, n, ...)` of n places, which entities hold in turn, by entity: `(T, E, ...)`, one e for a
    whole clip.

    Truth becomes an `Entities` this way: presence (missing: False), box (NaN), mask (0) and, beside it, actions (-1).

    Args:
        identity: int `(T, n)`, -1 where a place is empty; each of the E other values gets an e, in ascending order.
        missing: the value of an entity while it holds no place.
    """
    names = np.unique(identity[identity >= 0])
    result = np.full((len(values), len(names), *values.shape[2:]), missing, values.dtype)
    frame, place = np.nonzero(identity >= 0)
    result[frame, np.searchsorted(names, identity[frame, place])] = values[frame, place]
    return result


def box_iou(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `(..., E, 4)` with boxes `(..., K, 4)`: float `(..., E, K)`, 0 of what is absent."""
    one, two = (box.astype(np.float64) for box in (one[..., :, None, :], two[..., None, :, :]))
    low, high = np.maximum(one[..., :2], two[..., :2]), np.minimum(one[..., 2:], two[..., 2:])
    both = (high - low).clip(0).prod(-1)
    either = sum((box[..., 2:] - box[..., :2]).prod(-1) for box in (one, two)) - both
    return np.nan_to_num(both / either)


def in_contact(entities: Entities) -> np.ndarray:
    """Which entities are in contact: bool `(T, K)`, True where another centre is nearer than the sum of both radii
    and `NEAR` pixels.

    The radius is a quarter of the box's width and height together: exact for a disc.
    """
    low, high = entities.box[..., :2], entities.box[..., 2:]
    centre, radius = (low + high) / 2, (high - low).sum(-1) / 4
    apart = np.linalg.norm(centre[:, :, None] - centre[:, None], axis=-1)
    touch = (
        apart < radius[:, :, None] + radius[:, None] + NEAR
    )  # the NaN of an absent entity compares as not near
    touch[:, np.arange(touch.shape[1]), np.arange(touch.shape[1])] = False
    return touch.any(-1)


def match_frames(truth: Entities, found: Entities) -> np.ndarray:
    """The found entity that each true one is matched to in each frame: int `(T, E)`, -1 where there is none.

    As in CLEAR MOT (Bernardin and Stiefelhagen 2008): boxes that overlap by `MATCHES` or more may match; matches of
    the last frame that had entities on both sides are kept where they can be, then overlap is largest.
    """
    overlap = box_iou(truth.box, found.box)
    matched = np.full(truth.presence.shape, -1)
    last = np.full(overlap.shape[1], -1)
    for t in np.flatnonzero(truth.presence.any(1) & found.presence.any(1)):
        kept = np.arange(overlap.shape[2]) == last[:, None]
        score = np.where(overlap[t] >= MATCHES - np.finfo(float).eps, overlap[t] + 1000 * kept, 0)
        rows, columns = linear_sum_assignment(score, maximize=True)
        matches = score[rows, columns] > 0
        matched[t, rows[matches]] = columns[matches]
        last = matched[t]
    return matched


def match_clip(truth: Entities, found: Entities) -> np.ndarray:
    """The found entity that overlaps most with each true one over a whole clip, one to one: int `(E,)`, -1 for none."""
    overlap = box_iou(truth.box, found.box).sum(0)
    matched = np.full(len(overlap), -1)
    rows, columns = linear_sum_assignment(overlap, maximize=True)
    matches = overlap[rows, columns] > 0
    matched[rows[matches]] = columns[matches]
    return matched


def shuffle_identities(entities: Entities, rng: np.random.Generator) -> Entities:
    """The same entities with identities drawn anew in each frame: the floor of tracking, detection without tracking."""
    order = rng.permuted(np.tile(np.arange(entities.presence.shape[1]), (len(entities.presence), 1)), axis=1)
    rows = np.arange(len(order))[:, None]
    mask = None if entities.mask is None else entities.mask[rows, order]
    return Entities(entities.presence[rows, order], entities.box[rows, order], mask)


def nothing_found(entities: Entities) -> Entities:
    """The same number of entities, none of them ever present."""
    mask = None if entities.mask is None else np.zeros_like(entities.mask)
    return Entities(np.zeros_like(entities.presence), np.full_like(entities.box, np.nan), mask)
