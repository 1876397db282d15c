"""FLAM on tracked layers behind the verbs of every model."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch.distributions import Distribution, Normal

from ...core.model import Model, Starts
from ...core.registry import Kind
from ...core.stepping import Events, Stepper
from ...types import Entities, Scene
from . import seeing
from .context_codes import ContextCodes
from .flam import TrackedConfig, TrackedFLAM
from .look_codes import draw_factors
from .sprites import masks
from .states import PLACE, PRESENCE, VELOCITY
from .stepper import TrackedImagination
from .watching import TrackedWatcher


class TrackedModel(Model):
    """A factor for each entity that moves; the context is the background behind them."""

    kind = "tracked"
    fixed_entities = False
    worth_compiling = True

    def __init__(self, config: TrackedConfig, flam: type[TrackedFLAM] = TrackedFLAM) -> None:
        super().__init__()
        self.flam = flam(config)
        count = config.context_code_dim
        self.context_codes = ContextCodes(count) if count else None

    @property
    def settings(self) -> TrackedConfig:
        """The settings that config.json holds."""
        return self.flam.config

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of frames in pixels."""
        return self.flam.config.state.height, self.flam.config.state.width

    @property
    def factors(self) -> int:
        """K."""
        return self.flam.factors

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.flam.config.state.dim

    @property
    def readings(self) -> tuple[int, ...]:
        """Place, velocity, all."""
        return PLACE.stop, VELOCITY.stop, self.factor_dim

    @property
    def factor_bound(self) -> float:
        """As `Model.factor_bound`, from the ranges in the training video."""
        return float(torch.maximum(self.flam.lowest_S.abs(), self.flam.highest_S.abs()).max())

    @property
    def latent_actions(self) -> int:
        """L."""
        return self.flam.factors

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.flam.config.dynamics.latent_action_dim

    @property
    def context_dim(self) -> int:
        """X: colours of the background, and of what lies around it where the camera moves."""
        state = self.flam.config.state
        return 3 * (state.height + 2 * state.margin) * (state.width + 2 * state.margin)

    @property
    def context_code_dim(self) -> int:
        """As `Model.context_code_dim`."""
        return self.settings.context_code_dim

    def context_code(self, context_BX: Float[torch.Tensor, "B X"]) -> Float[torch.Tensor, "B C"]:
        """As `Model.context_code`."""
        if self.context_codes is None:
            return super().context_code(context_BX)
        found: torch.Tensor = self.context_codes(self._ground(context_BX))
        return found

    @property
    def action_codes(self) -> Float[torch.Tensor, "M A"] | None:
        """As `Model.action_codes`."""
        return self.flam.latent_action_prior.codebook

    def present(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Bool[torch.Tensor, "B K"]:
        """As `Model.present`, by the presence that is part of a factor."""
        return factors_BKS[..., PRESENCE] > 0.5

    def see(self, frames: torch.Tensor, actions: torch.Tensor | None = None) -> Scene:
        """As `Model.see`; the context is the flat background, with a margin where the camera moves."""
        seen = [seeing.see(self.flam, clip.cpu().numpy()) for clip in frames]
        factors = torch.stack([scene.factors for scene in seen])
        return Scene(factors, torch.stack([scene.context.flatten() for scene in seen]))

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """As `Model.infer_actions`."""
        return self.flam.infer_actions(factors_BTKS)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """As `Model.step`."""
        return self.flam.step(factors_BKS, latent_actions_BLA)

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """As `Model.prior`."""
        return self.flam.prior(factors_BKS)

    def snap(
        self, factors_BKS: Float[torch.Tensor, "B K S"], index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Model.snap`."""
        return self.flam.snap(factors_BKS, index, latent_actions_BA)

    def opening(self, frames: torch.Tensor, start: int, steps: int) -> tuple[Scene, torch.Tensor]:
        """As `Model.opening`; the context is taken from frames 0 to `start` only."""
        scene, latent_actions = seeing.opening(self.flam, frames.cpu().numpy(), start, steps)
        return scene._replace(context=scene.context.flatten()), latent_actions

    def colors(self, scene: Scene) -> torch.Tensor:
        """As `Model.colors`."""
        return self.flam.draw(scene.factors, self._ground(scene.context)).movedim(1, -1)

    def draw(self, scene: Scene) -> torch.Tensor:
        """As `Model.draw`."""
        return (self.colors(scene) * 255).round().to(torch.uint8).contiguous()

    def shares(self, scene: Scene) -> Float[torch.Tensor, "B K H W"]:
        """As `Model.shares`; the camera's share is 0."""
        layers, drawn = draw_factors(
            self.flam.codes, self.flam.config.state, scene.factors, self._ground(scene.context)
        )
        found = masks(layers.drawn_BK4HW, drawn.seen_BKHW)
        camera = found.new_zeros(len(found), self.factors - found.shape[1], *self.frame_size)
        return torch.cat([found, camera], 1)

    def centres(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Float[torch.Tensor, "B K 2"]:
        """As `Model.centres`, by the places that are part of factors."""
        return self.settings.state.to_pixels(factors_BKS[..., PLACE])

    def _ground(self, context: torch.Tensor) -> torch.Tensor:
        """`(..., X)` as colours `(..., 3, Y, X)`."""
        state = self.flam.config.state
        size = state.height + 2 * state.margin, state.width + 2 * state.margin
        return context.unflatten(-1, (3, *size))

    def entities_of(self, scene: Scene, masks: bool = False) -> Entities:
        """Whom factors follow: entity k is row k."""
        return seeing.entities(self.flam, Scene(scene.factors, self._ground(scene.context)), masks)

    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> Stepper:
        """As `Model.stepper`."""
        return TrackedImagination(self.flam, controlled, dtype, compile, events)

    def watch(self, count: int) -> TrackedWatcher:
        """As `Model.watch`."""
        return TrackedWatcher(self.flam, count)

    def scenes(self, starts: Starts) -> Scene:
        """The start factors, each with the background of its episode."""
        context = starts["context"].float() / 255
        return Scene(starts["factors"], context[starts["episode"].long()])

    def check_starts(self, starts: Starts) -> None:
        """`factors` float32 `(S, K, S)`, `context` uint8 `(E, X)`, `episode` int64 `(S,)`, the row of context of each start."""
        if starts.keys() != {"factors", "context", "episode"}:
            raise ValueError(f"tensors are {sorted(starts)}; allowed are 'context', 'episode' and 'factors'")
        factors, context, episode = (starts[name] for name in ("factors", "context", "episode"))
        count, grounds = max(1, len(episode)), max(1, len(context))
        allowed = {
            "factors": (torch.float32, (count, self.factors, self.factor_dim)),
            "context": (torch.uint8, (grounds, self.context_dim)),
            "episode": (torch.int64, (count,)),
        }
        for name, (dtype, shape) in allowed.items():
            tensor = starts[name]
            if tensor.dtype != dtype or tensor.shape != shape:
                raise ValueError(
                    f"tensor {name!r} is {tensor.dtype} of shape {tuple(tensor.shape)}; allowed is {dtype} of shape {shape}"
                )
        if factors.is_meta:
            return
        if not factors.isfinite().all():
            raise ValueError("tensor 'factors' has numbers that are NaN or infinite; allowed are finite ones")
        if int(episode.min()) < 0 or int(episode.max()) >= len(context):
            raise ValueError(
                f"tensor 'episode' has rows {int(episode.min())} to {int(episode.max())}; allowed are 0 to {len(context) - 1}"
            )


KINDS = {
    "tracked": Kind(
        TrackedConfig,
        TrackedModel,
        "flam_rl.models.tracked.build",
        "FLAM on tracked layers: a factor and a latent action for each thing that moves.",
    )
}
