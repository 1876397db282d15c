"""What every world model has: the verbs, and the loss of drawing and predicting frames."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Distribution, Normal

from ...core.stepping import Events, LatentDynamics, Stepper
from ...types import LossAndMetrics, check_ranges
from .aggregator import Aggregated, AggregatorConfig
from .dynamics import DynamicsConfig
from .factorizer import Factorizer, FactorizerConfig


@dataclass(frozen=True)
class FLAMConfig:
    """Of FLAM, and of the rivals that are matched to it."""

    factorizer: FactorizerConfig = field(default_factory=FactorizerConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    aggregator: AggregatorConfig = field(default_factory=AggregatorConfig)
    objective: Literal["codes", "features"] = "codes"
    """`codes`: cross-entropy of code indices. `features`: the paper's squared error of code vectors."""
    rarity_power: float = 0.7
    """Codes weigh frequency^-rarity_power in the loss: moving things are few and small."""
    pull: float = 1.0
    """Weight of predicted factors staying near what the factorizer makes of the true next frame."""
    commitment: float = 0.1
    """Weight of latent actions staying near their action code."""
    drawing: float = 0.03
    """Price of each share of a token that a factor draws: what the background can draw is not a factor's."""

    def __post_init__(self) -> None:
        check_ranges(self, rarity_power=(0, 10), pull=(0, 1e6), commitment=(0, 1e6), drawing=(0, 1e6))


class CodeFacts(NamedTuple):
    """Statistics of the codes that a model is made for.

    Attributes:
        looks_VP: float in 0..1, the mean pixels of each code.
        codebook_VD: the code vectors.
        keys_VE, queries_KE: where slot attention starts from, of `binding.coherent_keys`.
        frequency_V, activity_V, background_NV: of `binding.code_statistics`.
        grid: rows and columns of tokens.
    """

    looks_VP: torch.Tensor
    codebook_VD: torch.Tensor
    keys_VE: torch.Tensor
    queries_KE: torch.Tensor
    frequency_V: torch.Tensor
    activity_V: torch.Tensor
    background_NV: torch.Tensor
    grid: tuple[int, int]

    @property
    def still_NV(self) -> torch.Tensor:
        """`background_NV` without the codes that show what moves: those are for factors to draw.

        A background that may draw them from the start keeps looks that are seen at one place only, an agent on
        the goal, to itself: a factor that has not learned such a look yet does better not to draw there at all.
        """
        return self.background_NV * (self.keys_VE[:, -1] > 0)

    @classmethod
    def blank(
        cls, config: FLAMConfig, grid: tuple[int, int], codes: int, pixels: int, code_dim: int
    ) -> CodeFacts:
        """Facts of the right shapes, for a model whose weights are loaded or only counted."""
        queries = config.factorizer.factors + 1
        return cls(
            looks_VP=torch.ones(codes, pixels),
            codebook_VD=torch.ones(codes, code_dim),
            keys_VE=torch.ones(codes, queries),
            queries_KE=torch.ones(queries, queries),
            frequency_V=torch.ones(codes),
            activity_V=torch.ones(codes),
            background_NV=torch.ones(grid[0] * grid[1], codes),
            grid=grid,
        )


def make_factorizer(config: FLAMConfig, facts: CodeFacts) -> Factorizer:
    """The factorizer of the models that have one."""
    return Factorizer(
        config.factorizer,
        facts.looks_VP,
        facts.keys_VE,
        facts.queries_KE,
        facts.activity_V,
        facts.grid,
    )


class Acted(NamedTuple):
    """Latent actions to unroll a clip with in training, and what they cost.

    Attributes:
        latent_actions_BTLA: `(B, T, L, A)`, drawn from the posterior.
        cost: what is added to the loss.
        metrics: what to log, `kl` among them, `(L,)`.
    """

    latent_actions_BTLA: torch.Tensor
    cost: torch.Tensor
    metrics: dict[str, torch.Tensor]


