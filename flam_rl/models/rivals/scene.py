"""Rivals that see a frame as a whole: AdaWorld, Genie, LAPO."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Normal
from vector_quantize_pytorch import VectorQuantize

from ...core.layers import TransformerBlock, mlp, sincos_positions, unit_rms
from ..tiles.aggregator import Aggregated
from ..tiles.code_model import Acted, CodeFacts
from ..tiles.factorizer import TemporalAttention
from .rival import CODE_SPREAD, Coded, Continuous, Rival

PATCH = 2
"""Tokens along a side of the patches that scene models see a frame in."""
DIM = 96
"""Width of a patch. At the size of FLAM its layers are then two to three times as wide as it; at 128 attention would
take nearly all parameters."""


class SceneModel(Rival):
    """A frame is one factor, the features of its patches; one latent action moves all of them.

    Encoder -> features; two frames' features -> latent action; features and latent action -> next features; a
    linear map -> codes, from the static background that FLAM too starts from. The past, where the window is longer
    than a frame, enters features by causal attention of each patch, as it enters FLAM's factors. A patch is 2x2
    tokens, as vision transformers have them: a quarter of the cost.
    """

    looks_VP: torch.Tensor
    positions_PD: torch.Tensor

    def _make(self, facts: CodeFacts, width: int) -> None:
        rows, columns = facts.grid
        if rows % PATCH or columns % PATCH:
            raise ValueError(f"{rows}x{columns} tokens do not divide into patches of {PATCH}x{PATCH}")
        self.patches = (rows // PATCH, columns // PATCH)
        codes = len(facts.looks_VP)
        looks_VP = (facts.looks_VP - facts.looks_VP.mean(0)) / (facts.looks_VP.std(0) + 1e-2)
        self.register_buffer("looks_VP", looks_VP)
        self.register_buffer("positions_PD", sincos_positions(*self.patches, DIM))
        self.look = nn.Linear(looks_VP.shape[1], DIM // PATCH**2)
        self.patch = nn.Linear(DIM, DIM)
        self.encoder = self._block(width)
        self.past = TemporalAttention(DIM, self.config.factorizer.window) if self.window > 1 else None
        self._make_inverse(width)
        self.acted = nn.Linear(self.latent_action_dim, DIM)
        self.dynamics = nn.Sequential(self._block(width), self._block(width))
        self.draw = nn.Linear(DIM, PATCH**2 * codes)
        self.background_NV = nn.Parameter((facts.still_NV + 1e-4).log())

    def _block(self, width: int) -> nn.Module:
        """What mixes patches: float `(..., P, D)` to the same shape."""
        return TransformerBlock(DIM, width)

    def _make_inverse(self, width: int) -> None:
        """The network that infers the latent action between two frames."""
        self.pair = nn.Linear(2 * DIM, DIM)
        self.change = self._block(width)
        self.squeeze = nn.Linear(DIM, 16)
        self.infer = mlp(16 * self.patches[0] * self.patches[1], 256, self.posterior_dim)

    @property
    def posterior_dim(self) -> int:
        """How many numbers the inverse model gives for a latent action."""
        return self.latent_action_dim

    @property
    def factors(self) -> int:
        """K: the scene."""
        return 1

    @property
    def factor_dim(self) -> int:
        """S: features of all patches."""
        return self.patches[0] * self.patches[1] * DIM

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """One factor `(B, T, 1, S)`: the features of all patches side by side."""
        looks = nn.functional.embedding(z_BTN, self.look(self.looks_VP))
        (rows, columns), lead = self.patches, z_BTN.shape[:-1]
        cut = looks.view(*lead, rows, PATCH, columns, PATCH, -1).transpose(-4, -3)
        features = self.patch(cut.reshape(*lead, rows * columns, DIM)) + self.positions_PD
        features = unit_rms(self.encoder(features))
        if self.past is not None:
            features = unit_rms(self.past(features))
        return features.flatten(-2).unsqueeze(-2)

    def posterior(self, factors_BTKS: torch.Tensor) -> torch.Tensor:
        """Parameters of the posterior of latent actions: float `(B, T - 1, 1, posterior_dim)`."""
        features = factors_BTKS.squeeze(-2).unflatten(-1, (-1, DIM))
        change = self.change(self.pair(torch.cat([features[:, :-1], features[:, 1:]], -1)))
        return self.infer(self.squeeze(change).flatten(-2)).unsqueeze(-2)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Next features of all patches, each seeing the latent action."""
        features = factors_BKS.squeeze(-2).unflatten(-1, (-1, DIM))
        return unit_rms(self.dynamics(features + self.acted(latent_actions_BLA))).flatten(-2).unsqueeze(-2)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Log-probabilities of the codes at every token, drawn from the features; the only mask is 1 everywhere."""
        (rows, columns), lead = self.patches, factors_BKS.shape[:-2]
        logits = self.draw(factors_BKS.squeeze(-2).unflatten(-1, (rows, columns, DIM)))
        logits = logits.unflatten(-1, (PATCH, PATCH, -1)).transpose(-4, -3)
        logits = logits.reshape(*lead, rows * columns * PATCH**2, -1) + self.background_NV
        log_probs = logits.log_softmax(-1)
        return Aggregated(log_probs, log_probs.new_ones(*lead, 1, log_probs.shape[-2]))


class ConvolutionBlock(nn.Module):
    """A residual block of IMPALA's (Espeholt et al. 2018): two 3x3 convolutions."""

    def __init__(self, grid: tuple[int, int], width: int) -> None:
        super().__init__()
        self.grid = grid
        self.net = nn.Sequential(
            nn.ReLU(), nn.Conv2d(DIM, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, DIM, 3, padding=1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float `(..., P, D)` to the same shape."""
        image = x.flatten(0, -3).unflatten(-2, self.grid).movedim(-1, 1)
        return x + self.net(image).movedim(1, -1).flatten(1, 2).view(x.shape)


class AdaWorld(Continuous, SceneModel):
    """AdaWorld (Gao et al. 2025, arXiv 2503.18938): one continuous latent action with a KL.

    There the dynamics is a video diffusion model and the latent action's transformer sees pixels.
    """

    @property
    def posterior_dim(self) -> int:
        """A mean and a spread."""
        return 2 * self.latent_action_dim

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """A Normal of shape `(B, T - 1, 1, A)`."""
        mean, raw = self.posterior(factors_BTKS).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw + 0.5) + 1e-2)


class Genie(Coded, SceneModel):
    """Genie (Bruce et al. 2024, arXiv 2402.15391): one latent action out of 8 codes.

    There frames are predicted by MaskGIT over the whole past, and the latent action's transformer sees pixels.
    """

    @property
    def parts(self) -> int:
        """G."""
        return 1

    @property
    def codes_of_a_part(self) -> int:
        """M."""
        return 8

    def _make_inverse(self, width: int) -> None:
        super()._make_inverse(width)
        parts, codes = self.parts, self.codes_of_a_part
        self.quantizers = nn.ModuleList(
            VectorQuantize(
                self.latent_action_dim // parts,
                codes,
                decay=0.98,
                kmeans_init=True,
                threshold_ema_dead_code=1,
                commitment_weight=1.0,
            )
            for _ in range(parts)
        )
        self.register_buffer("frequency_GM", torch.full((parts, codes), 1 / codes))

    def codebooks(self) -> torch.Tensor:
        """As `Coded.codebooks`, from the quantizers."""
        return torch.stack([torch.as_tensor(quantizer.codebook) for quantizer in self.quantizers])

    def _bounded(self, factors_BTKS: torch.Tensor) -> torch.Tensor:
        return 3 * (self.posterior(factors_BTKS) / 3).tanh()  # FLAM-v0's box

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """A narrow Normal around the nearest codes."""
        codes = self.latent_action_of(self.code_of(self._bounded(factors_BTKS)))
        return Normal(codes, torch.full_like(codes, CODE_SPREAD))

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        """Quantised latent actions; their cost is the quantizers' commitment loss."""
        latent = self._bounded(factors_BTKS)
        found = [
            quantizer(part.flatten(0, -2))
            for quantizer, part in zip(self.quantizers, latent.chunk(self.parts, -1), strict=True)
        ]
        snapped = torch.cat([part for part, _, _ in found], -1).view(latent.shape)
        commitment = torch.stack([part.sum() for _, _, part in found]).sum()
        kl = self._entropy(torch.stack([code for _, code, _ in found], -1))
        return Acted(snapped, self.config.commitment * commitment, {"kl": kl, "commitment": commitment})


class GenieMatched(Genie):
    """Genie with as many bits as FLAM's action codes have together: K parts of M codes."""

    @property
    def parts(self) -> int:
        """G."""
        return self.config.factorizer.factors

    @property
    def codes_of_a_part(self) -> int:
        """M."""
        return self.config.dynamics.action_codes


class LAPO(GenieMatched):
    """LAPO (Schmidt and Jiang 2024, arXiv 2312.10812): a quantised latent action, convolutional models.

    There inverse and forward model see stacked frames instead of features that hold the past, and the forward
    model is a U-Net over pixels.
    """

    def _block(self, width: int) -> nn.Module:
        return ConvolutionBlock(self.patches, width)
