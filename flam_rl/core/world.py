"""A world: a trained model with its start states and what labels added."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.distributions import Distribution, Normal

from ..types import Entities, Rollout, Scene
from .agent import Agents
from .heads import FrozenEvents, Labels
from .info import WorldInfo
from .model import Model, Starts
from .stepping import Stepper
from .threads import lone_threads


class World(nn.Module):
    """The public verbs. Everything is batched; its own weights are frozen.

    Args:
        starts: what the model keeps of held-out clips; imagination starts from them.

    Attributes:
        source: what it was last loaded from or saved to, for `load_world`: a shipped name, a folder, a zip, or an address of
            the Hub with its commit; empty if it never was.
    """

    source: str = ""

    def __init__(self, model: Model, starts: Starts, info: WorldInfo, labels: Labels | None = None) -> None:
        """
        Raises:
            ValueError: the starts are not the model's.
        """
        super().__init__()
        model.check_starts(starts)
        self.model, self.info, self.labels = model, info, labels
        self._start_names = tuple(starts)
        for name, tensor in starts.items():
            self.register_buffer(f"starts_{name}", tensor, persistent=False)
        self.eval().requires_grad_(False).float()  # whatever torch's default dtype was

    @property
    def stored_starts(self) -> dict[str, torch.Tensor]:
        """What the model keeps of the clips that imagination starts from, by name."""
        return {name: getattr(self, f"starts_{name}") for name in self._start_names}

    @property
    def device(self) -> torch.device:
        """The device that holds the world's tensors."""
        return next(iter(self.stored_starts.values())).device

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of frames in pixels."""
        return self.model.frame_size

    @property
    def factors(self) -> int:
        """K."""
        return self.model.factors

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.model.factor_dim

    @property
    def observation_dim(self) -> int:
        """K * S + C: how long FLAM-v0's observation `factors` is."""
        return self.factors * self.factor_dim + self.model.context_code_dim

    @property
    def latent_actions(self) -> int:
        """L: how many latent actions a step has, one for each factor or one for all."""
        return self.model.latent_actions

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.model.latent_action_dim

    def see(self, frames: torch.Tensor, actions: torch.Tensor | None = None) -> Scene:
        """Clips of frames uint8 `(B, T, H, W, 3)` to factors `(B, T, K, S)` and the context `(B, X)` that they show.

        Args:
            actions: int `(B, T, E)`, what each entity did to come to a frame, -1 where that is not known; for a model that
                needs them, no other looks at them.

        Raises:
            ValueError: the model needs actions and there are none.
        """
        return self.model.see(frames, actions)

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

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """What would be done by itself: a distribution of latent actions, batch `(B, L)`, event `(A,)`."""
        return self.model.prior(factors_BKS)

    def context_code(self, context_BX: Float[torch.Tensor, "B X"]) -> Float[torch.Tensor, "B C"]:
        """The code of contexts `(B, X)` that a policy sees: float `(B, C)` in -3..3; C is 0 where all scenes share one context."""
        return self.model.context_code(context_BX)

    def observation(
        self, factors_BKS: Float[torch.Tensor, "B K S"], code_BC: Float[torch.Tensor, "B C"]
    ) -> Float[torch.Tensor, "B O"]:
        """FLAM-v0's observation `factors`, `(B, K * S + C)`: all factors one after the other, then the code of the context."""
        return torch.cat([factors_BKS.flatten(1), code_BC], 1)

    def draw(self, scene: Scene) -> torch.Tensor:
        """Frames uint8 `(B, H, W, 3)` of scenes."""
        return self.model.draw(scene)

    def shares(self, scene: Scene) -> Float[torch.Tensor, "B K H W"]:
        """The share of each pixel that each factor draws."""
        return self.model.shares(scene)

    @torch.inference_mode()
    def entities(
        self, frames: np.ndarray, masks: bool = False, actions: np.ndarray | None = None
    ) -> Entities:
        """Who is where in the frames of a clip, uint8 `(T, H, W, 3)`.

        Args:
            masks: whether to give each entity's share of each pixel too.
            actions: int `(T, E)`, for a model that needs them.

        Raises:
            ValueError: the frames are no such array or of another size than the world's; or the model has one factor for
                the whole scene, or needs actions and there are none.
        """
        clip = self.checked(frames)
        return self.model.entities(clip, None if actions is None else torch.as_tensor(actions), masks)

    @torch.inference_mode()
    def predict(
        self, frames: np.ndarray, start: int, steps: int, latent_actions: torch.Tensor | None = None
    ) -> np.ndarray:
        """Frames `start + 1` to `start + steps` open loop, uint8 `(steps, H, W, 3)`, from what frames 0 to `start` show.

        Args:
            frames: uint8 `(T, H, W, 3)`.
            latent_actions: float `(steps, L, A)`; by default inferred from the true frames, the paper's protocol.

        Raises:
            ValueError: the frames are no such array or of another size than the world's, or there are too few of them.
        """
        clip = self.checked(frames)
        needed = start + 1 + (steps if latent_actions is None else 0)
        if start < 0 or steps < 1 or len(clip) < needed:
            raise ValueError(
                f"start is {start} and steps {steps}; allowed with {len(clip)} frames are 0 or more and 1 or more "
                f"for which there are {needed} frames"
            )
        return self.model.predict(clip, start, steps, latent_actions).cpu().numpy()

    def checked(self, frames: np.ndarray) -> torch.Tensor:
        """The frames of a clip, uint8 `(T, H, W, 3)`, on the world's device.

        Raises:
            ValueError: they are no such array or of another size than the world's.
        """
        size = self.frame_size
        if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[1:] != (*size, 3):
            raise ValueError(
                f"this world sees frames uint8 (T, {size[0]}, {size[1]}, 3); given {frames.dtype} {frames.shape}"
            )
        return torch.as_tensor(np.ascontiguousarray(frames), device=self.device)

    def imagine(
        self,
        policy: Callable[[torch.Tensor], torch.Tensor],
        start: Scene,
        horizon: int,
        controlled: Sequence[int] = (),
        generator: torch.Generator | None = None,
        dtype: torch.dtype = torch.float32,
        held: Mapping[int, torch.Tensor] | None = None,
    ) -> Rollout:
        """Imagine `horizon` steps without leaving the device, in the same steps as FLAM-v0.

        Other than there, nothing is clipped or restarted, rewards are expected ones and ends are probabilities.

        Gradients flow from factors, rewards and terminations to the policy's parameters, straight through the
        snapping of latent actions; call it under `torch.inference_mode()` where they are not wanted.

        Args:
            policy: FLAM-v0's observation `factors`, float `(B, observation_dim)`, to the controlled latent actions `(B, C * A)`.
            start: where to begin, of `World.start` for instance.
            controlled: indices of the C latent actions that are the policy's; with none it is not called.
            generator: of what the prior decides.
            dtype: of products large enough to gain from it; factors stay float32.
            held: factors that are put where they are to be after each step, by index: float `(horizon, S)`. Their latent actions
                are the policy's, or the prior's.
        """
        imagination, threads = self.imagination(controlled, dtype), lone_threads()
        state = threads.run(lambda: imagination.begin(start.factors))
        code = threads.run(lambda: self.context_code(start.context))
        factors, latent_actions, log_prior = [start.factors], [], []
        for step in range(horizon):
            wanted = None
            if controlled:
                seen = threads.run(lambda: self.observation(state.factors_BKS, code))  # noqa: B023, it runs at once
                wanted = policy(seen).unflatten(-1, (len(controlled), -1))
            state, taken = imagination.step(state, wanted, generator)
            if held:
                state = threads.run(lambda: imagination.begin(_put(state.factors_BKS, held, step)))  # noqa: B023
            factors.append(state.factors_BKS)
            latent_actions.append(taken.latent_actions_BLA)
            log_prior.append(taken.log_prior_BC)

        def rollout() -> Rollout:
            entered = torch.stack(factors[1:], 1)
            return Rollout(
                torch.stack(factors, 1),
                start.context,
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
        sure: bool = False,
    ) -> Stepper:
        """A stepper in which the caller has the controlled latent actions and the prior the others; with
        `events` and labels it gives rewards and ends as FLAM-v0 does, or only those that are `sure`."""
        frozen = FrozenEvents(self.labels, dtype, sure) if events and self.labels else None
        return self.model.stepper(controlled, dtype, compile, frozen)

    def moved_by(self, factor: int) -> int:
        """Which latent action moves a factor: its own, or the scene's."""
        return factor if self.latent_actions > 1 else 0

    def moved_by_agents(self, agents: Agents) -> list[int]:
        """Which latent actions move a task's agents, each once."""
        return list(dict.fromkeys(map(self.moved_by, agents.factors)))

    def actions_per_factor(self, latent_actions: torch.Tensor) -> torch.Tensor:
        """The latent action of each factor: `(..., L, A)` to `(..., K, A)`."""
        return latent_actions.expand(*latent_actions.shape[:-2], self.factors, -1)

    def snap(self, factors_BKS: torch.Tensor, factor: int, latent_actions_BA: torch.Tensor) -> torch.Tensor:
        """The latent action `(B, A)` that imagination takes when this one is wanted of `factor`, moving first."""
        return self.model.snap(factors_BKS, self.moved_by(factor), latent_actions_BA)[0]

    def starts(self) -> Scene:
        """The scenes `(S, ...)` that imagination starts from, each the end of a held-out clip; where the agents'
        factors differ by episode they are brought to their places."""
        scenes = self.model.scenes(self.stored_starts)
        return (
            scenes
            if self.labels is None
            else scenes._replace(factors=self.labels.agents.in_place(scenes.factors))
        )

    def start(self, count: int, generator: torch.Generator | None = None) -> Scene:
        """`count` scenes drawn from those."""
        starts = self.starts()
        drawn = torch.randint(len(starts.factors), (count,), generator=generator, device=self.device)
        return starts.select(drawn)


def _put(factors_BKS: torch.Tensor, held: Mapping[int, torch.Tensor], step: int) -> torch.Tensor:
    """The factors with those that are held where they are to be after a step."""
    put = factors_BKS.clone()
    for factor, path_TS in held.items():
        put[:, factor] = path_TS[step]
    return put
