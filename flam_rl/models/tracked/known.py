"""Looks that a world knows, found in frames: what has not moved yet is an entity, if it looks like one."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import conv2d, conv_transpose2d, max_pool2d

from .tokens import Token, find_tokens
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
    beside: float = 0.8
    """Two looks are beside each other if their centres are further apart than this share of their radii together."""
    inside: float = 0.6
    """Share of a look that is in the frame at least."""
    entries: int = 9
    """Solid entries that a look has at least: fewer are found everywhere."""


class KnownLooks:
    """Looks as kernels that find them in frames.

    Args:
        looks_M4PP: red, green and blue times alpha, and alpha.
    """

    def __init__(self, looks_M4PP: Float[Tensor, "M 4 P P"], config: MatchConfig = MatchConfig()) -> None:
        self.config = config
        looks = trimmed(looks_M4PP, room=3)
        alpha = looks[:, 3:]
        solid = 1 - _wider((alpha < config.solid).float(), 1)
        kept = solid.sum((1, 2, 3)) >= config.entries
        looks, alpha, solid = looks[kept], alpha[kept], solid[kept]
        color = looks[:, :3] / alpha.clamp_min(1e-6)
        self.mean_M311 = ((color * solid).sum((2, 3)) / solid.sum((2, 3)))[..., None, None]
        covers = (alpha > 0.3).float()
        self.solid_M1PP = solid
        self.ring_M1PP = _wider(covers, 2) - _wider(covers, 1)
        squares = solid * color.square().sum(1, keepdim=True)
        self.off_M5PP = torch.cat([-2 * solid * color, solid, squares], 1)
        self.area_M = solid.sum((1, 2, 3))
        self.radius_M = (covers.sum((1, 2, 3)) / torch.pi).sqrt()

    def matches(self, colors_T3HW: Float[Tensor, "T 3 H W"]) -> Bool[Tensor, "T M Y X"]:
        """At which whole pixels each look is shown; maps are a pixel larger where kernels have an even side."""
        config, pad = self.config, self.pad
        one = torch.ones_like(colors_T3HW[:, :1])
        layers = torch.cat([colors_T3HW, colors_T3HW.square().sum(1, keepdim=True), one], 1)
        area, rim = (conv2d(one, mask, padding=pad) for mask in (self.solid_M1PP, self.ring_M1PP))
        off = conv2d(layers, self.off_M5PP, padding=pad).clamp_min(0) / (3 * area.clamp_min(1))
        other = ((colors_T3HW[:, None] - self.mean_M311).abs().amax(2) > config.apart).float()
        alone = conv2d(other, self.ring_M1PP, padding=pad, groups=len(self.ring_M1PP))
        shown = (off <= config.alike**2) & (alone >= config.alone * rim)
        return shown & (area >= config.inside * self.area_M[:, None, None])

    def find(self, colors_T3HW: Float[Tensor, "T 3 H W"], chunk: int = 16) -> Bool[Tensor, "T H W"]:
        """Where frames show one of the looks, at any whole pixel."""
        found = torch.zeros_like(colors_T3HW[:, 0], dtype=torch.bool)
        if not len(self.area_M):
            return found
        for frames in torch.arange(len(colors_T3HW)).split(chunk):
            matches = self.matches(colors_T3HW[frames]).float()
            found[frames] = conv_transpose2d(matches, self.solid_M1PP, padding=self.pad)[:, 0] > 0.5
        return _wider(found[:, None].float(), self.config.rim)[:, 0] > 0

    def split(self, token: Token, color_3HW: Float[Tensor, "3 H W"]) -> list[Token]:
        """A token that shows looks, as one for each, and what is left of it: what touches from the first frame on is not one thing.

        Larger looks come first, and hide those that overlap them. Each pixel goes to the look whose outline it is nearest to, if that is
        no further than `rim`.
        """
        config = self.config
        if not len(self.area_M) or token.area < 1.5 * torch.pi * float(self.radius_M.min()) ** 2:
            return [token]
        matches = self.matches(color_3HW[None])[0].nonzero()
        radius = self.radius_M[matches[:, 0]]
        shift = 0.5 if self.solid_M1PP.shape[-1] % 2 else 0.0
        places = (matches[:, 1:].float() + shift).cpu().numpy()
        rows, columns = np.indices(token.mask.shape) + 0.5
        kept: list[tuple[float, float, float]] = []
        for index in radius.argsort(descending=True, stable=True).tolist():
            y, x = places[index]
            own = float(radius[index])
            row, column = min(int(y), token.mask.shape[0] - 1), min(int(x), token.mask.shape[1] - 1)
            if token.mask[row, column] and all(
                np.hypot(y - v, x - u) > config.beside * (own + r) for v, u, r in kept
            ):
                kept.append((float(y), float(x), own))
        if not kept:
            return [token]
        outside = np.stack([np.hypot(rows - y, columns - x) - r for y, x, r in kept])
        nearest, beyond = outside.argmin(0), outside.min(0) > config.rim
        pieces = [
            find_tokens(token.mask & (nearest == index) & ~beyond, config.entries)[:1]
            for index in range(len(kept))
        ]
        pieces.append(find_tokens(token.mask & beyond, config.entries))
        return [piece for found in pieces for piece in found] or [token]

    @property
    def pad(self) -> int:
        """Pixels around a frame for looks that it cuts."""
        return self.solid_M1PP.shape[-1] // 2


def _wider(mask_N1HW: Float[Tensor, "N 1 H W"], pixels: int) -> Float[Tensor, "N 1 H W"]:
    """Masks with so many pixels around."""
    return max_pool2d(mask_N1HW, 2 * pixels + 1, 1, pixels)
