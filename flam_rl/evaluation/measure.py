"""All measures of a world on held-out video, each a file with `measure(encoded, truth)`."""

from __future__ import annotations

from ..types import Json
from . import (
    correspondence,
    disentanglement,
    foreground,
    intervention,
    perceptual,
    prediction,
    segmentation,
    tokens,
    tracking,
    transfer,
    validity,
)
from .encoded import Encoded
from .perceptual import FVD, LPIPS


def measure_world(
    encoded: Encoded,
    task: object,
    seed: int,
    probe_iterations: int = 40,
    lpips: LPIPS | None = None,
    fvd: FVD | None = None,
) -> Json:
    """Apply all measures; a measure that lacks something it needs is None, and the log says why.

    Args:
        encoded: with truth, if the task gives it.
        task: the real task, without wrappers; some measures use its tiles, if it has them.
        seed: of random draws; probes and floors have fixed seeds of their own, so that results can be compared.
        probe_iterations: boosting rounds of the probes.
    """
    truth = encoded.truth
    correspond = correspondence.measure(encoded, truth, iterations=probe_iterations)
    found = dict(correspond or {})
    matrix = found.pop("matrix", None)
    return {
        "seed": seed,
        "frames": sum(len(frames) for frames in encoded.frames),
        **prediction.measure(encoded, truth),
        **(tokens.measure(encoded, truth) or dict.fromkeys(tokens.FIGURES)),
        **perceptual.measure(encoded, truth, lpips, fvd),
        "foreground": foreground.measure(encoded, truth),
        "dci": found or None,
        "correspondence": matrix,
        "disentanglement": disentanglement.measure(encoded, truth, probe_iterations),
        "intervention": intervention.measure(encoded, truth, seed),
        "masks": segmentation.measure(encoded, truth),
        "tracking": tracking.measure(encoded, truth),
        "transfer": transfer.measure(encoded, truth, task, seed),
        "imagination_validity": validity.measure(encoded, truth, task, seed),
    }
