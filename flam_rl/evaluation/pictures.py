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

from ..models.world import World

PALETTE = np.array(
    [
        (230, 85, 85),
        (90, 140, 235),
        (175, 95, 220),
        (235, 205, 80),
        (120, 200, 130),
        (240, 150, 70),
        (120, 210, 220),
        (200, 200, 200),
    ],
    np.float32,
)
"""A colour for each factor."""


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
def mask_picture(world: World, factors_BKS: torch.Tensor) -> np.ndarray:
    """Each factor's mask in its colour: uint8 `(B, H, W, 3)`."""
    masks = world.aggregate(factors_BKS).masks_BKN.unflatten(-1, world.tokenizer.grid).cpu().numpy()
    colors = PALETTE[np.arange(masks.shape[1]) % len(PALETTE)]
    picture = np.einsum("bkrc,kx->brcx", masks, colors).clip(0, 255).astype(np.uint8)
    return enlarge(picture, world.tokenizer.config.patch)


@torch.inference_mode()
def prediction_picture(
    world: World, episode: np.ndarray, horizons: tuple[int, ...] = (1, 5, 10, 15)
) -> np.ndarray:
    """Rows: true, reconstructed, predicted open loop from the first frame, masks. uint8 `(H, W, 3)`."""
    frames = torch.as_tensor(episode[: horizons[-1] + 1], device=world.device)
    z = world.encode(frames)
    factors = world.factorize(z[None])
    unrolled = world.flam.unroll(factors[:, 0], world.infer_actions(factors).mean)[0]
    shown = [0, *(h for h in horizons if h < len(frames))]
    rows = [
        frames[shown].cpu().numpy(),
        _bytes(world.decode(z[shown])),
        _bytes(world.draw(unrolled[shown])),
        mask_picture(world, unrolled[shown]),
    ]
    figure, axes = plt.subplots(
        len(rows), len(shown), figsize=(1.7 * len(shown), 1.8 * len(rows)), squeeze=False
    )
    for row, (name, images) in enumerate(
        zip(("true", "reconstructed", "predicted", "factor masks"), rows, strict=True)
    ):
        for column, image in enumerate(images):
            axis = axes[row, column]
            axis.imshow(enlarge(image, 3))
            axis.set_xticks([])
            axis.set_yticks([])
            if row == 0:
                axis.set_title(f"t = {shown[column]}")
            if column == 0:
                axis.set_ylabel(name)
    return figure_to_image(figure)


def matrix_picture(matrix: np.ndarray, title: str) -> np.ndarray:
    """The correspondence matrix as a heat map."""
    figure, axis = plt.subplots(figsize=(1.0 + 0.8 * matrix.shape[1], 1.0 + 0.7 * matrix.shape[0]))
    axis.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    for (i, j), value in np.ndenumerate(matrix):
        axis.text(j, i, f"{value:.2f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    axis.set_xticks(range(matrix.shape[1]), [f"agent {j}" for j in range(matrix.shape[1])])
    axis.set_yticks(range(matrix.shape[0]), [f"factor {i}" for i in range(matrix.shape[0])])
    axis.set_title(title)
    return figure_to_image(figure)


def write_gif(path: Path, frames: list[np.ndarray], fps: int = 6) -> None:
    """uint8 `(H, W, 3)` frames as an endless GIF."""
    imageio.imwrite(path, np.stack(frames), extension=".gif", duration=1000 / fps, loop=0)


def _bytes(frames: torch.Tensor) -> np.ndarray:
    return (frames * 255).round().to(torch.uint8).cpu().numpy()
