"""From frames to factors and entities by a tracked FLAM."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import torch
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

from ...types import Entities, Scene
from .camera import shifted
from .flam import TrackedFLAM
from .look_codes import draw_factors
from .sprites import extent, masks
from .states import LOOK, PRESENCE, StateConfig, rows_of
from .tracks import Tracks, track


@torch.no_grad()
def see(model: TrackedFLAM, frames: np.ndarray) -> Scene:
    """Factors `(T, K, S)` of uint8 `(T, H, W, 3)` frames, and the context `(3, H, W)` behind the last of them, where the camera moves
    with `margin` pixels more on every side.

    Raises:
        ValueError: frames of another form or size.
    """
    tracks = follow_film(model, frames, len(frames))
    return Scene(factors_of(model, tracks), context_of(model.config.state, tracks))


def follow_film(model: TrackedFLAM, frames: np.ndarray, past: int) -> Tracks:
    """Tracks of a film; the context is found from its first `past` frames only.

    Raises:
        ValueError: frames of another form or size.
    """
    config = model.config
    size = (config.state.height, config.state.width)
    if frames.ndim != 4 or frames.shape[1:] != (*size, 3) or frames.dtype != np.uint8 or not len(frames):
        raise ValueError(
            f"this world sees uint8 frames (T, {size[0]}, {size[1]}, 3); given {frames.dtype} {frames.shape}"
        )
    ground = model.ground_3HW if config.shared_ground else None
    tracker = replace(config.tracker, patch=config.state.patch)
    film = np.concatenate([frames, frames]) if len(frames) == 1 else frames
    tracks = track(film, tracker, ground=ground, past=past, shortest=1, looks=model.known_looks)
    return first_frames(tracks, len(frames))


def first_frames(tracks: Tracks, count: int) -> Tracks:
    """The tracks of the first `count` frames."""
    parts = {f.name: getattr(tracks, f.name)[:count] for f in fields(tracks)}
    return Tracks(**parts)


def factors_of(model: TrackedFLAM, tracks: Tracks) -> Float[Tensor, "T K S"]:
    """Factor vectors of tracks."""
    config = model.config.state
    rows = rows_of(tracks, config.entities)
    return rows.factors(config, model.codes.encode(rows.look))


def context_of(config: StateConfig, tracks: Tracks) -> Float[Tensor, "3 Y X"]:
    """The context behind the last frame that tracks were known in; new ground has the colour of the nearest that is known."""
    views = tracks.context
    if not config.margin:
        return views[-1]
    m = config.margin
    ground = torch.zeros(3, config.height + 2 * m, config.width + 2 * m)
    known = torch.zeros_like(ground[:1])
    count = len(tracks.camera)
    views = views.expand(count, -1, -1, -1)
    for t in reversed(range(count)):
        moved = (tracks.camera[-1] - tracks.camera[t])[None]
        canvas = torch.nn.functional.pad(torch.cat([views[t], torch.ones_like(views[t][:1])]), (m, m, m, m))
        canvas = shifted(canvas[None], moved)[0]
        new = (canvas[3:] > 0.999) & (known == 0)
        ground = torch.where(new, canvas[:3], ground)
        known = known.maximum(new.to(known.dtype))
    nearest = ndimage.distance_transform_edt(
        known[0].numpy() == 0, return_distances=False, return_indices=True
    )
    return ground[:, torch.from_numpy(nearest[0]).long(), torch.from_numpy(nearest[1]).long()]


@torch.no_grad()
def opening(
    model: TrackedFLAM, frames: np.ndarray, start: int, steps: int
) -> tuple[Scene, Float[Tensor, "T K A"]]:
    """Factors `(K, S)` and context `(3, Y, X)` of frame `start`, as frames 0 to `start` show them, and the latent actions of the
    `steps` after it. Tracks go on over the true frames, so that rows are of the same entities, but the context knows none of these."""
    tracks = follow_film(model, frames[: start + steps + 1], start + 1)
    known = first_frames(tracks, start + 1)
    now = factors_of(model, known)[-1:]
    scene = Scene(now[0], context_of(model.config.state, known))
    if not steps:
        return scene, now.new_zeros(0, now.shape[1], model.config.dynamics.latent_action_dim)
    later = torch.cat([now, factors_of(model, tracks)[start + 1 :]])
    return scene, model.infer_actions(later[None]).mean[0]


@torch.no_grad()
def entities(model: TrackedFLAM, scene: Scene, with_masks: bool = False) -> Entities:
    """The entities in the frames of a scene: entity k is factor k."""
    config = model.config.state
    shown = scene.factors[:, : config.entities]
    look = model.codes.decode(shown[..., LOOK])
    where, size = extent(look[:, :, 3])
    place = config.to_pixels(shown[..., :2]) + where
    box = torch.cat([place - size / 2, place + size / 2], -1).numpy()
    limits = np.array([config.width, config.height] * 2)
    box = box.clip(0, limits)
    there = (shown[..., PRESENCE] > 0.5).numpy() & (box[..., 2:] > box[..., :2]).all(-1)
    mask = None
    if with_masks:
        context = scene.context.expand(len(shown), -1, -1, -1)
        layers, drawn = draw_factors(model.codes, config, scene.factors, context)
        mask = masks(layers.drawn_BK4HW, drawn.seen_BKHW).numpy()
    return Entities(there, np.where(there[..., None], box, np.nan), mask)
