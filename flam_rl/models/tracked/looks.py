"""Looks that are learned while their factor is tracked: a causal mean of what the frames showed of it.

A pixel of a factor shows `p + (1 - a) b`, where `b` is what lies behind it, `a` its alpha and `p` its colour times alpha. With
`d` for the pixel minus `b` that is the line `d = p - a b`. Means of `d`, `b` and their products over the track give its slope
where `b` changes; where it does not, alpha is what stood out of the context.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import max_pool2d


@dataclass(frozen=True)
class LookConfig:
    memory: int = 16
    """Frames that a look is the mean of."""
    noise: float = 0.04
    """What differs by less from the context is none of the factor; colours are in 0..1."""
    solid: float = 0.12
    """What differs by more is of it wholly."""
    prior: float = 0.03
    """How much variance of the context is needed before it decides on alpha."""


# Means over the track of b (3), d (3), b.b, b.d and d.d, one map each, and how many frames each entry has been seen in.
STATISTICS = 10


def first(
    residual_3PP: Float[Tensor, "3 P P"],
    behind_3PP: Float[Tensor, "3 P P"],
    mask_PP: Bool[Tensor, "P P"],
    inside_PP: Bool[Tensor, "P P"],
) -> Float[Tensor, "10 P P"]:
    """Statistics of a factor that is born from a token, whose crop these are. `inside`: pixels that are in the frame."""
    d = residual_3PP * mask_PP
    products = [behind_3PP.square().sum(0), (behind_3PP * d).sum(0), d.square().sum(0)]
    return torch.cat([behind_3PP, d, torch.stack([*products, inside_PP.to(d.dtype)])])


def learn(
    statistics: Float[Tensor, "*B 10 P P"],
    look: Float[Tensor, "*B 4 P P"],
    behind: Float[Tensor, "*B 3 P P"],
    residual: Float[Tensor, "*B 3 P P"],
    weight: Float[Tensor, "*B P P"],
    config: LookConfig,
) -> Float[Tensor, "*B 10 P P"]:
    """Statistics with one more frame.

    Args:
        look: as it was drawn.
        behind: what lay behind it, lifted into the patch.
        residual: frame minus drawing, lifted into the patch. As the mean is over what was drawn plus what was missing, not
            over crops, it does not blur with sub-pixel places: it is the look that draws best.
        weight: in 0..1, how far the frame shows each entry.
    """
    d = look[..., :3, :, :] - look[..., 3:, :, :] * behind + residual
    products = [behind.square().sum(-3), (behind * d).sum(-3), d.square().sum(-3)]
    now = torch.cat([behind, d, torch.stack(products, -3)], -3)
    seen = statistics[..., -1, :, :] + weight
    rate = (weight / seen.clamp(1e-6, config.memory))[..., None, :, :]
    means = statistics[..., :-1, :, :]
    return torch.cat([means + rate * (now - means), seen[..., None, :, :]], -3)


def look_of(statistics: Float[Tensor, "*B 10 P P"], config: LookConfig) -> Float[Tensor, "*B 4 P P"]:
    """The look that statistics tell."""
    b, d = statistics[..., :3, :, :], statistics[..., 3:6, :, :]
    bb, bd, dd, seen = statistics[..., 6:, :, :].unbind(-3)
    stands_out = dd.clamp_min(0).sqrt()
    guess = ((stands_out - config.noise) / (config.solid - config.noise)).clamp(0, 1) * (seen > 0)
    variance = (bb - b.square().sum(-3)).clamp_min(0)
    covariance = bd - (b * d).sum(-3)
    prior = config.prior / seen.clamp(1, config.memory)
    alpha = ((prior * guess - covariance) / (prior + variance)).clamp(0, 1) * (guess > 0)
    color = torch.minimum((d + alpha[..., None, :, :] * b).clamp_min(0), alpha[..., None, :, :])
    return torch.cat([color, alpha[..., None, :, :]], -3)


def reach(alpha: Float[Tensor, "B K P P"], pixels: int = 2) -> Float[Tensor, "B K P P"]:
    """Where a look may grow: 1 within so many pixels of its solid part, else 0."""
    return (max_pool2d(alpha, 2 * pixels + 1, 1, pixels) > 0.3).to(alpha.dtype)
