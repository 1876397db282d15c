"""FLAM's rivals: one latent action for the whole scene, behind the same verbs.

All of them share with FLAM what is not the question: tokenizer, loss of drawing and predicting codes, clips, open-loop
unroll, optimiser and steps, the number of latent dims of a step, and, within 10%, parameters: `matched_width`
chooses their width. What the papers do otherwise is said class by class.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import (
    Categorical,
    Distribution,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
    kl_divergence,
)
from torch.distributions.transforms import ReshapeTransform
from vector_quantize_pytorch import VectorQuantize

from .aggregator import Aggregated, make_aggregator
from .dynamics import ForwardDynamics, snap
from .factorizer import Factorizer, TemporalAttention
from .flam import FLAM
from .layers import AttentionOverFactors, mlp, sincos_positions, unit_rms
from .world_model import Acted, CodeFacts, FLAMConfig, WorldModel

PATCH = 2
"""Tokens along a side of the patches that scene models see a frame in."""
DIM = 128
"""Width of a patch."""
SMALLEST, LARGEST = 8, 1024
"""Widths that are tried to match FLAM's parameters."""
CODE_SPREAD = 0.05
"""Standard deviation that a latent action which is a code is said to have."""


class Rival(WorldModel):
    """One latent action for the scene, as wide as FLAM's of all factors together."""

    def __init__(self, config: FLAMConfig, facts: CodeFacts, width: int | None = None) -> None:
        self._width = width
        super().__init__(config, facts)

    def _prepare(self, facts: CodeFacts) -> None:
        sizes = (len(facts.looks_VP), facts.looks_VP.shape[1], facts.codebook_VD.shape[1])
        width = self._width or matched_width(type(self), self.config, facts.grid, *sizes)
        self._make(facts, width)

    @abstractmethod
    def _make(self, facts: CodeFacts, width: int) -> None:
        """Make the parts, hidden layers `width` wide."""

    @abstractmethod
    def draw_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Latent actions `(B, 1, A)` drawn from the prior."""

    @property
    def latent_actions(self) -> int:
        """L."""
        return 1

    @property
    def latent_action_dim(self) -> int:
        """A: as many dims as all of FLAM's latent actions have together."""
        return self.config.factorizer.factors * self.config.dynamics.latent_action_dim


@cache
def matched_width(
    rival: type[Rival], config: FLAMConfig, grid: tuple[int, int], codes: int, pixels: int, code_dim: int
) -> int:
    """The width, a multiple of 4, that gives `rival` the number of parameters nearest to FLAM's."""
    with torch.device("meta"):
        facts = CodeFacts.blank(config, grid, codes, pixels, code_dim)
        wanted = parameters(FLAM(config, facts))
        low, high = SMALLEST, LARGEST
        while high - low > 4:
            middle = (low + high) // 8 * 4
            low, high = (
                (middle, high) if parameters(rival(config, facts, middle)) <= wanted else (low, middle)
            )
        return min((low, high), key=lambda width: abs(parameters(rival(config, facts, width)) - wanted))


def parameters(model: nn.Module) -> int:
    """How many there are."""
    return sum(parameter.numel() for parameter in model.parameters())


