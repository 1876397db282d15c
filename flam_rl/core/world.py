"""A world: a trained world model with its tokenizer, its start states and what labels added."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import nn
from torch.distributions import Distribution, Normal

from ..models.rivals.oracle import with_actions
from ..models.rivals.rival import Rival
from ..models.tiles.aggregator import Aggregated
from ..models.tiles.code_model import WorldModel
from ..models.tiles.entities import entities_of_tokens
from ..models.tiles.flam import FLAM
from ..models.tiles.stepper import Imagination, SceneImagination
from ..models.tiles.tokenizer import Tokenizer
from ..types import Entities, Rollout, check_ranges
from .heads import FrozenEvents, Labels
from .threads import lone_threads


@dataclass(frozen=True)
class WorldInfo:
    """What a world's config.json says of it beyond its networks.

    Attributes:
        task: gymnasium id of the real task that the video shows; empty if there is none.
        task_kwargs: its arguments.
        horizon: steps of an imagined episode by default.
        training: the resolved configs that it was trained with.
        metrics: the figures of its card, what evaluation on held-out video measured; None for what it could not.
    """

    task: str = ""
    task_kwargs: dict[str, Any] = field(default_factory=dict)
    horizon: int = 64
    training: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, dict[str, float | None] | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_ranges(self, horizon=(1, 10**6))


class World(nn.Module):
    """The public verbs. Everything is batched; its own weights are frozen.

    Args:
        starts_STN: codes of held-out clips, an integer type `(S, T, N)`; imagination starts from them.

    Attributes:
        source: the shipped name or the folder that it was last loaded from or saved to; empty if it never was.
    """

    starts_STN: torch.Tensor
    source: str = ""

    def __init__(
        self,
        tokenizer: Tokenizer,
        model: WorldModel,
        starts_STN: torch.Tensor,
        info: WorldInfo,
        labels: Labels | None = None,
    ) -> None:
        super().__init__()
        self.tokenizer, self.model, self.info, self.labels = tokenizer, model, info, labels
        self.register_buffer("starts_STN", starts_STN, persistent=False)
        self.eval().requires_grad_(False).float()  # whatever torch's default dtype was

    @property
    def device(self) -> torch.device:
        """Where the world's tensors live."""
        return self.starts_STN.device

    @property
    def factors(self) -> int:
        """K."""
        return self.model.factors

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.model.factor_dim

    @property
    def latent_actions(self) -> int:
        """L: how many latent actions a step has, one for each factor or one for all."""
        return self.model.latent_actions

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.model.latent_action_dim

    @property
    def window(self) -> int:
        """Frames that the factorizer looks back, the present one included."""
        return self.model.window

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)`."""
        return self.tokenizer.encode(frames)

    def encode_episode(
        self, frames: np.ndarray, entities: dict[str, np.ndarray] | None = None
    ) -> torch.Tensor:
        """Codes of an episode's frames uint8 `(T, H, W, 3)`, for evaluation: int64 `(T, N)`, and for a model that
        is told the true actions, which are `entities["action"]`, with those.

        Raises:
            ValueError: the model must be told and there is nothing to tell.
        """
        z = self.encode(torch.as_tensor(frames, device=self.device))
        if not self.model.TOLD:
            return z
        if entities is None:
            raise ValueError("the oracle is told the true actions; this video comes without")
        return with_actions(z, entities["action"])

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(..., N)` to frames float `(..., H, W, 3)` in 0..1."""
        return self.tokenizer.decode(z)

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes `(B, T, N)` of successive frames to factors `(B, T, K, S)`."""
        return self.model.factorize(z_BTN)

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """Latent actions between successive factors: a Normal of shape `(B, T - 1, L, A)`."""
        return self.model.infer_actions(factors_BTKS)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """Next factors `(B, K, S)` under latent actions `(B, L, A)`."""
        return self.model.step(factors_BKS, latent_actions_BLA)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Code log-probabilities `(B, N, V)` and factor masks `(B, K, N)`."""
        return self.model.aggregate(factors_BKS)

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """What would be done by itself: a distribution of latent actions, batch `(B, L)`, event `(A,)`."""
        return self.model.prior(factors_BKS)

    def paint(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(..., N)` to frames uint8 `(..., H, W, 3)`: `decode` as a lookup of whole patches."""
        looks = (self.tokenizer.looks() * 255).round().to(torch.uint8)
        return self.tokenizer.unpatch(looks[z])

    def draw(self, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Frames uint8 `(B, H, W, 3)` of factors: the most likely code at each token."""
        return self.paint(self.aggregate(factors_BKS).log_probs_BNV.argmax(-1))

    @torch.inference_mode()
    def entities(self, frames: np.ndarray, masks: bool = False) -> Entities:
        """What factors draw in the frames of a clip, uint8 `(T, H, W, 3)`: entity k is factor k.

        Args:
            masks: whether to give the share of each pixel too that each factor draws.

        Raises:
            ValueError: the frames are no such array or of another size than the world's; or the model has one factor for
                the whole scene, or must be told true actions.
        """
        size = self.tokenizer.frame_size
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*size, 3):
            raise ValueError(
                f"this world sees frames uint8 (T, {size[0]}, {size[1]}, 3); given {frames.dtype} {frames.shape}"
            )
        if self.factors == 1:
            raise ValueError(
                f"{type(self.model).__name__} draws the scene as one factor: it tells no entities apart"
            )
        drawn = self.aggregate(self.factorize(self.encode_episode(frames)[None])[0])
        return entities_of_tokens(drawn.masks_BKN, self.tokenizer.grid, self.tokenizer.config.patch, masks)

    def imagine(
        self,
        policy: Callable[[torch.Tensor], torch.Tensor],
        factors_BKS: Float[torch.Tensor, "B K S"],
        horizon: int,
        controlled: Sequence[int] = (),
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> Rollout:
        """Imagine `horizon` steps without leaving the device, in the same steps as FLAM-v0.

        Other than there, nothing is clipped or restarted, rewards are expected ones and ends are probabilities.

        Gradients flow from factors, rewards and terminations to the policy's parameters, straight through the
        snapping of latent actions; call it under `torch.inference_mode()` where they are not wanted.

        Args:
            policy: factors `(B, K * S)`, FLAM-v0's observation, to the controlled latent actions `(B, C * A)`.
            factors_BKS: where to begin, of `start` for instance.
            controlled: indices of the C latent actions that are the policy's; with none it is not called.
            generator: of what the prior decides.
            dtype: of products large enough to gain from it; factors stay float32.
        """
        imagination, threads = self.imagination(controlled, dtype), lone_threads()
        state = threads.run(lambda: imagination.begin(factors_BKS))
        factors, latent_actions, log_prior = [factors_BKS], [], []
        for _ in range(horizon):
            wanted = None
            if controlled:
                seen = threads.run(lambda: state.factors_BKS.flatten(1))  # noqa: B023, it runs at once
                wanted = policy(seen).unflatten(-1, (len(controlled), -1))
            state, taken = imagination.step(state, wanted, generator)
            factors.append(state.factors_BKS)
            latent_actions.append(taken.latent_actions_BLA)
            log_prior.append(taken.log_prior_BC)

        def rollout() -> Rollout:
            entered = torch.stack(factors[1:], 1)
            return Rollout(
                torch.stack(factors, 1),
                torch.stack(latent_actions, 1),
                torch.stack(log_prior, 1),
                *(self.labels.judge(entered) if self.labels else entered.new_zeros(2, *entered.shape[:2])),
            )

        return threads.run(rollout)

    def imagination(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: bool = False,
    ) -> Imagination | SceneImagination:
        """A stepper in which the caller has the controlled latent actions and the prior the others; with
        `events` and labels it tells rewards and ends as FLAM-v0 does."""
        frozen = FrozenEvents(self.labels, dtype) if events and self.labels else None
        if isinstance(self.model, Rival):
            return SceneImagination(self.model, controlled, dtype, compile, frozen)
        assert isinstance(self.model, FLAM)
        return Imagination(self.model, controlled, dtype, compile, frozen)

    def moved_by(self, factor: int) -> int:
        """Which latent action moves a factor: its own, or the scene's."""
        return factor if self.latent_actions > 1 else 0

    def of_factors(self, latent_actions: torch.Tensor) -> torch.Tensor:
        """The latent action of each factor: `(..., L, A)` to `(..., K, A)`."""
        return latent_actions.expand(*latent_actions.shape[:-2], self.factors, -1)

    def snap(self, factors_BKS: torch.Tensor, factor: int, latent_actions_BA: torch.Tensor) -> torch.Tensor:
        """The latent action `(B, A)` that imagination takes when this one is wanted of `factor`, moving first."""
        return self.model.snap(factors_BKS, self.moved_by(factor), latent_actions_BA)[0]

    def starts(self) -> Float[torch.Tensor, "starts K S"]:
        """Factors `(starts, K, S)` at the end of every held-out clip that imagination starts from."""
        return self.factorize(self.starts_STN.long())[:, -1]

    def start(self, count: int, generator: torch.Generator | None = None) -> torch.Tensor:
        """Factors `(count, K, S)` at the end of clips drawn from the held-out ones."""
        drawn = torch.randint(len(self.starts_STN), (count,), generator=generator, device=self.device)
        clips = self.starts_STN[drawn]
        return self.factorize(clips.long())[:, -1]
