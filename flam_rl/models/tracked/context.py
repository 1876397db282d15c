"""The context: what no factor moves, found from the frames of an episode by expectation and maximisation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d

from .tokens import differs


@dataclass(frozen=True)
class ContextConfig:
    rounds: int = 2
    """How often what moves is masked and the context taken again."""
    frames: int = 96
    """Frames of an episode that it is taken from, evenly spread."""
    apart: int = 8
    """A pixel that looked the same so many frames before or after does not move."""


def find_context(
    frames_T3HW: Float[Tensor, "T 3 H W"], config: ContextConfig = ContextConfig(), threshold: float = 0.1
) -> Float[Tensor, "3 H W"]:
    """The context of an episode: the median over time of what is no entity. Give past frames only to know only the past.

    What differs from the median and changes is masked, and the median taken again, so that what stands over a place
    for less than about two thirds of the time leaves no ghost.
    """
    every = max(1, -(-len(frames_T3HW) // config.frames))
    some = frames_T3HW[::every]
    context = masked_median(some, torch.ones_like(some[:, 0], dtype=torch.bool))
    apart = max(1, config.apart // every)
    changes = torch.zeros_like(some[:, 0], dtype=torch.bool)
    if len(some) > apart:
        apart_TT = differs(some[apart:] - some[:-apart], threshold)
        changes[apart:] = apart_TT
        changes[:-apart] |= apart_TT
    for _ in range(config.rounds):
        moving = differs(some - context, threshold) & changes
        wide = max_pool2d(moving[:, None].float(), 3, 1, 1)[:, 0] > 0
        context = masked_median(some, ~wide)
    return context


def masked_median(
    frames_T3HW: Float[Tensor, "T 3 H W"], valid_THW: Bool[Tensor, "T H W"]
) -> Float[Tensor, "3 H W"]:
    """The lower median over time of the valid pixels; of all where a pixel is never valid."""
    valid = valid_THW | ~valid_THW.any(0)
    ranked = frames_T3HW.masked_fill(~valid[:, None], torch.inf).sort(0).values
    middle = ((valid.sum(0) - 1) // 2).expand_as(ranked[0])
    return ranked.gather(0, middle[None])[0]
