"""Tokenizer: frames to code indices and back, a VQ-VAE over patches (van den Oord et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int, UInt8
from scipy.sparse.csgraph import connected_components
from torch import nn
from vector_quantize_pytorch import VectorQuantize

from ...types import LossAndMetrics, check_ranges

MARGIN = 0.02
"""Codes nearer to each other than this share of the codebook's spread are one code, and a patch is ambiguous if moving its
latent by as much can give it another code: rounding moves a latent by less than a thousandth of it."""
AT_ONCE = 256
"""Frames that are encoded at once."""


@dataclass(frozen=True)
class TokenizerConfig:
    """Settings of the tokenizer."""

    patch: int = 8
    """Pixels along a side of a token; the frame's sides must be multiples of it."""
    codebook_size: int = 64
    """V, at most: after training, codes that coincide become one and codes that no patch has are dropped."""
    code_dim: int = 32
    """D, the width of a code vector."""
    hidden: int = 256
    """Width of encoder and decoder."""

    def __post_init__(self) -> None:
        # Codes are kept in 16 bits at most.
        check_ranges(self, patch=(1, 256), codebook_size=(1, 2**15), code_dim=(1, 4096), hidden=(1, 2**14))


class Tokenizer(nn.Module):
    """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)` and back; N = H W / patch^2 tokens, row by row.

    Encoder and decoder see one patch at a time: a code then has one look, which the factorizer builds on.

    Attributes:
        ambiguous: float scalar, share of the training patches that are nearly as near to a second code as to their own,
            as `MARGIN` says: which of the two they get may differ by machine. 1 before `separated`.
    """

    ambiguous: torch.Tensor

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
        self.register_buffer("ambiguous", torch.tensor(1.0, dtype=torch.float32))

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
        """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)`, `AT_ONCE` at a time: a long clip's patches take much memory."""
        parts = frames.reshape(-1, *frames.shape[-3:]).split(AT_ONCE)
        codes = torch.cat([self.distances(self.patches(part)).argmin(-1) for part in parts])
        return codes.reshape(*frames.shape[:-3], codes.shape[-1])

    def distances(self, patches: UInt8[torch.Tensor, "*B P"]) -> Float[torch.Tensor, "*B V"]:
        """How far patches uint8 `(..., patch * patch * 3)` are from each code: squared, less a term that is the same
        for all codes."""
        latent = self.encoder(scale(patches).to(self.codebook.dtype))
        return self.codebook.square().sum(-1) - 2 * latent @ self.codebook.T

    @property
    def codebook(self) -> torch.Tensor:
        """Code vectors, float `(V, D)`."""
        return self.quantizer.codebook

    @property
    def margin(self) -> float:
        """`MARGIN` in the units of the codebook: of the root mean square distance of codes from their mean."""
        centred = self.codebook.double() - self.codebook.double().mean(0)
        return MARGIN * float(centred.square().sum(-1).mean().sqrt())

    def check_separated(self) -> None:
        """
        Raises:
            ValueError: two codes are within `margin` of each other. Rounding would decide which one a patch gets,
                differently on other machines.
        """
        near = (self._apart() <= self.margin).triu(1).nonzero()
        if len(near):
            first, second = near[0].tolist()
            raise ValueError(
                f"codes {first} and {second} of the tokenizer are {float(self._apart()[first, second]):.2g} apart, and rounding "
                f"decides between codes within {self.margin:.2g}; make them one with Tokenizer.separated"
            )

    @torch.no_grad()
    def separated(self, patches: UInt8[torch.Tensor, "B P"], counts: Int[torch.Tensor, " B"]) -> Tokenizer:
        """The same tokenizer, frozen, with codes that a margin keeps apart and that some patch has.

        Codes within `margin` of each other, or linked by others that are, become the one of them that most patches have.

        Args:
            patches: distinct patches of the training video.
            counts: how often each occurs.
        """
        weight = counts.double().cpu()
        nearest = torch.cat([self.distances(part).argmin(-1) for part in patches.split(2**14)])
        used = torch.bincount(nearest.cpu(), weight, len(self.codebook))
        result = self._only(used > 0)
        used = used[used > 0]
        near = (result._apart() <= result.margin).cpu().numpy()
        group = torch.as_tensor(connected_components(near, directed=False)[1])
        most = torch.stack([used.where(group == each, -1.0).argmax() for each in group.unique()])
        result = result._only(torch.isin(torch.arange(len(used)), most))
        near_border = torch.cat([result._to_border(part) <= result.margin for part in patches.split(2**14)])
        result.ambiguous.fill_(float(weight[near_border.cpu()].sum() / weight.sum()))
        return result.requires_grad_(False)

    def _only(self, kept: torch.Tensor) -> Tokenizer:
        """The same tokenizer, in eval mode, with only the codes `kept`, bool `(V,)`."""
        result = Tokenizer(replace(self.config, codebook_size=int(kept.sum())), self.frame_size)
        state = {
            name: value[:, kept.to(value.device)]
            if name.startswith("quantizer.") and value.ndim > 1
            else value
            for name, value in self.state_dict().items()
        }
        result.load_state_dict(state)
        return result.to(self.codebook.device).eval()

    def _apart(self) -> torch.Tensor:
        """Distances of codes, float64 `(V, V)`."""
        codes = self.codebook.double()
        return torch.cdist(codes, codes, compute_mode="donot_use_mm_for_euclid_dist")

    def _to_border(self, patches: torch.Tensor) -> torch.Tensor:
        """How far the latents of patches `(B, P)` are from where another code begins: float `(B,)`."""
        distance = self.distances(patches)
        least = distance.min(-1, keepdim=True)
        border = (distance - least.values) / (2 * self._apart().to(distance.dtype)[least.indices.squeeze(-1)])
        return border.scatter(-1, least.indices, float("inf")).amin(-1)

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
    """uint8 of any shape to float in -0.5..0.5."""
    return pixels.float() / 255 - 0.5
