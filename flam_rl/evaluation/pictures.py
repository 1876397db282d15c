"""Pictures of what a world does: prediction strips, masks, matrices, rollouts."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import imageio.v3 as imageio
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure

from ..core.world import World
from ..types import Scene
from .encoded import Encoded


def figure_to_image(figure: Figure) -> np.ndarray:
    """uint8 `(H, W, 3)`; closes the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return imageio.imread(buffer.getvalue(), extension=".png")[..., :3]


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """uint8 `(..., H, W, 3)`, each pixel `factor` times as wide and high."""
    return frames.repeat(factor, -3).repeat(factor, -2)


@torch.inference_mode()
def factor_colors(world: World, scenes: Scene) -> np.ndarray:
    """The mean colour of what each factor draws in these scenes, as bright as it gets: float `(K, 3)` in 0..255, so
    that the mask of a red agent is red."""
    mean = torch.einsum("bkhw,bhwc->kc", world.shares(scenes), world.draw(scenes).float())
    return (230 * mean / mean.amax(-1, keepdim=True).clamp_min(1e-6)).cpu().numpy()


@torch.inference_mode()
def mask_picture(world: World, scenes: Scene, colors_K3: np.ndarray | None = None) -> np.ndarray:
    """Each factor's share of the pixels in its colour, by default that of what it draws in these scenes: uint8 `(B, H, W, 3)`."""
    colors_K3 = factor_colors(world, scenes) if colors_K3 is None else colors_K3
    shares = world.shares(scenes).cpu().numpy()
    return np.einsum("bkhw,kx->bhwx", shares, colors_K3).clip(0, 255).astype(np.uint8)


@torch.inference_mode()
def reconstruction_picture(encoded: Encoded, index: int, count: int = 6) -> np.ndarray:
    """Two rows: the first frames of an episode, and the same as factors draw them."""
    frames = encoded.frames[index][:count]
    rows = {"true": frames, "factors": encoded.world.draw(_first(encoded, index, count)).cpu().numpy()}
    return _strip(rows, [f"t = {t}" for t in range(len(frames))])


def masks_picture(encoded: Encoded, index: int, count: int = 8) -> np.ndarray:
    """The factors' shares of the first frames of an episode, side by side."""
    return np.concatenate(list(mask_picture(encoded.world, _first(encoded, index, count))), 1)


@torch.inference_mode()
def prediction_picture(
    encoded: Encoded, index: int, horizons: tuple[int, ...] = (1, 5, 10, 15)
) -> np.ndarray:
    """Four rows: an episode, the same as factors draw it, its open-loop prediction from the first frame, and the
    masks of that prediction."""
    world, frames = encoded.world, encoded.frames[index]
    shown = [0, *(h for h in horizons if h < len(frames))]
    first, latent_actions = encoded.opening(index, 0, shown[-1])
    unrolled = world.model.unroll(first.factors[None], latent_actions[None])[0]
    predicted = Scene(unrolled[shown], first.context.expand(len(shown), -1))
    drawn = _first(encoded, index, shown[-1] + 1).select(shown)
    rows = {
        "true": frames[shown],
        "reconstructed": world.draw(drawn).cpu().numpy(),
        "predicted": world.draw(predicted).cpu().numpy(),
        "factor masks": mask_picture(world, predicted),
    }
    return _strip(rows, [f"t = {t}" for t in shown])


def _first(encoded: Encoded, index: int, count: int) -> Scene:
    """The scenes of the first frames of an episode, a batch."""
    factors, context = encoded.scenes[index]
    return Scene(factors[:count], context.expand(len(factors[:count]), -1))


def _strip(rows: dict[str, np.ndarray], titles: list[str]) -> np.ndarray:
    """Named rows of frames under titles, as one picture."""
    figure, axes = plt.subplots(
        len(rows), len(titles), figsize=(1.7 * len(titles), 1.8 * len(rows)), squeeze=False
    )
    for row, (name, images) in enumerate(rows.items()):
        for column, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(enlarge(image, 3))
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(titles[column])
            if column == 0:
                axis.set_ylabel(name)
    return figure_to_image(figure)


def matrix_picture(matrix: np.ndarray, title: str) -> np.ndarray:
    """The correspondence matrix, float `(K, entities)` in 0..1, as a heat map: uint8 `(H, W, 3)`."""
    figure, axis = plt.subplots(figsize=(1.0 + 0.8 * matrix.shape[1], 1.0 + 0.7 * matrix.shape[0]))
    axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    for (i, j), value in np.ndenumerate(matrix):
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    axis.set_xticks(range(matrix.shape[1]), [f"agent {j}" for j in range(matrix.shape[1])])
    axis.set_yticks(range(matrix.shape[0]), [f"factor {i}" for i in range(matrix.shape[0])])
    axis.set_xlabel("gain of a probe: 0 is chance, 1 is all")
    axis.set_title(title)
    return figure_to_image(figure)


def write_gif(path: Path, frames: list[np.ndarray], fps: int = 6) -> None:
    """uint8 `(H, W, 3)` frames as an endless GIF."""
    imageio.imwrite(path, np.stack(frames), extension=".gif", duration=1000 / fps, loop=0)
