"""A model of codes with its tokenizer: the verbs of every model, for frames that are a grid of tiles."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch
from jaxtyping import Float, Int
from torch.distributions import Distribution, Normal

from ...core.layers import parameters
from ...core.model import Model, Starts, middles
from ...core.stepping import Events, Stepper
from ...types import Entities, Scene
from .aggregator import Aggregated
from .clips import with_actions
from .code_model import CodeFacts, CodeModel, FLAMConfig
from .entities import entities_of_tokens
from .tokenizer import Tokenizer, TokenizerConfig

MOST_NUMBERS = 2**28
"""The statistics of codes that a model is made for hold this many numbers at most: 1 GiB."""
START_TYPES = (torch.uint8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, kw_only=True)
class TokenizerSettings(TokenizerConfig):
    """A tokenizer's settings, and the size of the frames that it reads."""

    frame_size: tuple[int, int]
    """Height and width in pixels."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number is out of its range, or the networks would be larger than any machine.
        """
        super().__post_init__()
        if not all(1 <= side <= 4096 for side in self.frame_size):
            raise ValueError(f"frame_size is {self.frame_size}; allowed are sides of 1 to 4096 pixels")
        tokens, pixels = math.prod(self.frame_size) // self.patch**2, 3 * self.patch**2
        numbers = self.codebook_size * (tokens + pixels + self.code_dim)
        if numbers > MOST_NUMBERS:
            raise ValueError(
                f"codebook_size {self.codebook_size}, frame_size {self.frame_size} and patch {self.patch} make "
                f"{numbers} numbers; allowed are {MOST_NUMBERS}"
            )


@dataclass(frozen=True)
class TileSettings:
    """What the networks of a tile model are made from."""

    tokenizer: TokenizerSettings
    flam: FLAMConfig


