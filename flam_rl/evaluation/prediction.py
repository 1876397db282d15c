"""Open-loop prediction against held-out video."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ..core.threads import one_core
from ..core.world import World
from ..progress import progress
from ..types import Video
from .perceptual import FVD, LPIPS

HORIZONS = (1, 5, 15)
BEST_PSNR = 100.0
"""dB given to a frame without any error, whose PSNR would be infinite."""


@one_core()
@torch.inference_mode()
def evaluate_prediction(
    world: World,
    video: Video,
    entities: Sequence[dict[str, np.ndarray]] | None = None,
    most_clips: int = 400,
    lpips: LPIPS | None = None,
    fvd: FVD | None = None,
) -> dict[str, Any]:
    """PSNR (dB, mean over frames), SSIM, and accuracy on changed tokens, open loop from the first frames.

    Latent actions are inferred from the true video; in `psnr_by_code` each is replaced by the action code nearest
    to it, where the model has codes: as many bits for all that have. A changed token is one whose true code differs from the
    first frame's. Each episode gives a clip, its first frames; what no episode shows is None.

    Args:
        entities: of each episode; only the oracle is told of them.
        lpips, fvd: networks that compare frames and videos; without them those two measures are None.

    Raises:
        ValueError: no episode has 2 frames.
    """
    result: dict[str, Any] = {
        "psnr": {},
        "psnr_by_code": {},
        "ssim": {},
        "token_accuracy_changed": {},
        "lpips": {},
    }
    longest = max(len(episode) for episode in video.episodes) - 1
    if longest < 1:
        raise ValueError("prediction needs an episode of 2 frames or more")
    for horizon in progress(HORIZONS, desc="prediction", unit="horizon"):
        clips = _Clips(world, video, entities, horizon, most_clips) if horizon <= longest else None
        measured = clips.measure(lpips) if clips else dict.fromkeys(result)
        for name, value in measured.items():
            result[name][str(horizon)] = value
    if lpips is None:
        result["lpips"] = None
    clips = _Clips(world, video, entities, min(longest, HORIZONS[-1]), most_clips)
    result["fvd"] = fvd.distance(clips.frames, clips.predict()) if fvd else None
    result["reconstruction_psnr"] = _quality(world.decode(clips.z[:, 1]), clips.frames[:, 1])[0]
    result["kl_per_factor"] = world.model.nats(clips.factors).tolist()
    return result


class _Clips:
    """The first `horizon + 1` frames of each episode that has as many."""

    def __init__(
        self,
        world: World,
        video: Video,
        entities: Sequence[dict[str, np.ndarray]] | None,
        horizon: int,
        most: int,
    ) -> None:
        chosen = [index for index, episode in enumerate(video.episodes) if len(episode) > horizon][:most]
        cut = slice(horizon + 1)
        told = [
            world.encode_episode(
                video.episodes[index][cut],
                {key: value[cut] for key, value in entities[index].items()} if entities else None,
            )
            for index in chosen
        ]
        frames = [torch.as_tensor(video.episodes[index][cut]) for index in chosen]
        self.world, self.frames = world, torch.stack(frames).to(world.device)
        self.factors = world.factorize(torch.stack(told))
        self.latent = world.infer_actions(self.factors)
        self.z = torch.stack(told)[..., : world.tokenizer.grid[0] * world.tokenizer.grid[1]]

    def predict(self) -> torch.Tensor:
        """Frames float `(B, T, H, W, 3)` in 0..1, open loop; the first is the reconstructed one."""
        unrolled = self.world.model.unroll(self.factors[:, 0], self.latent.mean)
        return self.world.decode(self.world.aggregate(unrolled).log_probs_BNV.argmax(-1))

    def measure(self, lpips: LPIPS | None) -> dict[str, float | None]:
        """Everything of the last frame."""
        predicted = self._last(self.latent.mean)
        changed = self.z[:, -1] != self.z[:, 0]
        shown = self.world.decode(predicted)
        psnr, ssim = _quality(shown, self.frames[:, -1])
        right = float((predicted == self.z[:, -1])[changed].float().mean()) if changed.any() else None
        found: dict[str, float | None] = {"psnr": psnr, "ssim": ssim, "token_accuracy_changed": right}
        codes = self.world.model.nearest_codes(self.latent.mean)
        by_code = None if codes is None else self.world.decode(self._last(codes))
        found["psnr_by_code"] = None if by_code is None else _quality(by_code, self.frames[:, -1])[0]
        return found | ({"lpips": lpips.distance(shown, self.frames[:, -1])} if lpips else {})

    def _last(self, latent_actions_BTLA: torch.Tensor) -> torch.Tensor:
        """Predicted codes int64 `(B, N)` of the last frame."""
        unrolled = self.world.model.unroll(self.factors[:, 0], latent_actions_BTLA)
        return self.world.aggregate(unrolled[:, -1]).log_probs_BNV.argmax(-1)


def _quality(predicted: torch.Tensor, frames: torch.Tensor) -> tuple[float, float]:
    predicted, target = predicted.permute(0, 3, 1, 2), frames.permute(0, 3, 1, 2).float() / 255
    psnr = peak_signal_noise_ratio(predicted, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(predicted, target, data_range=1.0)
    assert isinstance(ssim, torch.Tensor)
    return float(psnr.clamp_max(BEST_PSNR).mean()), float(ssim)
