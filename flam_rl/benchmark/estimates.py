"""Estimates over seeds: interquartile means, with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from rliable.library import get_interval_estimates

from ..types import Json

Estimate = tuple[float, float, float]
"""Interquartile mean over seeds and the ends of its 95% bootstrap interval."""
Reader = Callable[[Json], float | None]
"""Reads a figure from a cell; None if the cell has none."""
RESAMPLES = 1000


def interquartile_means(groups: Sequence[Sequence[float]]) -> list[Estimate]:
    """The mean of the middle half of each group, what its seeds gave, and its 95% percentile-bootstrap interval
    (Agarwal et al. 2021); NaN for an empty group. Groups of as many seeds are drawn from together: many cost as much as one."""
    found = [np.asarray(values, float) for values in groups]
    estimates = [(math.nan, math.nan, math.nan)] * len(found)
    for seeds in sorted({len(values) for values in found} - {0}):
        chosen = [index for index, values in enumerate(found) if len(values) == seeds]
        scores = np.stack([found[index] for index in chosen], 1)
        with _own_generator():
            middle, ends = get_interval_estimates({"": scores}, _of_each, reps=RESAMPLES)
        for index, *estimate in zip(chosen, middle[""], *ends[""], strict=True):
            estimates[index] = float(estimate[0]), float(estimate[1]), float(estimate[2])
    return estimates


def interquartile_mean(values: Sequence[float]) -> Estimate:
    """`interquartile_means` of one group."""
    return interquartile_means([values])[0]


def over_seeds(cells: Sequence[Json], asked: Sequence[tuple[Reader, Json]]) -> list[Estimate]:
    """For each pair asked, a figure and the entries of the cells that are meant, the estimate over those cells.

    Cells of which the figure is None are left out.
    """
    return interquartile_means(
        [
            [
                value
                for cell in cells
                if all(cell[key] == entry for key, entry in where.items())
                and (value := read(cell)) is not None
            ]
            for read, where in asked
        ]
    )


def estimate_text(estimate: Estimate, digits: int) -> str:
    """As tables show it: `1.0 [0.5, 1.5]`, without the interval if it is empty, `-` if there is nothing."""
    middle, low, high = estimate
    if math.isnan(middle):
        return "-"
    if low == high:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def _of_each(scores: np.ndarray) -> np.ndarray:
    """rliable's `aggregate_iqm` of each column of scores `(seeds, groups)`, all at once.

    scipy's `trim_mean` does the same, but checks its arguments for milliseconds, thousands of times a report.
    """
    cut = len(scores) // 4
    means: np.ndarray = np.partition(scores, (cut, len(scores) - cut - 1), 0)[cut : len(scores) - cut].mean(0)
    return means


@contextmanager
def _own_generator() -> Iterator[None]:
    """rliable draws from numpy's global generator: inside of this context it starts at 0, and afterwards it goes on as if nothing had been drawn."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002
