"""Looks that are learned while their factor is tracked: a causal mean of what the frames showed of it.

A pixel of a factor shows `p + (1 - a) b`, where `b` is what lies behind it, `a` its alpha and `p` its colour times alpha. With
`d` for the pixel minus `b` that is the line `d = p - a b`. Means of `d`, `b` and their products over the track give its slope
where `b` changes; where it does not, alpha is what stood out of the context.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from scipy import ndimage
from torch import Tensor
from torch.nn.functional import max_pool2d


@dataclass(frozen=True)
class LookConfig:
    """Settings of the learning of looks."""

    memory: int = 16
    """Frames that a look is the mean of, where it stays the same."""
    least: int = 2
    """Frames that it is the mean of at least, where it changes: as many fewer as it is off by more than `noise`."""
    noise: float = 0.04
    """What differs by less from the context is none of the factor; colours are in 0..1."""
    solid: float = 0.12
    """What differs by more is of it wholly."""
    wrong: float = 0.05
    """An entry that adds so much capped squared error to a frame is soon forgotten: another thing has left the look."""
    often: tuple[float, float] = (0.3, 0.7)
    """An entry that stands out in fewer frames than the first share is empty, in more than the second it is solid."""
    prior: float = 0.03
    """How much variance of the context is needed before it decides on alpha."""


# Entries of one look touch; those of looks that lie one after the other do not.
WITHIN = np.stack([np.zeros((3, 3), bool), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3), bool)])

# Means over the track of b (3), d (3), b.b, b.d and how far d stands out, and in how many frames each entry has been seen.
STATISTICS = 10


def first(
    residual_3PP: Float[Tensor, "3 P P"],
    behind_3PP: Float[Tensor, "3 P P"],
    mask_PP: Bool[Tensor, "P P"],
    inside_PP: Bool[Tensor, "P P"],
    config: LookConfig,
) -> Float[Tensor, "10 P P"]:
    """Statistics of a factor that is born from a token, whose crop these are. `inside`: pixels that are in the frame."""
    d = residual_3PP * mask_PP
    products = [behind_3PP.square().sum(0), (behind_3PP * d).sum(0), _stands_out(d, config)]
    return torch.cat([behind_3PP, d, torch.stack([*products, inside_PP.to(d.dtype)])])


def learn(
    statistics: Float[Tensor, "*B 10 P P"],
    look: Float[Tensor, "*B 4 P P"],
    behind: Float[Tensor, "*B 3 P P"],
    residual: Float[Tensor, "*B 3 P P"],
    weight: Float[Tensor, "*B P P"],
    gain: Float[Tensor, "*B P P"],
    config: LookConfig,
) -> Float[Tensor, "*B 10 P P"]:
    """Statistics with one more frame.

    Args:
        look: as it was drawn.
        behind: what lay behind it, lifted into the patch.
        residual: frame minus drawing, lifted into the patch. As the mean is over what was drawn plus what was missing, not
            over crops, it does not blur with sub-pixel places: it is the look that draws best.
        weight: in 0..1, how far the frame shows each entry.
        gain: capped squared error that drawing each entry took from the frame.
    """
    d = look[..., :3, :, :] - look[..., 3:, :, :] * behind + residual
    products = [behind.square().sum(-3), (behind * d).sum(-3), _stands_out(d, config)]
    now = torch.cat([behind, d, torch.stack(products, -3)], -3)
    seen = statistics[..., -1, :, :] + weight
    off = residual.abs().amax(-3).clamp_min(config.noise)
    memory = (config.memory * config.noise / off).clamp_min(config.least)
    rate = weight / seen.clamp_min(1e-6).minimum(memory)
    rate = torch.where(gain < -config.wrong, rate.maximum(weight / 2), rate)[..., None, :, :]
    means = statistics[..., :-1, :, :]
    return torch.cat([means + rate * (now - means), seen[..., None, :, :]], -3)


def look_of(statistics: Float[Tensor, "*B 10 P P"], config: LookConfig) -> Float[Tensor, "*B 4 P P"]:
    """The look that statistics tell."""
    b, d = statistics[..., :3, :, :], statistics[..., 3:6, :, :]
    bb, bd, out, seen = statistics[..., 6:, :, :].unbind(-3)
    seldom, often = config.often
    guess = ((out - seldom) / (often - seldom)).clamp(0, 1) * (seen > 0)
    variance = (bb - b.square().sum(-3)).clamp_min(0)
    covariance = bd - (b * d).sum(-3)
    prior = config.prior / seen.clamp(1, config.memory)
    alpha = ((prior * guess - covariance) / (prior + variance)).clamp(0, 1) * (guess > 0)
    color = torch.minimum((d + alpha[..., None, :, :] * b).clamp_min(0), alpha[..., None, :, :])
    return torch.cat([color, alpha[..., None, :, :]], -3)


def reach(alpha: Float[Tensor, "N P P"], pixels: int) -> Float[Tensor, "N P P"]:
    """Where a look may grow: 1 within so many pixels of its solid part, else 0."""
    return (max_pool2d(alpha[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0.3).to(alpha.dtype)


def _stands_out(d: Float[Tensor, "*B 3 P P"], config: LookConfig) -> Float[Tensor, "*B P P"]:
    off = d.abs().amax(-3)
    return ((off - config.noise) / (config.solid - config.noise)).clamp(0, 1)


def smaller_pieces(alpha: Float[Tensor, "N P P"], solid: float = 0.3) -> Bool[Tensor, "N P P"] | None:
    """What of looks hangs together with a smaller piece than the largest; None if every look is one piece.

    A factor is one thing: two that were born as one come apart here, and the smaller is discovered anew.
    """
    maps = (alpha > solid).cpu().numpy()
    labels, count = ndimage.label(maps, WITHIN)
    several = labels.reshape(len(maps), -1)
    fewest = np.where(several > 0, several, count + 1).min(1)
    rest = np.zeros_like(maps)
    for n in (several.max(1) > fewest).nonzero()[0]:
        areas = np.bincount(several[n])
        areas[0] = 0
        rest[n] = ndimage.binary_dilation((labels[n] > 0) & (labels[n] != areas.argmax())) & (
            labels[n] != areas.argmax()
        )
    return torch.as_tensor(rest, device=alpha.device) if rest.any() else None
