"""What seeds say together: interquartile means, with their intervals."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Sequence

import numpy as np
from scipy.stats import bootstrap, trim_mean

from ..types import Json

Estimate = tuple[float, float, float]
"""Interquartile mean over seeds and the ends of its 95% bootstrap interval."""


def interquartile_mean(values: Sequence[float] | np.ndarray) -> Estimate:
    """Mean of the middle half over seeds and its 95% percentile-bootstrap interval (Agarwal et al. 2021)."""
    found = np.asarray(values, float)
    if not len(found):
        return math.nan, math.nan, math.nan
    middle = float(_iqm(found))
    if len(found) < 2 or np.ptp(found) == 0:
        return middle, middle, middle
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        drawn = bootstrap(
            (found,), _iqm, method="percentile", n_resamples=2000, rng=np.random.default_rng(0)
        ).confidence_interval
    return middle, float(drawn.low), float(drawn.high)


def _iqm(values: np.ndarray, axis: int = -1) -> np.ndarray:
    return trim_mean(values, 0.25, axis=axis)


def over_seeds(cells: list[Json], of: Callable[[Json], float | None], **where: object) -> Estimate:
    """The estimate of what `of` says of the cells whose entries are `where`; those of which it says None are left out."""
    chosen = (cell for cell in cells if all(cell[key] == value for key, value in where.items()))
    return interquartile_mean([value for value in map(of, chosen) if value is not None])


def estimate_text(estimate: Estimate, digits: int) -> str:
    """As tables show it: `1.0 [0.5, 1.5]`, without the interval if it is empty, `-` if there is nothing."""
    middle, low, high = estimate
    if math.isnan(middle):
        return "-"
    if low == high:
        return f"{middle:.{digits}f}"
    return f"{middle:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"
