"""The context as each frame of a clip shows it, the context that clips share, and the size of things in clips."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .camera import Mosaic, camera_path
from .context import ContextConfig, find_context, grown, without_ghosts
from .tokens import differs, sizes_of_movers
from .tracker import TrackerConfig


def as_colors(frames: np.ndarray, device: torch.device | str = "cpu") -> Float[Tensor, "T 3 H W"]:
    """uint8 `(T, H, W, 3)` frames as colours in 0..1."""
    return (
        torch.as_tensor(np.ascontiguousarray(frames), device=device).movedim(-1, 1).contiguous().float() / 255
    )


def find_view(
    colors: Float[Tensor, "T 3 H W"],
    path: Float[Tensor, "T 2"],
    config: TrackerConfig,
    context: ContextConfig,
    past: int | None = None,
    things: Bool[Tensor, "N H W"] | None = None,
    complete: bool = False,
) -> Float[Tensor, "C 3 H W"]:
    """The context as each frame shows it; one for all frames where the camera stands still.

    Args:
        path: as `camera_path` gives it.
        past: number of known frames. Ground that none of them shows takes the colours around it.
        things: where entities are in the known frames, as far as that is known.
        complete: whether there are no other entities; else pixels that differ from a first view count as entities too.
    """
    known = colors[:past]
    view = _view(colors, path, things, config, context, past)
    for _ in range(0 if complete or len(known) == 1 else context.votes):
        others = grown(differs(known - view[: len(known)], config.threshold), known, context)
        view = _view(colors, path, others if things is None else others | things, config, context, past)
    return view


def _view(
    colors: Float[Tensor, "T 3 H W"],
    path: Float[Tensor, "T 2"],
    things: Bool[Tensor, "N H W"] | None,
    config: TrackerConfig,
    context: ContextConfig,
    past: int | None,
) -> Float[Tensor, "C 3 H W"]:
    """One round of `find_view`."""
    known = colors[:past]
    if not bool(path.any()):
        ground = find_context(known, None if things is None else ~things, context)
        return without_ghosts(known, ground, context, config.threshold)[None]
    mosaic = Mosaic(path, (colors.shape[-2], colors.shape[-1]))
    seen = mosaic.lay(torch.ones_like(colors[:, :1]))[:past, 0] > 0.99
    laid = mosaic.lay(colors)[:past]
    empty = None
    if things is not None:
        moving = torch.zeros_like(colors[:, :1])
        moving[: len(things), 0] = things.to(colors.dtype)
        empty = mosaic.lay(moving)[:past, 0] < 0.01
    ground = find_context(laid, empty, context, seen)
    ground = without_ghosts(laid, ground, context, config.threshold, seen)
    return mosaic.look(ground)


def clip_view(
    frames: np.ndarray, config: TrackerConfig, context: ContextConfig = ContextConfig()
) -> Float[Tensor, "C 3 H W"]:
    """The context of a clip of uint8 `(T, H, W, 3)` by itself, before tracks are known, as each frame shows it; one for all
    frames where the camera stands still."""
    colors = as_colors(frames)
    return find_view(colors, camera_path(colors), config, context)


def shared_context(
    views: Sequence[Float[Tensor, "_ 3 H W"]], config: ContextConfig = ContextConfig()
) -> Float[Tensor, "3 H W"] | None:
    """The context that clips have in common, by vote; None if one differs from it in a tenth of its pixels or more, or
    there are fewer than three, or the camera moves in one."""
    if len(views) < 3 or any(len(view) > 1 for view in views):
        return None
    stacked = torch.cat(list(views))
    common = find_context(stacked, config=config)
    apart = differs(stacked - common, config.alike).float().mean((1, 2))
    return common if float(apart.max()) < 0.1 else None


def patch_for(
    clips: Sequence[np.ndarray], views: Sequence[Float[Tensor, "_ 3 H W"]], config: TrackerConfig
) -> int:
    """A side of patches that holds nine of ten things that move in the clips, with room to turn: 12 to 40 pixels."""
    sizes = np.concatenate(
        [
            sizes_of_movers(as_colors(clip) - view, config.threshold, ContextConfig().area)
            for clip, view in zip(clips, views, strict=True)
        ]
    )
    largest = float(np.quantile(sizes, 0.9)) if len(sizes) else 0.0
    return int(min(40, max(12, 2 * np.ceil(largest / 2 + 3))))
