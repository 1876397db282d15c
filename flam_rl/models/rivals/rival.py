"""What all rivals are: as large as FLAM, with one latent action, continuous or coded."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cache

import torch
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

from ...core.codes import plausible, snap
from ...core.layers import nearest_code, parameters
from ...core.stepping import Events
from ..tiles.code_model import Acted, CodeFacts, CodeModel, FLAMConfig
from ..tiles.flam import FLAM
from .stepper import SceneImagination

SMALLEST, LARGEST = 32, 1024
"""Widths that are tried to match FLAM's parameters."""
CODE_SPREAD = 0.05
"""Standard deviation of the posterior of a latent action that is a code."""


class Rival(CodeModel):
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
    def sample_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """Latent actions `(B, 1, A)` drawn from the prior."""

    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> SceneImagination:
        """As `Model.stepper`."""
        return SceneImagination(self, controlled, dtype, compile, events)

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
    """The width, a multiple of 4, that gives `rival` the number of parameters nearest to FLAM's.

    Raises:
        ValueError: no width from `SMALLEST` to `LARGEST` comes within 10%.
    """
    with torch.device("meta"):
        facts = CodeFacts.blank(config, grid, codes, pixels, code_dim)
        wanted = parameters(FLAM(config, facts))
        low, high = SMALLEST, LARGEST
        while high - low > 4:
            middle = (low + high) // 8 * 4
            low, high = (
                (middle, high) if parameters(rival(config, facts, middle)) <= wanted else (low, middle)
            )
        best = min((low, high), key=lambda width: abs(parameters(rival(config, facts, width)) - wanted))
        found = parameters(rival(config, facts, best))
    if abs(found / wanted - 1) > 0.1:
        raise ValueError(
            f"{rival.__name__} cannot be made as large as FLAM: {found} parameters at width {best}, FLAM has {wanted}"
        )
    return best


class Continuous(Rival):
    """A continuous latent action with a standard normal prior: what is wanted is taken as it is, and plausible."""

    def prior(self, factors_BKS: torch.Tensor) -> Distribution:
        """A standard normal."""
        zeros = factors_BKS.new_zeros(*factors_BKS.shape[:-2], 1, self.latent_action_dim)
        return Independent(Normal(zeros, torch.ones_like(zeros)), 1)

    def sample_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """As `Rival.sample_actions`, from a standard normal."""
        shape = (len(factors_BKS), 1, self.latent_action_dim)
        return torch.randn(shape, generator=generator, device=factors_BKS.device, dtype=torch.float32)

    def snap(
        self, factors_BKS: torch.Tensor, index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The wanted latent action itself, with a log-probability of 0."""
        return latent_actions_BA, torch.zeros_like(latent_actions_BA[:, 0])

    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        """Latent actions drawn from the posterior; their cost is its KL from a standard normal."""
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
        return nearest_code(parts, books)

    def latent_action_of(self, codes: torch.Tensor) -> torch.Tensor:
        """Codes int64 `(..., G)` to latent actions `(..., A)`."""
        books = self.codebooks()
        return books[torch.arange(len(books), device=codes.device), codes].flatten(-2)

    def nearest_codes(self, latent_actions: torch.Tensor) -> torch.Tensor:
        """The nearest code of each part, side by side: `(..., A)`."""
        return self.latent_action_of(self.code_of(latent_actions))

    def count(self, latent_actions: torch.Tensor) -> None:
        """Make the prior that of these latent actions `(..., A)`; no code is impossible."""
        codes = self.code_of(latent_actions).flatten(0, -2)
        taken = nn.functional.one_hot(codes, self.frequency_GM.shape[1]).sum(0) + 1.0
        self.frequency_GM.copy_(taken / taken.sum(-1, keepdim=True))

    def prior(self, factors_BKS: torch.Tensor) -> Distribution:
        """Independent parts, each a mixture around its codes by their frequencies."""
        books, lead = self.codebooks(), factors_BKS.shape[:-2]
        logits = self.frequency_GM.log().expand(*lead, 1, -1, -1)
        components = Normal(books.expand(*lead, 1, *books.shape), torch.full_like(books, CODE_SPREAD))
        parts = Independent(MixtureSameFamily(Categorical(logits=logits), Independent(components, 1)), 1)
        flat = ReshapeTransform(
            torch.Size([len(books), books.shape[-1]]), torch.Size([self.latent_action_dim])
        )
        return TransformedDistribution(parts, [flat])

    def nats(self, factors_BTKS: torch.Tensor) -> torch.Tensor:
        """Entropy of the codes taken in these clips, all parts together: float `(1,)`."""
        return self._entropy(self.code_of(self.infer_actions(factors_BTKS).mean).flatten(0, -2))

    def _entropy(self, codes_BG: torch.Tensor) -> torch.Tensor:
        share = nn.functional.one_hot(codes_BG, self.frequency_GM.shape[1]).float().mean(0)
        return -(share * share.clamp_min(1e-9).log()).sum().view(1)

    def sample_actions(self, factors_BKS: torch.Tensor, generator: torch.Generator | None) -> torch.Tensor:
        """As `Rival.sample_actions`, from the codes that are plausible."""
        likely = self.frequency_GM * plausible(self.frequency_GM)
        codes = torch.multinomial(likely, len(factors_BKS), True, generator=generator)
        return self.latent_action_of(codes.T).unsqueeze(1)

    def snap(
        self, factors_BKS: torch.Tensor, index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Model.snap`, part by part; the log-probability is that of the least likely part."""
        books = self.codebooks()
        wanted = latent_actions_BA.unflatten(-1, (len(books), -1)).unbind(1)
        log_probs = self.frequency_GM.log().unsqueeze(1).expand(-1, len(latent_actions_BA), -1)
        found = [snap(*part) for part in zip(log_probs, wanted, books, strict=True)]
        codes, nearest = (torch.stack(part, -1) for part in zip(*found, strict=True))
        return self.latent_action_of(codes), nearest.amin(
            -1
        )  # of the least likely part: what is plausible is said of one
