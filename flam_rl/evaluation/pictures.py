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


def figure_to_image(figure: Figure) -> np.ndarray:
    """uint8 `(H, W, 3)`; closes the figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110, bbox_inches="tight")
    plt.close(figure)
    return imageio.imread(buffer.getvalue(), extension=".png")[..., :3]


def enlarge(frames: np.ndarray, factor: int) -> np.ndarray:
    """uint8 `(..., H, W, 3)`, each pixel `factor` times as wide and high."""
    return frames.repeat(factor, -3).repeat(factor, -2)


def scene_of(factors_BKS: torch.Tensor) -> Scene:
    """Scenes of a model without a context."""
    return Scene(factors_BKS, factors_BKS.new_zeros(len(factors_BKS), 0))


@torch.inference_mode()
def factor_colors(world: World, starts: int = 64) -> np.ndarray:
    """The mean colour of what each factor draws in held-out frames, as bright as it gets: float `(K, 3)` in
    0..255, so that the mask of a red agent is red."""
    clips = world.stored_starts["starts"]
    clips = clips[:: max(1, len(clips) // starts)].long()
    factors = world.factorize(clips)[:, -1]
    patches = world.tokenizer.patches(world.draw(scene_of(factors))).float()
    colors = patches.unflatten(-1, (-1, 3)).mean(-2)
    mean = torch.einsum("bkn,bnc->kc", world.aggregate(factors).masks_BKN, colors)
    return (230 * mean / mean.amax(-1, keepdim=True).clamp_min(1e-6)).cpu().numpy()


@torch.inference_mode()
def mask_picture(world: World, factors_BKS: torch.Tensor, colors_K3: np.ndarray | None = None) -> np.ndarray:
    """Each factor's mask in its colour, by default that of what it draws: uint8 `(B, H, W, 3)`."""
    colors_K3 = factor_colors(world) if colors_K3 is None else colors_K3
    masks = world.aggregate(factors_BKS).masks_BKN.unflatten(-1, world.tokenizer.grid).cpu().numpy()
    picture = np.einsum("bkrc,kx->brcx", masks, colors_K3).clip(0, 255).astype(np.uint8)
    return enlarge(picture, world.tokenizer.config.patch)


@torch.inference_mode()
def reconstruction_picture(world: World, frames: np.ndarray) -> np.ndarray:
    """Rows: true, by the tokenizer alone, by tokenizer and factors. Frames uint8 `(T, H, W, 3)` of an episode."""
    z = world.encode(torch.as_tensor(frames, device=world.device))
    drawn = world.draw(scene_of(world.factorize(z[None])[0]))
    rows = {"true": frames, "tokenizer": world.paint(z).cpu().numpy(), "factors": drawn.cpu().numpy()}
    return _strip(rows, [f"t = {t}" for t in range(len(frames))])


@torch.inference_mode()
def prediction_picture(
    world: World,
    episode: np.ndarray,
    entities: dict[str, np.ndarray] | None = None,
    horizons: tuple[int, ...] = (1, 5, 10, 15),
) -> np.ndarray:
    """Rows: true, reconstructed, predicted open loop from the first frame, masks. uint8 `(H, W, 3)`.

    Args:
        entities: of the episode; only the oracle is told of them.
    """
    cut = slice(horizons[-1] + 1)
    frames = torch.as_tensor(episode[cut], device=world.device)
    z = world.encode(frames)
    truth = {key: value[cut] for key, value in entities.items()} if entities else None
    factors = world.factorize(world.encode_episode(episode[cut], truth)[None])
    unrolled = world.model.unroll(factors[:, 0], world.infer_actions(factors).mean)[0]
    shown = [0, *(h for h in horizons if h < len(frames))]
    rows = {
        "true": frames[shown].cpu().numpy(),
        "reconstructed": world.paint(z[shown]).cpu().numpy(),
        "predicted": world.draw(scene_of(unrolled[shown])).cpu().numpy(),
        "factor masks": mask_picture(world, unrolled[shown]),
    }
    return _strip(rows, [f"t = {t}" for t in shown])


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
