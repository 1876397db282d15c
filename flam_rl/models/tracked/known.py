"""Looks that a world knows, found in frames: what has not moved yet is an entity, if it looks like one."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from .windows import trimmed


@dataclass(frozen=True)
class MatchConfig:
    """When a place of a frame shows a look."""

    solid: float = 0.8
    """Entries of at least this alpha are compared, but for the outermost, which a fraction of a pixel changes."""
    rim: int = 2
    """Pixels around what is compared that belong to the look as well."""
    alike: float = 0.06
    """Root of the mean squared difference of colours in 0..1, over what is solid, up to which a place shows a look."""
    apart: float = 0.12
    """A pixel is none of a look if a channel is off from its mean colour by more."""
    alone: float = 0.6
    """Share of the pixels around a look that are none of it, from which on it is not a piece of something larger."""
    inside: float = 0.6
    """Share of a look that is in the frame at least."""
    entries: int = 9
    """Solid entries that a look has at least: fewer are found everywhere."""


def find_known(
    colors_T3HW: Float[Tensor, "T 3 H W"],
    looks_M4PP: Float[Tensor, "M 4 P P"],
    config: MatchConfig = MatchConfig(),
    chunk: int = 16,
) -> Bool[Tensor, "T H W"]:
    """Where frames show one of some looks, at any whole pixel.

    Args:
        looks_M4PP: red, green and blue times alpha, and alpha.
    """
    found = torch.zeros_like(colors_T3HW[:, 0], dtype=torch.bool)
    looks = trimmed(looks_M4PP, room=3)
    alpha = looks[:, 3:]
    solid = 1 - _wider((alpha < config.solid).float(), 1)
    there = solid.sum((1, 2, 3)) >= config.entries
    if not bool(there.any()):
        return found
    looks, alpha, solid = looks[there], alpha[there], solid[there]
    color = looks[:, :3] / alpha.clamp_min(1e-6)
    mean = ((color * solid).sum((2, 3)) / solid.sum((2, 3)))[..., None, None]
    covers = (alpha > 0.3).float()
    ring = _wider(covers, 2) - _wider(covers, 1)
    kernel = torch.cat([-2 * solid * color, solid, solid * color.square().sum(1, keepdim=True)], 1)
    pad = looks.shape[-1] // 2
    for frames in torch.arange(len(colors_T3HW)).split(chunk):
        shown = colors_T3HW[frames]
        one = torch.ones_like(shown[:, :1])
        layers = torch.cat([shown, shown.square().sum(1, keepdim=True), one], 1)
        area, rim = (conv2d(one, mask, padding=pad) for mask in (solid, ring))
        off = conv2d(layers, kernel, padding=pad).clamp_min(0) / (3 * area.clamp_min(1))
        other = ((shown[:, None] - mean).abs().amax(2) > config.apart).float()
        alone = conv2d(other, ring, padding=pad, groups=len(ring))
        matches = (off <= config.alike**2) & (alone >= config.alone * rim)
        matches &= area >= config.inside * solid.sum((1, 2, 3))[:, None, None]
        found[frames] = conv_transpose2d(matches.float(), solid, padding=pad)[:, 0] > 0.5
    return _wider(found[:, None].float(), config.rim)[:, 0] > 0


def _wider(mask_N1HW: Float[Tensor, "N 1 H W"], pixels: int) -> Float[Tensor, "N 1 H W"]:
    """Masks with so many pixels around."""
    return max_pool2d(mask_N1HW, 2 * pixels + 1, 1, pixels)