class CodeModel(LatentDynamics, nn.Module, ABC):
    """Factors of frames, and the latent actions that move them; over the codes of a frozen tokenizer.

    A frame has K factors and a step L latent actions: FLAM has one for each factor, its rivals one for all.
    """

    NEEDS_ACTIONS = False
    """Whether it is given the entities' true actions, in columns after those of a frame's codes."""
    WORTH_COMPILING = False
    """Whether a compiled stepper pays where many worlds are stepped on a CPU."""
    weight_V: torch.Tensor
    codebook_VD: torch.Tensor

    def __init__(self, config: FLAMConfig, facts: CodeFacts) -> None:
        super().__init__()
        self.config, self.grid = config, facts.grid
        self._prepare(facts)
        weight_V = facts.frequency_V.clamp_min(1e-6) ** -config.rarity_power
        self.register_buffer("weight_V", weight_V / (weight_V * facts.frequency_V).sum())
        self.register_buffer("codebook_VD", facts.codebook_VD)

    @abstractmethod
    def _prepare(self, facts: CodeFacts) -> None:
        """Make the parts."""

    @property
    def factors(self) -> int:
        """K."""
        return self.config.factorizer.factors

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.config.factorizer.factor_dim

    @property
    def latent_actions(self) -> int:
        """L: how many latent actions a step has; factor i is moved by number i, or by the only one."""
        return self.factors

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.config.dynamics.latent_action_dim

    @property
    def window(self) -> int:
        """Frames that the factorizer looks back, the present one included."""
        return self.config.factorizer.window if self.config.factorizer.temporal_attention else 1

    @abstractmethod
    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes int64 `(B, T, N)` of successive frames to factors `(B, T, K, S)` of unit RMS."""

    @abstractmethod
    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """Latent actions between successive factors: a Normal of shape `(B, T - 1, L, A)`."""

    @abstractmethod
    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Next factors `(B, K, S)` under latent actions `(B, L, A)`."""

    @abstractmethod
    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Code log-probabilities `(..., N, V)` and factor masks `(..., K, N)` of factors `(..., K, S)`."""

    @abstractmethod
    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """`p(a^i | s)`: a distribution with batch shape `(B, L)` and event shape `(A,)`."""

    @abstractmethod
    def snap(
        self, factors_BKS: Float[torch.Tensor, "B K S"], index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is taken in imagination when latent action number `index` is wanted to be `(B, A)` and moves
        first, and the prior's log-probability `(B,)` of the action code nearest to what was wanted."""

    @abstractmethod
    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> Stepper:
        """As `Model.stepper`."""

    @property
    def action_codes(self) -> torch.Tensor | None:
        """The latent actions of a factor that the prior chooses from `(M, A)`; None in a model without."""
        return None

    def nearest_codes(self, latent_actions: torch.Tensor) -> torch.Tensor | None:
        """The action codes nearest to latent actions `(..., A)`; None in a model without codes."""
        return None

    @abstractmethod
    def act(self, factors_BTKS: torch.Tensor, beta: float) -> Acted:
        """Latent actions of clips of factors, for training; `beta` weighs the KL from a standard normal."""

    def loss(self, z_BTN: Int[torch.Tensor, "B T N"], beta: float) -> LossAndMetrics:
        """Prediction, reconstruction, what latent actions cost, and what holds an imagined world together.

        Args:
            z_BTN: codes int64 of clips, T at least 2.
            beta: weight of the KL from the standard normal.
        """
        factors_BTKS = self.factorize(z_BTN)
        acted = self.act(factors_BTKS, beta)
        unrolled_BTKS = self.unroll(factors_BTKS[:, 0], acted.latent_actions_BTLA)
        predicted_BTKS, target_BTKS = unrolled_BTKS[:, 1:], factors_BTKS[:, 1:]
        prediction, _ = self._frame_loss(predicted_BTKS, z_BTN[:, 1:])
        reconstruction, masks_BTKN = self._frame_loss(factors_BTKS, z_BTN)
        drawn_K = masks_BTKN.sum(-1).mean((0, 1))
        pull = (predicted_BTKS - target_BTKS.detach()).square().mean()
        pull = pull + 0.1 * (predicted_BTKS.detach() - target_BTKS).square().mean()
        loss = (
            prediction
            + reconstruction
            + acted.cost
            + self.config.pull * pull
            + self.config.drawing * drawn_K.sum() / masks_BTKN.shape[-1]
        )
        metrics: dict[str, Any] = {
            "loss": loss,
            "prediction": prediction,
            "reconstruction": reconstruction,
            "pull": pull,
            "tokens_drawn": drawn_K,
            **acted.metrics,
        }
        return loss, {key: value.detach() for key, value in metrics.items()}

    def _frame_loss(
        self, factors_BTKS: torch.Tensor, z_BTN: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Loss of drawing codes `(B, T, N)`, and the masks `(B, T, K, N)` that they were drawn by."""
        log_probs, masks = self.aggregate(factors_BTKS)
        weight = self.weight_V[z_BTN]
        if self.config.objective == "features":
            error = (log_probs.exp() @ self.codebook_VD - self.codebook_VD[z_BTN]).square().mean(-1)
            return (weight * error).mean(), masks
        return -(weight * log_probs.gather(-1, z_BTN.unsqueeze(-1)).squeeze(-1)).mean(), masks
