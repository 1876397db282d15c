"""Tokenizer: frames to code indices and back, a VQ-VAE over patches (van den Oord et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from ..types import LossAndMetrics, check_ranges


@dataclass(frozen=True)
class TokenizerConfig:
    patch: int = 8
    """Pixels along a side of a token; the frame's sides must be multiples of it."""
    codebook_size: int = 64
    """V."""
    code_dim: int = 32
    """D, the width of a code vector."""
    hidden: int = 256
    """Width of encoder and decoder."""

    def __post_init__(self) -> None:
        # Codes are kept in 16 bits at most.
        check_ranges(self, patch=(1, 256), codebook_size=(2, 2**15), code_dim=(1, 4096), hidden=(1, 2**16))


class Tokenizer(nn.Module):
    """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)` and back; N = H W / patch^2 tokens, row by row.

    Encoder and decoder see one patch at a time: a code then has one look, which the factorizer builds on.
    """

    def __init__(self, config: TokenizerConfig, frame_size: tuple[int, int]) -> None:
        """
        Raises:
            ValueError: `frame_size`, height and width in pixels, is not a multiple of the patch.
        """
        super().__init__()
        if frame_size[0] % config.patch or frame_size[1] % config.patch:
            raise ValueError(
                f"frames of {frame_size[0]}x{frame_size[1]} do not divide into patches of {config.patch}"
            )
        self.config, self.frame_size = config, frame_size
        self.grid = (frame_size[0] // config.patch, frame_size[1] // config.patch)
        pixels = config.patch**2 * 3
        self.encoder = nn.Sequential(
            nn.Linear(pixels, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.code_dim)
        )
        self.quantizer = VectorQuantize(
            config.code_dim,
            config.codebook_size,
            decay=0.9,
            kmeans_init=True,
            kmeans_iters=20,
            threshold_ema_dead_code=1,
            commitment_weight=0.25,
        )
        self.decoder = nn.Sequential(
            nn.Linear(config.code_dim, config.hidden), nn.GELU(), nn.Linear(config.hidden, pixels)
        )

    def patches(self, frames: UInt8[torch.Tensor, "*B H W 3"]) -> UInt8[torch.Tensor, "*B N P"]:
        """uint8 `(..., H, W, 3)` to uint8 `(..., N, patch * patch * 3)`."""
        p, (rows, columns) = self.config.patch, self.grid
        cut = frames.unflatten(-3, (rows, p)).unflatten(-2, (columns, p))
        return cut.transpose(-4, -3).flatten(-3).flatten(-3, -2)

    def unpatch(self, patches: torch.Tensor) -> torch.Tensor:
        """`(..., N, patch * patch * 3)` to `(..., H, W, 3)`: the inverse of `patches`."""
        p, grid = self.config.patch, self.grid
        cut = patches.unflatten(-1, (p, p, 3)).unflatten(-4, grid).transpose(-4, -3)
        return cut.flatten(-5, -4).flatten(-3, -2)

    def encode(self, frames: UInt8[torch.Tensor, "*B H W 3"]) -> Int[torch.Tensor, "*B N"]:
        """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)`."""
        latent = self.encoder(scale(self.patches(frames)))
        return torch.cdist(latent.flatten(0, -2), self.codebook).argmin(-1).view(latent.shape[:-1])

    @property
    def codebook(self) -> torch.Tensor:
        """Code vectors, float `(V, D)`."""
        return self.quantizer.codebook

    def looks(self) -> Float[torch.Tensor, "V P"]:
        """What each code looks like: float `(V, patch * patch * 3)` in 0..1."""
        return (self.decoder(self.codebook) + 0.5).clamp(0, 1)

    def decode(self, z: Int[torch.Tensor, "*B N"]) -> Float[torch.Tensor, "*B H W 3"]:
        """Codes int64 `(..., N)` to frames float `(..., H, W, 3)` in 0..1."""
        return self.unpatch(self.looks()[z])

    def loss(self, patches: torch.Tensor) -> LossAndMetrics:
        """Squared error and commitment on uint8 patches `(B, patch * patch * 3)`; updates the codebook."""
        target = scale(patches)
        quantized, _, commitment = self.quantizer(self.encoder(target))
        error = nn.functional.mse_loss(self.decoder(quantized), target)
        loss = error + commitment.sum()
        return loss, {"mse": error.detach(), "commitment": commitment.sum().detach()}


def scale(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 to float in -0.5..0.5."""
    return pixels.float() / 255 - 0.5
