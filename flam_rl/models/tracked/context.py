"""The context: what no factor moves, found from the frames of an episode."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, max_pool2d

from .tokens import filled, find_tokens


@dataclass(frozen=True)
class ContextConfig:
    """Settings of the search for the context."""

    rounds: int = 3
    """How often what the tracks cover is masked and the context taken again, at most."""
    moved: float = 1.5
    """Tracks that moved by fewer pixels are not masked: they may be ghosts of the context itself."""
    still: tuple[int, float] = (8, 0.5)
    """Where the camera moves, what was seen in so many frames and in nine of ten of them stayed within so many pixels of the ground
    is a piece of the ground: it has sharper edges than the mosaic."""
    frames: int = 48
    """Frames of an episode that it is taken from, evenly spread."""
    alike: float = 0.06
    """A pixel looks the same in two frames if no channel is off by more; colours are in 0..1."""
    around: int = 11
    """Height and width of the place around a pixel in which nothing changes where the context shows, in pixels."""
    restless: float = 0.2
    """What a sighting counts, of 1, where something changes around it."""
    area: int = 8
    """Pixels of what the context has wrong at least."""
    growth: int = 8
    """Pixels by which masks of what moves grow to where the frame has an edge."""
    sightings: float = 0.1
    """Share of the frames in which no entity is at a place below which these are not trusted: it may be an entity that was missed."""
    continues: float = 0.1
    """What a colour that continues the context may be off from what lies around."""
    votes: int = 2
    """How often what differs from the context is masked and the context taken again, before anything is tracked."""
    ghost: tuple[float, float] = (1.3, 2.0)
    """A difference is the context's fault if its outline is so many times as strong an edge there as in the frame; the second is
    for pieces of one."""

    def every(self, length: int) -> int:
        """Of so many frames, how many apart are those that it is taken from."""
        return max(1, -(-length // self.frames))


def find_context(
    frames_T3HW: Float[Tensor, "T 3 H W"],
    valid_THW: Bool[Tensor, "T H W"] | None = None,
    config: ContextConfig = ContextConfig(),
    seen_THW: Bool[Tensor, "T H W"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """The context of an episode: for each pixel the colour seen most often while all around it was still.

    A slow entity may cover a place for most of the time, but its edges move; what lies under it is seen when it is away.
    Give past frames only to know only the past.

    Args:
        valid_THW: where no entity is; a pixel that seldom is takes its colour from those around it.
        seen_THW: what of the ground each frame shows, all of it by default.
    """
    every = config.every(len(frames_T3HW))
    frames = frames_T3HW[::every]
    seen = torch.ones_like(frames[:, 0], dtype=torch.bool) if seen_THW is None else seen_THW[::every]
    valid = seen if valid_THW is None else seen & valid_THW[::every]
    hidden = valid.float().mean(0) < config.sightings
    valid = valid & ~hidden
    context = frames[len(frames) // 2].clone()
    changes = (frames.amax(0) - frames.amin(0)).amax(0) > config.alike
    context[:, ~changes] = frames[..., ~changes].mean(0)
    weight = torch.where(_still(frames_T3HW, config)[::every], 1.0, config.restless)[:, changes]
    colors, valid = frames[..., changes], valid[:, changes]
    weight = weight * (valid | (seen[:, changes] & ~valid.any(0)))
    best, score = colors[0], torch.zeros_like(colors[0, 0])
    for candidate in colors:
        same = (colors - candidate).abs().amax(1) <= config.alike
        total = (same * weight).sum(0)
        best, score = torch.where(total > score, candidate, best), torch.maximum(total, score)
    same = (weight * ((colors - best).abs().amax(1) <= config.alike))[:, None]
    context[:, changes] = (colors * same).sum(0) / same.sum(0).clamp_min(1e-6)
    return _continued(context, hidden, frames, seen, config)


def _continued(
    context_3HW: Float[Tensor, "3 H W"],
    hidden_HW: Bool[Tensor, "H W"],
    frames_T3HW: Float[Tensor, "T 3 H W"],
    seen_THW: Bool[Tensor, "T H W"],
    config: ContextConfig,
) -> Float[Tensor, "3 H W"]:
    """The context with what is hidden in all frames, or in none of them, filled in, from its border inwards: with that colour
    that a frame has there which continues what lies around best, or else with the mean of what lies around."""
    context, known = context_3HW.clone(), ~hidden_HW
    if not bool(known.any()):
        return context
    while not bool(known.all()):
        share = avg_pool2d(known[None].float(), 3, 1, 1)[0]
        ring = (share > 0) & ~known
        around = (avg_pool2d(context * known, 3, 1, 1) / share.clamp_min(1e-6))[:, ring]
        colors = frames_T3HW[..., ring]
        off = (colors - around).abs().amax(1).masked_fill(~seen_THW[:, ring], torch.inf)
        off, best = off.min(0)
        chosen = colors.gather(0, best.expand(1, 3, -1))[0]
        context[:, ring] = torch.where(off <= config.continues, chosen, around)
        known = known | ring
    return context


def grown(
    mask_THW: Bool[Tensor, "T H W"], frames_T3HW: Float[Tensor, "T 3 H W"], config: ContextConfig
) -> Bool[Tensor, "T H W"]:
    """Masks of things with what hangs together with them in the frames without an edge, and a pixel around.

    What covers a place in all frames is in the context with its own colour, so that only its rim stands out.
    """
    joined = [(frames_T3HW.diff(dim=axis).abs().amax(1) <= config.alike) for axis in (-1, -2)]
    mask = mask_THW.clone()
    for _ in range(config.growth):
        for axis, join in zip((-1, -2), joined, strict=True):
            length = mask.shape[axis]
            low, high = mask.narrow(axis, 0, length - 1), mask.narrow(axis, 1, length - 1)
            low |= high & join
            high |= low & join
    return max_pool2d(mask[:, None].float(), 3, 1, 1)[:, 0] > 0


def _still(frames_T3HW: Float[Tensor, "T 3 H W"], config: ContextConfig) -> Bool[Tensor, "T H W"]:
    """Where nothing around a pixel changes, neither from the frame before nor to the next."""
    changes = (frames_T3HW[1:] - frames_T3HW[:-1]).abs().amax(1, keepdim=True) > config.alike
    changes = max_pool2d(changes.float(), config.around, 1, config.around // 2)[:, 0] > 0
    first = torch.zeros_like(changes[:1])
    return ~(torch.cat([first, changes]) | torch.cat([changes, first]))


def without_ghosts(
    frames_T3HW: Float[Tensor, "T 3 H W"],
    context_3HW: Float[Tensor, "3 H W"],
    config: ContextConfig = ContextConfig(),
    threshold: float = 0.1,
    seen_THW: Bool[Tensor, "T H W"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """The context with what only stood still for long taken out: a piece whose outline is in the context, not in the frame.

    Where frame and context differ, the outline of the difference is an edge of the frame if something is there now, and of
    the context if something was there while it was taken (a ghost). The frame then shows what is behind it. After
    whole differences come pieces that end at edges of either: so a ghost that something touches now is found as well.
    """
    every = config.every(len(frames_T3HW))
    frames, context = frames_T3HW[::every].cpu().numpy(), context_3HW.cpu().numpy().copy()
    seen = np.ones_like(frames[:, 0], bool) if seen_THW is None else seen_THW[::every].cpu().numpy()
    for split, ratio in zip((False, True), config.ghost, strict=True):
        for frame, shown in zip(frames, seen, strict=True):
            differs = (np.abs(frame - context).max(0) > threshold) & shown
            if differs.sum() < config.area:
                continue
            smooth = differs & ~edges(frame, threshold) & ~edges(context, threshold) if split else differs
            for token in find_tokens(smooth, config.area // 2 if split else config.area):
                around = token.around(MARGIN)
                mask, now, then = token.mask[around], frame[:, *around], context[:, *around]
                piece = filled(filled(mask)) if split else filled(mask)
                line = piece if split else mask
                if outline(then, line) > max(ratio * outline(now, line), threshold):
                    then[:, piece] = now[:, piece]
    return torch.as_tensor(context, device=context_3HW.device)


MARGIN = 4
"""Pixels around a piece that tell about its outline: it is made two wider, and an edge is taken over two."""


def outline(image_3HW: np.ndarray, mask_HW: np.ndarray, step: int = 2) -> float:
    """How strong an edge runs along the outline of a mask: mean difference of colour across it, over `step` pixels."""
    down = mask_HW[step:] != mask_HW[:-step]
    across = mask_HW[:, step:] != mask_HW[:, :-step]
    total = np.abs(image_3HW[:, step:] - image_3HW[:, :-step]).max(0)[down].sum()
    total += np.abs(image_3HW[:, :, step:] - image_3HW[:, :, :-step]).max(0)[across].sum()
    return float(total) / max(int(down.sum() + across.sum()), 1)


def edges(image_3HW: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels that differ from one beside or below them by more than `threshold`, and those: bool `(H, W)`."""
    found = np.zeros(image_3HW.shape[1:], bool)
    for axis in (0, 1):
        steps = np.abs(np.diff(image_3HW, axis=1 + axis)).max(0) > threshold
        ahead, behind = ([slice(None)] * 2 for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(-1)
        found[tuple(ahead)] |= steps
        found[tuple(behind)] |= steps
    return found
