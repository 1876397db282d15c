"""Open-loop prediction against held-out video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ..core.threads import one_core
from ..progress import progress
from ..types import Json, Scene, Truth
from .encoded import Encoded

HORIZONS = (1, 5, 15)
MOST_CLIPS = 400
BEST_PSNR = 100.0
"""dB given to a frame without any error, whose PSNR would be infinite."""


@dataclass(frozen=True, eq=False)
class Clips:
    """Frames `start` to `start + horizon` of each episode that is long enough, `MOST_CLIPS` at most.

    Attributes:
        chosen: indices of the episodes.
    """

    encoded: Encoded
    start: int
    horizon: int
    chosen: tuple[int, ...]

    @classmethod
    def from_encoded(cls, encoded: Encoded, start: int, horizon: int) -> Clips | None:
        """The clips of encoded episodes; None where no episode is long enough."""
        long = [index for index, frames in enumerate(encoded.frames) if len(frames) > start + horizon]
        return cls(encoded, start, horizon, tuple(long[:MOST_CLIPS])) if long else None

    def frames(self, step: int) -> np.ndarray:
        """Frame `start + step` of each: uint8 `(B, H, W, 3)`."""
        return np.stack([self.encoded.frames[index][self.start + step] for index in self.chosen])

    @cached_property
    def _openings(self) -> list[tuple[Scene, torch.Tensor]]:
        return [self.encoded.opening(index, self.start, self.horizon) for index in self.chosen]

    @cached_property
    def first(self) -> Scene:
        """The scene at `start` as frames 0 to `start` show it: `(B, ...)`."""
        seen = [scene for scene, _ in self._openings]
        return Scene(torch.stack([one.factors for one in seen]), torch.stack([one.context for one in seen]))

    @cached_property
    def latent_actions(self) -> torch.Tensor:
        """Inferred from the true frames, the paper's protocol: `(B, horizon, L, A)`."""
        return torch.stack([latent_actions for _, latent_actions in self._openings])

    @cached_property
    def factors(self) -> torch.Tensor:
        """Factors of the true frames: `(B, horizon + 1, K, S)`."""
        frames = slice(self.start, self.start + self.horizon + 1)
        return torch.stack([self.encoded.scenes[index].factors[frames] for index in self.chosen])

    def unroll(self, latent_actions: torch.Tensor | None = None) -> list[Scene]:
        """Open loop from `start`: the scene there and after each step, by default of the inferred latent actions."""
        taken = self.latent_actions if latent_actions is None else latent_actions
        factors = self.encoded.world.model.unroll(self.first.factors, taken)
        return [Scene(at, self.first.context) for at in factors.unbind(1)]


@one_core()
@torch.inference_mode()
def measure(encoded: Encoded, truth: Sequence[Truth] | None = None) -> Json:
    """PSNR (dB, mean over frames) and SSIM, open loop from the first frames.

    Latent actions are inferred from the true video; in `psnr_by_code` each is replaced by its nearest action code, so
    that models with codes are compared at equal bits. Each episode gives one clip, its first frames; figures of
    horizons that no episode reaches are None.

    Returns:
        `psnr`, `psnr_by_code`, `ssim` by horizon; `floors`: PSNR and SSIM of the first frame copied, as `last_frame`;
        `kl_per_factor`: upper bound of the information in each latent action, in nats.

    Raises:
        ValueError: no episode has 2 frames.
    """
    result: Json = {"psnr": {}, "psnr_by_code": {}, "ssim": {}}
    copied: Json = {"psnr": {}, "ssim": {}}
    longest = max(len(frames) for frames in encoded.frames) - 1
    if longest < 1:
        raise ValueError("prediction needs an episode of 2 frames or more")
    for horizon in progress(HORIZONS, desc="prediction", unit="horizon"):
        clips = Clips.from_encoded(encoded, 0, horizon)
        name = str(horizon)
        if clips is None:
            for values in (*result.values(), *copied.values()):
                values[name] = None
            continue
        true = clips.frames(horizon)
        result["psnr"][name], result["ssim"][name] = _quality(_last(clips), true)
        codes = encoded.world.model.nearest_codes(clips.latent_actions)
        result["psnr_by_code"][name] = None if codes is None else _quality(_last(clips, codes), true)[0]
        first = torch.as_tensor(clips.frames(0), device=encoded.world.device) / 255
        copied["psnr"][name], copied["ssim"][name] = _quality(first, true)
    for name, values in copied.items():
        result[name]["floors"] = {"last_frame": values}
    clips = Clips.from_encoded(encoded, 0, min(longest, HORIZONS[-1]))
    assert clips is not None
    return result | {"kl_per_factor": encoded.world.model.nats(clips.factors).tolist()}


def _last(clips: Clips, latent_actions: torch.Tensor | None = None) -> torch.Tensor:
    """The last frame as it is predicted, float `(B, H, W, 3)` in 0..1."""
    return clips.encoded.world.model.colors(clips.unroll(latent_actions)[-1])


def _quality(predicted: torch.Tensor, frames: np.ndarray) -> tuple[float, float]:
    """PSNR and SSIM of float `(B, H, W, 3)` in 0..1 against uint8."""
    true = torch.as_tensor(frames, device=predicted.device).permute(0, 3, 1, 2).float() / 255
    drawn = predicted.permute(0, 3, 1, 2)
    psnr = peak_signal_noise_ratio(drawn, true, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(drawn, true, data_range=1.0)
    assert isinstance(ssim, torch.Tensor)
    return float(psnr.clamp_max(BEST_PSNR).mean()), float(ssim)


def mean_psnr(predicted: torch.Tensor, frames: np.ndarray) -> float:
    """PSNR in dB, mean over frames, of float `(B, H, W, 3)` in 0..1 against uint8 of the same shape."""
    return _quality(predicted, frames)[0]
