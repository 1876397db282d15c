"""Films of what tracking found: factors over the frames, coloured by identity, with the trails of where they were."""

from __future__ import annotations

import colorsys

import numpy as np

from ..models.tracked import Tracks
from .pictures import enlarge

GOLDEN = 0.618034
"""Hues that are a golden section apart stay distinct, whatever their number."""


def identity_colors(count: int) -> np.ndarray:
    """Bright colours that are easy to tell apart: float `(count, 3)` in 0..255."""
    return np.array([[255 * v for v in colorsys.hsv_to_rgb(i * GOLDEN % 1, 0.75, 1)] for i in range(count)])


def tracks_film(frames: np.ndarray, tracks: Tracks, scale: int = 4, trail: int = 16) -> list[np.ndarray]:
    """One picture for each frame: the frame with boxes and trails, the frame as factors draw it, and the factors'
    masks, side by side.

    Args:
        frames: uint8 `(T, H, W, 3)`, the frames that were tracked.
        scale: pixels of a picture for one of a frame. trail: frames that a trail reaches back.
    """
    drawn, shares = (part.cpu().numpy() for part in tracks.draw())
    presence, identity = tracks.presence.cpu().numpy(), tracks.identity.cpu().numpy()
    place, box = tracks.place.cpu().numpy(), tracks.box.cpu().numpy()
    colors = identity_colors(int(identity.max()) + 1)
    film = []
    for t, frame in enumerate(frames):
        own = colors[np.maximum(identity[t], 0)] if len(colors) else np.zeros((len(identity[t]), 3))
        masks = np.einsum("khw,kc->hwc", shares[t], own)
        left = enlarge(frame, scale).copy()
        for k in np.flatnonzero(presence[t]):
            _outline(left, box[t, k] * scale, own[k])
            for past in range(max(0, t - trail), t + 1):
                if presence[past, k] and identity[past, k] == identity[t, k]:
                    _dot(left, place[past, k] * scale, own[k])
        right = [enlarge((255 * drawn[t].transpose(1, 2, 0)).clip(0, 255).astype(np.uint8), scale)]
        right.append(enlarge(masks.clip(0, 255).astype(np.uint8), scale))
        film.append(np.concatenate([left, *right], 1))
    return film


def _outline(image: np.ndarray, box: np.ndarray, color: np.ndarray) -> None:
    height, width = image.shape[:2]
    x0, y0, x1, y1 = np.round(box).astype(int)
    x0, x1 = np.clip((x0, x1), 0, width - 1)
    y0, y1 = np.clip((y0, y1), 0, height - 1)
    image[[y0, y1], x0 : x1 + 1] = color
    image[y0 : y1 + 1, [x0, x1]] = color


def _dot(image: np.ndarray, place: np.ndarray, color: np.ndarray) -> None:
    x, y = np.round(place).astype(int)
    image[max(0, y - 1) : max(0, y + 1), max(0, x - 1) : max(0, x + 1)] = color