class Continuous(Rival):
    """A continuous latent action with a standard normal prior: what is wanted is taken as it is."""

    def prior(self, factors_BKS: torch.Tensor) -> Distribution:
        zeros = factors_BKS.new_zeros(*factors_BKS.shape[:-2], 1, self.latent_action_dim)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def draw_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        shape = (len(factors_BKS), 1, self.latent_action_dim)
        return torch.randn(shape, generator=generator, device=factors_BKS.device)

    def snap(
        self, factors_BKS: torch.Tensor, index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return latent_actions_BA, torch.zeros_like(latent_actions_BA[:, 0])

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        posterior = self.infer_actions(factors_BTKS)
        kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(-1).mean((0, 1))
        return Acted(posterior.rsample(), beta * kl.sum(), {"kl": kl})


class Coded(Rival):
    """A latent action of G parts, each one of M codes; the prior is how often the video takes each code."""

    frequency_GM: torch.Tensor

    @abstractmethod
    def codebooks(self) -> torch.Tensor:
        """What the codes stand for: float `(G, M, A / G)`."""

    def code_of(self, latent_actions: torch.Tensor) -> torch.Tensor:
        """The nearest code of each part: `(..., A)` to int64 `(..., G)`."""
        books = self.codebooks()
        parts = latent_actions.unflatten(-1, (len(books), -1))
        return (parts.unsqueeze(-2) - books).square().sum(-1).argmin(-1)

    def of_code(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes int64 `(..., G)` to latent actions `(..., A)`."""
        books = self.codebooks()
        return books[torch.arange(len(books), device=codes.device), codes].flatten(-2)

    def count(self, latent_actions: torch.Tensor) -> None:
        """Make the prior that of these latent actions `(..., A)`; no code is impossible."""
        codes = self.code_of(latent_actions).flatten(0, -2)
        taken = nn.functional.one_hot(codes, self.frequency_GM.shape[1]).sum(0) + 1.0
        self.frequency_GM.copy_(taken / taken.sum(-1, keepdim=True))

    def prior(self, factors_BKS: torch.Tensor) -> Distribution:
        books, lead = self.codebooks(), factors_BKS.shape[:-2]
        logits = self.frequency_GM.log().expand(*lead, 1, -1, -1)
        components = Normal(books.expand(*lead, 1, *books.shape), torch.full_like(books, CODE_SPREAD))
        parts = Independent(MixtureSameFamily(Categorical(logits=logits), Independent(components, 1)), 1)
        flat = ReshapeTransform(
            torch.Size([len(books), books.shape[-1]]), torch.Size([self.latent_action_dim])
        )
        return TransformedDistribution(parts, [flat])

    def draw_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        codes = torch.multinomial(self.frequency_GM, len(factors_BKS), True, generator=generator)
        return self.of_code(codes.T).unsqueeze(1)

    def snap(
        self, factors_BKS: torch.Tensor, index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        books = self.codebooks()
        wanted = latent_actions_BA.unflatten(-1, (len(books), -1)).unbind(1)
        log_probs = self.frequency_GM.log().unsqueeze(1).expand(-1, len(latent_actions_BA), -1)
        found = [snap(*part) for part in zip(log_probs, wanted, books, strict=True)]
        codes, nearest = (torch.stack(part, -1) for part in zip(*found, strict=True))
        return self.of_code(codes), nearest.sum(-1)


class SceneModel(Rival):
    """A frame is one factor, the features of its patches; one latent action moves all of them.

    Encoder -> features; two frames' features -> latent action; features and latent action -> next features; a
    linear map -> codes, from the static background that FLAM too starts from. The past enters features by causal attention of each patch over the same window
    as FLAM's factors have. A patch is 2x2 tokens, as vision transformers have them: a quarter of the cost.
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
        self.background_NV = nn.Parameter((facts.background_NV + 1e-4).log())

    def _block(self, width: int) -> nn.Module:
        """What mixes patches: float `(..., P, D)` to the same shape."""
        return TransformerBlock(width)

    def _make_inverse(self, width: int) -> None:
        """What tells the latent action between two frames."""
        self.pair = nn.Linear(2 * DIM, DIM)
        self.change = self._block(width)
        self.squeeze = nn.Linear(DIM, 16)
        self.infer = mlp(16 * self.patches[0] * self.patches[1], 64, self.posterior_dim)

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
        looks = nn.functional.embedding(z_BTN, self.look(self.looks_VP))
        (rows, columns), lead = self.patches, z_BTN.shape[:-1]
        cut = looks.view(*lead, rows, PATCH, columns, PATCH, -1).transpose(-4, -3)
        features = self.patch(cut.reshape(*lead, rows * columns, DIM)) + self.positions_PD
        features = unit_rms(self.encoder(features))
        if self.past is not None:
            features = unit_rms(self.past(features))
        return features.flatten(-2).unsqueeze(-2)

    def posterior(self, factors_BTKS: torch.Tensor) -> torch.Tensor:
        """What the inverse model says of latent actions: float `(B, T - 1, 1, posterior_dim)`."""
        features = factors_BTKS.squeeze(-2).unflatten(-1, (-1, DIM))
        change = self.change(self.pair(torch.cat([features[:, :-1], features[:, 1:]], -1)))
        return self.infer(self.squeeze(change).flatten(-2)).unsqueeze(-2)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        features = factors_BKS.squeeze(-2).unflatten(-1, (-1, DIM))
        return unit_rms(self.dynamics(features + self.acted(latent_actions_BLA))).flatten(-2).unsqueeze(-2)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        (rows, columns), lead = self.patches, factors_BKS.shape[:-2]
        logits = self.draw(factors_BKS.squeeze(-2).unflatten(-1, (rows, columns, DIM)))
        logits = logits.unflatten(-1, (PATCH, PATCH, -1)).transpose(-4, -3)
        logits = logits.reshape(*lead, rows * columns * PATCH**2, -1) + self.background_NV
        log_probs = logits.log_softmax(-1)
        return Aggregated(log_probs, log_probs.new_ones(*lead, 1, log_probs.shape[-2]))


class TransformerBlock(nn.Module):
    """Pre-normalised attention among patches, then an MLP."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = AttentionOverFactors(DIM)
        self.net = mlp(DIM, width, DIM)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """float `(..., P, D)` to the same shape."""
        x = self.attention(x)
        return x + self.net(unit_rms(x))


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
        return torch.stack([torch.as_tensor(quantizer.codebook) for quantizer in self.quantizers])

    def _bounded(self, factors_BTKS: torch.Tensor) -> torch.Tensor:
        return 3 * (self.posterior(factors_BTKS) / 3).tanh()  # FLAM-v0's box

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        codes = self.of_code(self.code_of(self._bounded(factors_BTKS)))
        return Normal(codes, torch.full_like(codes, CODE_SPREAD))

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        latent = self._bounded(factors_BTKS)
        found = [
            quantizer(part.flatten(0, -2))
            for quantizer, part in zip(self.quantizers, latent.chunk(self.parts, -1), strict=True)
        ]
        snapped = torch.cat([part for part, _, _ in found], -1).view(latent.shape)
        commitment = torch.stack([part.sum() for _, _, part in found]).sum()
        used = torch.stack([code.bincount(minlength=self.codes_of_a_part) for _, code, _ in found])
        share = used / used.sum(-1, keepdim=True)
        # What a code tells at most, in nats: the KL of "this code" from how often it is taken.
        kl = -(share * share.clamp_min(1e-9).log()).sum().view(1)
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


class Oracle(Coded, SceneModel):
    """The ceiling: the true joint action is given, nothing is inferred.

    It is the one model that is told actions. Codes of a frame may be followed by K columns, an entity's action that
    led to it plus 1, or 0 if it is not known; factors carry them.
    """

    TOLD = True
    CHOICES = 4

    @property
    def latent_action_dim(self) -> int:
        """A: an indicator of each entity's action."""
        return self.config.factorizer.factors * self.CHOICES

    @property
    def factor_dim(self) -> int:
        """S: features of all patches and the joint action that led to them."""
        return super().factor_dim + self.latent_action_dim

    def _make_inverse(self, width: int) -> None:
        entities = self.config.factorizer.factors
        self.register_buffer("frequency_GM", torch.full((entities, self.CHOICES), 1 / self.CHOICES))

    def codebooks(self) -> torch.Tensor:
        indicator = 2 * torch.eye(self.CHOICES, device=self.weight_V.device)  # of unit RMS
        return indicator.expand(len(self.frequency_GM), -1, -1)

    def _frame_loss(
        self, factors_BTKS: torch.Tensor, z_BTN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return super()._frame_loss(factors_BTKS, z_BTN[..., : self.grid[0] * self.grid[1]])

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        tokens = self.grid[0] * self.grid[1]
        features = super().factorize(z_BTN[..., :tokens])
        entities = len(self.frequency_GM)
        told = nn.functional.pad(z_BTN[..., tokens:], (0, entities))[..., :entities]
        unknown = torch.ones(self.latent_action_dim, device=z_BTN.device)
        acted = self.of_code((told - 1).clamp_min(0))
        acted = torch.where(told.repeat_interleave(self.CHOICES, -1) > 0, acted, unknown)
        return torch.cat([features, acted.unsqueeze(-2)], -1)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        told = factors_BTKS[:, 1:, :, -self.latent_action_dim :]
        return Normal(told, torch.full_like(told, CODE_SPREAD))

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        told = self.infer_actions(factors_BTKS).mean
        return Acted(told, told.new_zeros(()), {"kl": told.new_zeros(1)})

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        features = super().step(factors_BKS[..., : -self.latent_action_dim], latent_actions_BLA)
        return torch.cat([features, latent_actions_BLA], -1)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        return super().aggregate(factors_BKS[..., : -self.latent_action_dim])


def with_actions(z: torch.Tensor, actions: np.ndarray) -> torch.Tensor:
    """Codes `(T, N)` followed by what the oracle is told, `(T, N + K)`.

    Args:
        actions: int `(T, K)`, what each entity did to come to a frame, -1 where that is not known.
    """
    return torch.cat([z, torch.as_tensor(actions + 1, device=z.device).to(z.dtype)], 1)


class PlaySlot(Continuous):
    """PlaySlot (Villar-Corrales and Behnke 2025, arXiv 2502.07600): factors as FLAM's, one latent action for all.

    There slots come from SAVi, the latent action is a code plus a small continuous part, and the dynamics is a
    transformer over past slots; here everything but the latent action is FLAM's, so that it alone is compared.
    """

    def _make(self, facts: CodeFacts, width: int) -> None:
        config, dim = self.config, self.config.factorizer.factor_dim
        self.factorizer = Factorizer(
            config.factorizer,
            facts.looks_VP,
            facts.keys_VE,
            facts.queries_KE,
            facts.activity_V,
            facts.grid,
        )
        self.pair = nn.Linear(3 * dim, dim)
        self.interaction = AttentionOverFactors(dim)
        self.infer = mlp(dim, width, 2 * self.latent_action_dim)
        wide = replace(config.dynamics, latent_action_dim=self.latent_action_dim, hidden=width)
        self.forward_dynamics = ForwardDynamics(wide, dim)
        self.aggregator = make_aggregator(config.aggregator, dim, facts.grid, facts.background_NV)

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        return self.factorizer(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        now, following = factors_BTKS[:, :-1], factors_BTKS[:, 1:]
        pair = self.interaction(self.pair(torch.cat([now, following, following - now], -1)))
        mean, raw = self.infer(pair.mean(-2, keepdim=True)).chunk(2, -1)
        return Normal(mean, nn.functional.softplus(raw + 0.5) + 1e-2)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        shared = latent_actions_BLA.expand(*factors_BKS.shape[:-1], -1)
        return self.forward_dynamics(factors_BKS, shared)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        return self.aggregator(factors_BKS)


class CopyLastFrame(Continuous):
    """The floor: nothing ever moves. It has no parameters; a factor is the frame's codes, each a fixed random vector."""

    WIDTH = 16
    vectors_VD: torch.Tensor

    def _prepare(self, facts: CodeFacts) -> None:
        self._make(facts, 0)

    def _make(self, facts: CodeFacts, width: int) -> None:
        generator = torch.Generator().manual_seed(0)
        vectors_VD = torch.randn(len(facts.looks_VP), self.WIDTH, generator=generator)
        self.register_buffer("vectors_VD", unit_rms(vectors_VD))

    @property
    def factors(self) -> int:
        """K: the scene."""
        return 1

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.grid[0] * self.grid[1] * self.WIDTH

    @property
    def window(self) -> int:
        """The present frame."""
        return 1

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        return nn.functional.embedding(z_BTN, self.vectors_VD).flatten(-2).unsqueeze(-2)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        zeros = factors_BTKS.new_zeros(*factors_BTKS[:, 1:].shape[:-1], self.latent_action_dim)
        return Normal(zeros, torch.ones_like(zeros))

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        return factors_BKS

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        vectors = factors_BKS.squeeze(-2).unflatten(-1, (-1, self.WIDTH))
        log_probs = (20 / self.WIDTH * vectors @ self.vectors_VD.T).log_softmax(-1)
        return Aggregated(log_probs, log_probs.new_ones(*log_probs.shape[:-2], 1, log_probs.shape[-2]))


ModelName = Literal["flam", "genie", "genie-matched", "adaworld", "lapo", "playslot", "copy", "oracle"]
MODELS: dict[ModelName, type[WorldModel]] = {
    "flam": FLAM,
    "genie": Genie,
    "genie-matched": GenieMatched,
    "adaworld": AdaWorld,
    "lapo": LAPO,
    "playslot": PlaySlot,
    "copy": CopyLastFrame,
    "oracle": Oracle,
}
"""Every model by its name; `copy` is copy-last-frame."""


def name_of(model: WorldModel) -> ModelName:
    """The name of a model's class."""
    return next(name for name, kind in MODELS.items() if kind is type(model))
