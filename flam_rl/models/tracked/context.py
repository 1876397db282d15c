"""The context (the part of frames that no factor moves), found from the frames of an episode."""

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
    """Most rounds of masking what the tracks cover and finding the context again."""
    moved: float = 1.5
    """Tracks that moved by fewer pixels are not masked, because they may be ghosts of the context."""
    still: tuple[int, float] = (8, 0.5)
    """With a moving camera: least frames of a track, and most pixels that nine tenths of its places spread over the
    ground, for the track to count as a piece of the ground. Such pieces are tracked because they have sharper edges
    than the mosaic."""
    frames: int = 48
    """Most frames, evenly spread over an episode, that the context is found from."""
    alike: float = 0.06
    """A pixel counts as the same in two frames if no channel differs by more; colours are in 0..1."""
    around: int = 11
    """Side in pixels of the square around a pixel that must not change for the pixel to count as still."""
    restless: float = 0.2
    """Weight of a sighting that is not still; still ones weigh 1."""
    area: int = 8
    """Least number of pixels of an error of the context."""
    growth: int = 8
    """Most pixels by which masks of moving things grow, up to an edge of the frame."""
    sightings: float = 0.1
    """Least share of frames without an entity at a place for these frames to be trusted; in fewer frames, an entity
    may have been missed."""
    continues: float = 0.1
    """Most difference of a colour that continues the context from the colours around."""
    smoothed: int = 64
    """Rounds in which a guessed colour is replaced by the mean of the colours around, so that a filled hole has no edges."""
    votes: int = 2
    """Rounds of masking what differs from the context and finding it again, before tracking."""
    ghost: tuple[float, float] = (1.3, 2.0)
    """A difference is an error of the context if its outline is this many times as strong an edge in the context as
    in the frame; the second number is for pieces of differences."""

    def every(self, length: int) -> int:
        """Distance between the frames that are used, of `length` frames."""
        return max(1, -(-length // self.frames))


def find_context(
    frames_T3HW: Float[Tensor, "T 3 H W"],
    valid_THW: Bool[Tensor, "T H W"] | None = None,
    config: ContextConfig = ContextConfig(),
    seen_THW: Bool[Tensor, "T H W"] | None = None,
) -> Float[Tensor, "3 H W"]:
    """The context of an episode: for each pixel, its most frequent colour while the pixels around it were still.

    A slow entity may cover a place most of the time, but its edges move, so that the background has more still
    sightings. The context depends on the given frames only.

    Args:
        valid_THW: where no entity is; pixels that are seldom valid take their colours from pixels around them.
        seen_THW: the part of the ground that each frame shows; by default all of it.
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
    """Fill the hidden pixels of a context, from their border inwards, with the colour in a frame that best continues
    the pixels around, or else smoothly."""
    context, known = context_3HW.clone(), ~hidden_HW
    guessed = torch.zeros_like(known)
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
        guessed[ring] = off > config.continues
        known = known | ring
    for _ in range(config.smoothed if bool(guessed.any()) else 0):
        around = avg_pool2d(context[None], 3, 1, 1, count_include_pad=False)[0]
        context[:, guessed] = around[:, guessed]
    return context


def grown(
    mask_THW: Bool[Tensor, "T H W"], frames_T3HW: Float[Tensor, "T 3 H W"], config: ContextConfig
) -> Bool[Tensor, "T H W"]:
    """Masks grown to all pixels that are connected with them without an edge in the frames, and by one pixel more.

    A thing that covers a place in all frames is part of the context there, so that only its rim stands out.
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
    """Where no pixel around changes from the frame before, or to the next frame."""
    if len(frames_T3HW) == 1:
        return torch.ones_like(frames_T3HW[:, 0], dtype=torch.bool)
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
    """The context without ghosts, things that stood still for long and are part of the context although they have
    moved on.

    Where frame and context differ, the outline of the difference is an edge of the frame if a thing is there now, and
    an edge of the context if it is a ghost; the frame then shows the background behind it. Whole differences are
    examined first, then pieces that end at edges of frame or context, so that ghosts which a thing touches are found
    as well.
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
"""Pixels around a piece that its outline depends on: the piece is grown by two, and edges are taken over two."""


def outline(image_3HW: np.ndarray, mask_HW: np.ndarray, step: int = 2) -> float:
    """Strength of the edge along a mask's outline: mean difference of colour across it, over `step` pixels."""
    down = mask_HW[step:] != mask_HW[:-step]
    across = mask_HW[:, step:] != mask_HW[:, :-step]
    total = np.abs(image_3HW[:, step:] - image_3HW[:, :-step]).max(0)[down].sum()
    total += np.abs(image_3HW[:, :, step:] - image_3HW[:, :, :-step]).max(0)[across].sum()
    return float(total) / max(int(down.sum() + across.sum()), 1)


def edges(image_3HW: np.ndarray, threshold: float) -> np.ndarray:
    """Pixels at an edge: both pixels of each adjacent pair that differs by more than `threshold`, bool `(H, W)`."""
    found = np.zeros(image_3HW.shape[1:], bool)
    for axis in (0, 1):
        steps = np.abs(np.diff(image_3HW, axis=1 + axis)).max(0) > threshold
        ahead, behind = ([slice(None)] * 2 for _ in range(2))
        ahead[axis], behind[axis] = slice(1, None), slice(-1)
        found[tuple(ahead)] |= steps
        found[tuple(behind)] |= steps
    return found