class TileModel(Model):
    """A frame is a grid of codes; a model of codes, FLAM or a rival, has the factors.

    Args:
        kind: the model's name in the registry.
    """

    worth_compiling: bool

    def __init__(self, kind: str, tokenizer: Tokenizer, code_model: CodeModel) -> None:
        super().__init__()
        self.kind, self.tokenizer, self.code_model = kind, tokenizer, code_model
        self.needs_actions = code_model.NEEDS_ACTIONS
        self.worth_compiling = code_model.WORTH_COMPILING
        self.feature_shape = (math.prod(tokenizer.grid), tokenizer.config.code_dim)

    @classmethod
    def blank(cls, kind: str, model: type[CodeModel], settings: TileSettings) -> TileModel:
        """A model whose weights mean nothing yet; on the meta device they take no memory.

        Raises:
            ValueError: settings that do not go together.
        """
        own = {part.name: getattr(settings.tokenizer, part.name) for part in fields(TokenizerConfig)}
        tokenizer = Tokenizer(TokenizerConfig(**own), settings.tokenizer.frame_size)
        codes, pixels = settings.tokenizer.codebook_size, 3 * settings.tokenizer.patch**2
        facts = CodeFacts.blank(settings.flam, tokenizer.grid, codes, pixels, settings.tokenizer.code_dim)
        return cls(kind, tokenizer, model(settings.flam, facts))

    @property
    def settings(self) -> TileSettings:
        """The settings that config.json holds."""
        tokenizer = TokenizerSettings(**asdict(self.tokenizer.config), frame_size=self.frame_size)
        return TileSettings(tokenizer, self.code_model.config)

    @property
    def frame_size(self) -> tuple[int, int]:
        """Height and width of frames in pixels."""
        return self.tokenizer.frame_size

    @property
    def factors(self) -> int:
        """K."""
        return self.code_model.factors

    @property
    def factor_dim(self) -> int:
        """S."""
        return self.code_model.factor_dim

    @property
    def factor_bound(self) -> float:
        """As `Model.factor_bound`: factors have unit RMS."""
        return self.factor_dim**0.5  # of unit RMS

    @property
    def latent_actions(self) -> int:
        """L."""
        return self.code_model.latent_actions

    @property
    def latent_action_dim(self) -> int:
        """A."""
        return self.code_model.latent_action_dim

    @property
    def size(self) -> int:
        """How many parameters the model of codes has."""
        return parameters(self.code_model)

    @property
    def window(self) -> int:
        """Frames that the factorizer looks back, the present one included."""
        return self.code_model.window

    def encode(self, frames: torch.Tensor) -> torch.Tensor:
        """Frames uint8 `(..., H, W, 3)` to codes int64 `(..., N)`."""
        return self.tokenizer.encode(frames)

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        """Codes `(..., N)` to frames float `(..., H, W, 3)` in 0..1."""
        return self.tokenizer.decode(z)

    def factorize(self, z_BTN: Int[torch.Tensor, "B T N"]) -> Float[torch.Tensor, "B T K S"]:
        """Codes `(B, T, N)` of successive frames to factors `(B, T, K, S)`."""
        return self.code_model.factorize(z_BTN)

    def aggregate(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Aggregated:
        """Code log-probabilities `(B, N, V)` and factor masks `(B, K, N)`."""
        return self.code_model.aggregate(factors_BKS)

    def see(self, frames: torch.Tensor, actions: torch.Tensor | None = None) -> Scene:
        """As `Model.see`; the context is empty."""
        z = self.encode(frames)
        if self.needs_actions:
            if actions is None:
                raise ValueError(f"the model {self.kind!r} is given true actions; this video comes without")
            z = with_actions(z, actions)
        factors = self.factorize(z)
        return Scene(factors, factors.new_zeros(len(factors), 0))

    def infer_actions(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Normal:
        """As `Model.infer_actions`."""
        return self.code_model.infer_actions(factors_BTKS)

    def step(
        self,
        factors_BKS: Float[torch.Tensor, "*B K S"],
        latent_actions_BLA: Float[torch.Tensor, "*B L A"],
    ) -> Float[torch.Tensor, "*B K S"]:
        """As `Model.step`."""
        return self.code_model.step(factors_BKS, latent_actions_BLA)

    def prior(self, factors_BKS: Float[torch.Tensor, "*B K S"]) -> Distribution:
        """As `Model.prior`."""
        return self.code_model.prior(factors_BKS)

    def snap(
        self, factors_BKS: Float[torch.Tensor, "B K S"], index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As `Model.snap`."""
        return self.code_model.snap(factors_BKS, index, latent_actions_BA)

    @property
    def action_codes(self) -> Float[torch.Tensor, "M A"] | None:
        """As `Model.action_codes`."""
        return self.code_model.action_codes

    def nearest_codes(self, latent_actions: torch.Tensor) -> torch.Tensor | None:
        """As `Model.nearest_codes`."""
        return self.code_model.nearest_codes(latent_actions)

    def nats(self, factors_BTKS: Float[torch.Tensor, "B T K S"]) -> Float[torch.Tensor, " L"]:
        """As `CodeModel.nats`."""
        return self.code_model.nats(factors_BTKS)

    def draw(self, scene: Scene) -> torch.Tensor:
        """As `Model.draw`: the patch of the most likely code at each token."""
        z = self.aggregate(scene.factors).log_probs_BNV.argmax(-1)
        looks = (self.tokenizer.looks() * 255).round().to(torch.uint8)
        return self.tokenizer.unpatch(looks[z])

    def colors(self, scene: Scene) -> torch.Tensor:
        """As `Model.colors`."""
        return self.decode(self.aggregate(scene.factors).log_probs_BNV.argmax(-1))

    def shares(self, scene: Scene) -> Float[torch.Tensor, "B K H W"]:
        """As `Model.shares`: all pixels of a token have the token's mask."""
        patch = self.tokenizer.config.patch
        masks = self.aggregate(scene.factors).masks_BKN.unflatten(-1, self.tokenizer.grid)
        return masks.repeat_interleave(patch, -2).repeat_interleave(patch, -1)

    def centres(self, factors_BKS: Float[torch.Tensor, "B K S"]) -> Float[torch.Tensor, "B K 2"]:
        """As `Model.centres`, by shares of tokens."""
        masks = self.aggregate(factors_BKS).masks_BKN.unflatten(-1, self.tokenizer.grid)
        return middles(masks, self.tokenizer.config.patch)

    def features(self, scene: Scene) -> torch.Tensor:
        """The vector of the most likely code at each token."""
        return self.tokenizer.codebook[self.aggregate(scene.factors).log_probs_BNV.argmax(-1)]

    def entities_of(self, scene: Scene, masks: bool = False) -> Entities:
        """What factors draw: entity k is factor k."""
        if self.factors == 1:
            raise ValueError(
                f"the model {self.kind!r} draws the scene as one factor: it tells no entities apart"
            )
        drawn = self.aggregate(scene.factors)
        return entities_of_tokens(drawn.masks_BKN, self.tokenizer.grid, self.tokenizer.config.patch, masks)

    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> Stepper:
        """As `Model.stepper`."""
        return self.code_model.stepper(controlled, dtype, compile, events)

    def watch(self, count: int) -> TileWatcher:
        """As `Model.watch`."""
        return TileWatcher(self, count)

    def scenes(self, starts: Starts) -> Scene:
        """The scenes at the end of the clips of codes that the starts hold."""
        factors = self.factorize(starts["starts"].long())[:, -1]
        return Scene(factors, factors.new_zeros(len(factors), 0))

    def check_starts(self, starts: Starts) -> None:
        """Codes `(S, window, N)` of an integer type, every one in the codebook."""
        if starts.keys() != {"starts"}:
            raise ValueError(f"tensors are {sorted(starts)}; allowed is 'starts'")
        codes, tokens = starts["starts"], math.prod(self.tokenizer.grid)
        if codes.dtype not in START_TYPES:
            raise ValueError(f"tensor 'starts' is {codes.dtype}; allowed are {START_TYPES}")
        if codes.ndim != 3 or len(codes) < 1 or codes.shape[1:] != (self.window, tokens):
            raise ValueError(
                f"tensor 'starts' has shape {tuple(codes.shape)}; allowed is (1 clip or more, {self.window} frames, {tokens} codes)"
            )
        if codes.is_meta:
            return
        low, high, most = int(codes.min()), int(codes.max()), self.tokenizer.config.codebook_size - 1
        if low < 0 or high > most:
            raise ValueError(f"tensor 'starts' has codes {low} to {high}; allowed are 0 to {most}")

    def check(self) -> None:
        """As `Model.check`: the tokenizer's codes must lie apart."""
        self.tokenizer.check_separated()


class TileWatcher:
    """Frames of running tasks to factors, with the codes of the frames before them."""

    def __init__(self, model: TileModel, count: int) -> None:
        self.model = model
        device = model.code_model.weight_V.device
        self._rows = torch.arange(count, device=device)
        # The last frames' codes, oldest first: the factorizer looks back only, so what follows the latest is no matter.
        tokens = math.prod(model.tokenizer.grid)
        self._codes_BTN = torch.zeros(count, model.window, tokens, dtype=torch.int64, device=device)
        self._latest_B = torch.full((count,), -1, device=device)

    @torch.inference_mode()
    def see(self, frames: np.ndarray, fresh: np.ndarray, moved: np.ndarray | None = None) -> Scene:
        """As `Watcher.see`."""
        rows, last = self._rows, self.model.window - 1
        new = rows if moved is None else torch.from_numpy(np.flatnonzero(moved)).to(rows.device)
        self._latest_B[torch.from_numpy(np.flatnonzero(fresh)).to(rows.device)] = -1
        full = new[self._latest_B[new] == last]
        self._codes_BTN[full] = self._codes_BTN[full].roll(-1, 1)
        self._latest_B[new] = (self._latest_B[new] + 1).clamp_max(last)
        codes = self.model.encode(torch.from_numpy(np.ascontiguousarray(frames)).to(rows.device))
        self._codes_BTN[new, self._latest_B[new]] = codes[new]
        factors = self.model.factorize(self._codes_BTN)[rows, self._latest_B]
        return Scene(factors, factors.new_zeros(len(factors), 0))
