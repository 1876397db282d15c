"""The recorded truth of a task's entities, in the form that measures take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields

import numpy as np

from ..types import Entities, Truth
from .matching import by_identity

NOTHING, LEFT, RIGHT, WALKED = range(4)
CELL = 8
"""Pixels per cell, for data sets that record cells only."""


def truths_of(
    records: Sequence[Mapping[str, np.ndarray]] | None, cell: int = CELL
) -> tuple[Truth, ...] | None:
    """The truth of each episode from the records of a task or a data set; None where nothing was recorded.

    Args:
        records: one for each episode, arrays by name: fields of `Truth`; or cells of a grid, `position` `(T, n, 2)` with
            `direction` `(T, n)`, the heading; such entities are always present.
        cell: side of a cell in pixels.
    """
    if not records or not all(records):
        return None
    return tuple(_truth_of(episode, cell) for episode in records)


def _truth_of(record: Mapping[str, np.ndarray], cell: int) -> Truth:
    known = {field.name: record[field.name] for field in fields(Truth) if field.name in record}
    if "direction" in record:
        known["heading"] = record["direction"]
    if "position" in record and "box" not in known:
        corner = cell * record["position"].astype(np.float32)
        there = np.ones(corner.shape[:2], bool)
        known |= {
            "identity": np.tile(np.arange(corner.shape[1]), (len(corner), 1)),
            "presence": there,
            "box": np.concatenate([corner, corner + cell], -1),
            "centre": corner + cell / 2,
        }
    return Truth(**known)


def true_entities(truth: Truth, size: tuple[int, int], masks: bool = False) -> Entities | None:
    """The truth of an episode as entities, one for each identity; None where it has no identities or boxes.

    Args:
        size: height and width of the frames, to which boxes are clipped.
        masks: whether to add masks: those of the truth, else discs where it has radii, else whole boxes.
    """
    if truth.identity is None or truth.presence is None or truth.box is None:
        return None
    height, width = size
    box = truth.box.astype(np.float64).clip(0, [width, height, width, height])
    there = truth.presence & (box[..., 2:] > box[..., :2]).all(-1)
    identity = np.where(there, truth.identity, -1)
    box = np.where(there[..., None], box, np.nan)
    mask = by_identity(_masks(truth, box, size), identity, 0) if masks else None
    return Entities(by_identity(there, identity, False), by_identity(box, identity, np.nan), mask)


def _masks(truth: Truth, box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Bool or float `(T, n, H, W)`."""
    if truth.mask is not None:
        return truth.mask
    if truth.centre is None or truth.radius is None:
        return boxes_filled(box, size)
    x, y, radius = (part[..., None] for part in (truth.centre[..., 0], truth.centre[..., 1], truth.radius))
    row, column = (np.arange(count) + 0.5 for count in size)
    far = np.square(row - y)[..., :, None] + np.square(column - x)[..., None, :]
    return far < np.square(radius)[..., None]  # a NaN radius contains no pixel


def boxes_filled(box: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Which pixels of frames of height and width `size` are in boxes `(T, n, 4)`: bool `(T, n, H, W)`."""
    x0, y0, x1, y1 = np.moveaxis(box, -1, 0)[..., None]
    row, column = (np.arange(count) + 0.5 for count in size)
    inside_y, inside_x = (row >= y0) & (row < y1), (column >= x0) & (column < x1)  # none inside of NaN
    return inside_y[..., :, None] & inside_x[..., None, :]


def effective_actions(place: np.ndarray, heading: np.ndarray) -> np.ndarray:
    """The effects of entities' actions: 0 nothing, 1 turned left, 2 turned right, 3 walked.

    Args:
        place: `(T + 1, entities, 2)`, in cells or pixels. heading: int `(T + 1, entities)` in 0..3, clockwise.

    Returns:
        int `(T, entities)`; an action without an effect, such as walking into a wall, counts as nothing.
    """
    walked = (place[1:] != place[:-1]).any(-1)
    turned = (heading[1:] - heading[:-1]) % 4
    return np.select([walked, turned == 3, turned == 1], [WALKED, LEFT, RIGHT], NOTHING)


def chosen_actions(truth: Truth) -> np.ndarray | None:
    """The action that each row's entity chose before each frame after the first: int `(T - 1, n)`, -1 where it is
    unknown or contact decided the motion.

    Where truth has headings, actions are given by their effects, because the choice of an action without an effect
    cannot be seen.

    Returns:
        None where truth has no actions.
    """
    if truth.heading is not None and truth.centre is not None:
        return effective_actions(truth.centre, truth.heading)
    if truth.action is None:
        return None
    chosen = truth.action[1:]
    return chosen if truth.contact is None else np.where(truth.contact[1:], -1, chosen)
