"""Looks, learned while their factor is tracked as causal means over frames.

A pixel of a factor shows `p + (1 - a) b`, where `b` is the background, `a` the factor's alpha and `p` its colour
times alpha. With `d` for the pixel minus `b`, this is the line `d = p - a b`. Where `b` changes, the means of `d`,
`b` and their products over the track give the slope of the line; elsewhere alpha is how often the pixel differed from
the background.
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
    """Number of frames that a constant look is the mean of."""
    least: int = 2
    """Least number of frames that a look is the mean of; the number falls with its error, from where that exceeds
    `noise`."""
    noise: float = 0.04
    """Pixels that differ less from the context do not belong to the factor; colours are in 0..1."""
    solid: float = 0.12
    """Pixels that differ by more belong to the factor entirely."""
    wrong: float = 0.05
    """An entry that adds this much capped squared error to a frame is forgotten quickly, because another thing has
    left the look."""
    often: tuple[float, float] = (0.3, 0.7)
    """An entry is empty if it stands out in a smaller share of frames than the first, and solid from the second on."""
    prior: float = 0.03
    """Variance of the background at which it has as much influence on alpha as the guess from standing out."""


# Connected pieces lie within one look, not across looks.
WITHIN = np.stack([np.zeros((3, 3), bool), ndimage.generate_binary_structure(2, 1), np.zeros((3, 3), bool)])

# Means over the track of b (3), d (3), b.b, b.d and how far d stands out; and the number of frames in which an entry
# was seen.
STATISTICS = 10


def first(
    residual_3PP: Float[Tensor, "3 P P"],
    behind_3PP: Float[Tensor, "3 P P"],
    mask_PP: Bool[Tensor, "P P"],
    inside_PP: Bool[Tensor, "P P"],
    config: LookConfig,
) -> Float[Tensor, "10 P P"]:
    """Statistics of a new factor from the crop around its token. `inside_PP`: pixels that are in the frame."""
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
        look: the look that was drawn.
        behind: the background of the look, lifted into the patch.
        residual: frame minus drawing, lifted into the patch. The mean is taken over drawing plus residual, not over
            crops, so that sub-pixel places do not blur it.
        weight: visibility of each entry in the frame, 0 to 1.
        gain: capped squared error that each entry removes from the frame.
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
    """The look that follows from statistics."""
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
    """Where a look may grow: 1 within `pixels` of its solid part, else 0."""
    return (max_pool2d(alpha[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0.3).to(alpha.dtype)


def _stands_out(d: Float[Tensor, "*B 3 P P"], config: LookConfig) -> Float[Tensor, "*B P P"]:
    off = d.abs().amax(-3)
    return ((off - config.noise) / (config.solid - config.noise)).clamp(0, 1)


def smaller_pieces(alpha: Float[Tensor, "N P P"], solid: float = 0.3) -> Bool[Tensor, "N P P"] | None:
    """Entries of looks that belong to any piece but the largest; None if every look is one piece.

    A factor is one thing. If two things were born as one factor, the smaller is removed here, and discovered as a new
    factor.
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
