"""The verbs that every model has, whatever it is made of. Consumers know these and no model's class."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import nn
from torch.distributions import Distribution, MixtureSameFamily, Normal

from ..types import Entities, Scene
from .codes import plausible
from .layers import nearest_code, parameters
from .stepping import Events, LatentDynamics, Stepper

Starts = Mapping[str, torch.Tensor]
"""What a model keeps of the scenes that imagination starts from, by name; S comes first in every tensor that has a row a start."""
CONTEXT_CODE_BOUND = 3.0
"""No number of a context's code is larger, nor smaller than minus this; over the video they have mean 0 and spread 1."""


@runtime_checkable
class Watcher(Protocol):
    """What a model sees of B running tasks, frame by frame; it knows the past only."""

    def see(self, frames: np.ndarray, fresh: np.ndarray, moved: np.ndarray | None = None) -> Scene:
        """The scenes `(B, ...)` after frames uint8 `(B, H, W, 3)`.

        Args:
            fresh: bool `(B,)`, the tasks of which this is the first frame.
            moved: bool `(B,)`, the tasks that have a new frame; by default all.
        """


class Model(LatentDynamics, nn.Module, ABC):
    """Frames to factors and back, and the latent actions that move factors.

    A frame has K factors and a step L latent actions: FLAM has one for each factor, its rivals one for all. What no
    factor moves is the context, X numbers that stay as they are in imagination.
    """

    needs_actions: bool = False
    """Whether `see` must be given the entities' true actions."""
    worth_compiling: bool = False
    """Whether a compiled stepper pays where many worlds are stepped on a CPU."""
    feature_shape: tuple[int, int] | None = None
    """Shape of `features`, (N, D); None in a model that has none."""

    @property
    @abstractmethod
    def frame_size(self) -> tuple[int, int]:
        """Height and width of frames."""

    @property
    @abstractmethod
    def factors(self) -> int:
        """K."""

    @property
    @abstractmethod
    def factor_dim(self) -> int:
        """S."""

    @property
    def readings(self) -> tuple[int, ...]:
        """Counts of a factor's first numbers, each of which says more of it than the one before, up to S: what is fitted to few
        labels starts with few numbers."""
        return (self.factor_dim,)

    @property
    @abstractmethod
    def factor_bound(self) -> float:
        """No entry of a factor is larger, nor smaller than minus this."""

    @property
    @abstractmethod
    def latent_actions(self) -> int:
        """L: how many latent actions a step has; factor i is moved by number i, or by the only one."""

    @property
    @abstractmethod
    def latent_action_dim(self) -> int:
        """A."""

    @property
    def size(self) -> int:
        """How many parameters it has; of a model of codes without the tokenizer, which all of those share."""
        return parameters(self)

    @abstractmethod
    def see(self, frames: torch.Tensor, actions: torch.Tensor | None = None) -> Scene:
        """Clips of frames uint8 `(B, T, H, W, 3)` to factors `(B, T, K, S)` and what the clips show of the context
        `(B, X)`; a frame's factors depend on it and those before.

        Args:
            actions: int `(B, T, E)`, what each entity did to come to a frame, -1 where that is not known.

        Raises:
            ValueError: the model needs actions and there are none.
        """

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
    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """What would be done by itself: a distribution of latent actions, batch `(B, L)`, event `(A,)`."""

    @abstractmethod
    def snap(
        self, factors_BKS: Float[torch.Tensor, "B K S"], index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """What is taken in imagination when latent action number `index` is wanted to be `(B, A)` and moves
        first, and the prior's log-probability `(B,)` of the action code nearest to what was wanted."""

    @property
    def action_codes(self) -> Float[torch.Tensor, "M A"] | None:
        """The few latent actions of a factor that the prior chooses from; None in a model without."""
        return None

    def nearest_codes(self, latent_actions: torch.Tensor) -> torch.Tensor | None:
        """The codes nearest to latent actions `(..., A)`, as imagination takes them; None in a model without codes."""
        codes = self.action_codes
        return None if codes is None else codes[nearest_code(latent_actions, codes)]

    def present(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Bool[torch.Tensor, "B K"]:
        """Which factors follow an entity that is there; all of them in a model whose entities neither come nor go."""
        return factors_BKS.new_ones(factors_BKS.shape[:2], dtype=torch.bool)

    def plausible_codes(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Bool[torch.Tensor, "B L M"]:
        """Which action codes the prior finds plausible for each latent action if it moves first: those that `snap` leaves as
        they are.

        Raises:
            NotImplementedError: the prior chooses from no codes.
        """
        prior = self.prior(factors_BKS)
        if not isinstance(prior, MixtureSameFamily) or self.action_codes is None:
            raise NotImplementedError(f"{type(self).__name__} has no action codes")
        return plausible(prior.mixture_distribution.probs)

    def opening(self, frames: torch.Tensor, start: int, steps: int) -> tuple[Scene, torch.Tensor]:
        """What prediction starts from in a clip of frames uint8 `(T, H, W, 3)`: factors `(K, S)` and context `(X,)` of frame
        `start` as frames 0 to `start` show them, and the latent actions `(steps, L, A)` that the true frames after it tell, of
        the same factors."""
        seen = self.see(frames[None, : start + 1])
        now = Scene(seen.factors[0, -1], seen.context[0])
        if not steps:
            return now, seen.factors.new_zeros(0, self.latent_actions, self.latent_action_dim)
        factors = self.see(frames[None, : start + 1 + steps]).factors
        return now, self.infer_actions(factors).mean[0, start:]

    def predict(
        self,
        frames: torch.Tensor,
        start: int,
        steps: int,
        latent_actions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """As `World.predict`, of frames uint8 `(T, H, W, 3)` of which there are enough."""
        scene, inferred = self.opening(frames, start, steps if latent_actions is None else 0)
        taken = inferred if latent_actions is None else latent_actions
        unrolled = self.unroll(scene.factors[None], taken[None])[0, 1:]
        return self.draw(Scene(unrolled, scene.context.expand(len(unrolled), -1)))

    @property
    @abstractmethod
    def settings(self) -> Any:
        """The frozen dataclass that config.json holds, from which `Kind.make` makes such a model."""

    kind: str
    """Its name in the registry."""
    fixed_entities: bool = True
    """Whether factor k is to follow the same entity in all episodes; else whom it follows is found anew in each."""

    @property
    def context_code_dim(self) -> int:
        """C: how many numbers tell a policy which context it is in; 0 where all scenes of the video share one."""
        return 0

    def context_code(self, context_BX: Float[torch.Tensor, "B X"]) -> Float[torch.Tensor, "B C"]:
        """The code of contexts `(B, X)` that a policy sees: float `(B, C)` within ±`CONTEXT_CODE_BOUND`."""
        return context_BX[:, :0]

    @abstractmethod
    def draw(self, scene: Scene) -> torch.Tensor:
        """Frames uint8 `(B, H, W, 3)` of scenes."""

    def colors(self, scene: Scene) -> torch.Tensor:
        """What is drawn before it is rounded to grey levels: float `(B, H, W, 3)` in 0..1."""
        return self.draw(scene) / 255

    @abstractmethod
    def shares(self, scene: Scene) -> Float[torch.Tensor, "B K H W"]:
        """The share of each pixel that each factor draws; what they leave is the context's."""

    def centres(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Float[torch.Tensor, "B K 2"]:
        """x and y in pixels of the middle of what factors draw, also of some of them alone; of one that draws nothing it means
        nothing.

        Written for a model whose shares need no context; others say it themselves.
        """
        shares = self.shares(Scene(factors_BKS, factors_BKS.new_zeros(len(factors_BKS), 0)))
        return middles(shares)

    def features(self, scene: Scene) -> torch.Tensor:
        """What a policy that wants a map sees of scenes: float `(B, N, D)`, of `feature_shape`.

        Raises:
            NotImplementedError: `feature_shape` is None.
        """
        raise NotImplementedError(f"{type(self).__name__} has no features")

    def entities(
        self, frames: torch.Tensor, actions: torch.Tensor | None = None, masks: bool = False
    ) -> Entities:
        """Who is where in the frames of a clip, uint8 `(T, H, W, 3)`.

        Args:
            actions: as `see`'s, of this clip. masks: whether to give each entity's share of each pixel too.

        Raises:
            ValueError: the model has one factor for the whole scene, so no entities.
        """
        scene = self.see(frames[None], None if actions is None else actions[None])
        return self.entities_of(scene.select(0), masks)

    @abstractmethod
    def entities_of(self, scene: Scene, masks: bool = False) -> Entities:
        """The same of a clip that was seen: factors `(T, K, S)`, context `(X,)`."""

    @abstractmethod
    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> Stepper:
        """What steps imagined worlds with the weights that the model has now.

        Args:
            controlled: indices of the C latent actions that are the caller's; the prior decides the others.
            dtype: of products large enough to gain from it; factors stay float32.
            compile: whether the step is compiled. events: the heads of reward and end; without them both are 0.

        Raises:
            ValueError: `compile` on a CPU without a C++ compiler.
        """

    @abstractmethod
    def watch(self, count: int) -> Watcher:
        """What sees `count` running tasks, frame by frame."""

    @abstractmethod
    def scenes(self, starts: Starts) -> Scene:
        """The scenes `(S, ...)` that imagination starts from."""

    @abstractmethod
    def check_starts(self, starts: Starts) -> None:
        """Checks names, types and shapes, and values of tensors that are not on the meta device.

        Raises:
            ValueError: they are not what `scenes` takes; says what was found and what is allowed.
        """

    def check(self) -> None:
        """Checks that nothing in the model is decided by rounding; called before it is saved.

        Raises:
            ValueError: something is.
        """


def middles(shares_BKHW: Float[torch.Tensor, "B K H W"], side: int = 1) -> Float[torch.Tensor, "B K 2"]:
    """x and y of the middle of shares of squares that are `side` pixels wide, a first pixel's own centre at 0.5."""
    total = shares_BKHW.sum((-2, -1)).clamp_min(1e-6)
    x, y = (
        (torch.arange(count, device=total.device) + 0.5) * side
        for count in (shares_BKHW.shape[-1], shares_BKHW.shape[-2])
    )
    return torch.stack([shares_BKHW.sum(-2) @ x, shares_BKHW.sum(-1) @ y], -1) / total[..., None]
