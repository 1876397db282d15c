"""Open-loop prediction against held-out video."""

from __future__ import annotations

from typing import Any

import torch
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from ..models.world import World
from ..types import Video

HORIZONS = (1, 5, 15)
BEST_PSNR = 100.0
"""dB given to a frame without any error, whose PSNR would be infinite."""


@torch.inference_mode()
def evaluate_prediction(world: World, video: Video, most_clips: int = 400) -> dict[str, Any]:
    """PSNR (dB, mean over frames), SSIM, and accuracy on changed tokens, open loop from the first frames.

    Latent actions are inferred from the true video. A changed token is one whose true code differs from the
    first frame's. Each episode gives a clip, its first frames; a horizon that no episode reaches is None.

    Raises:
        ValueError: no episode has 2 frames.
    """
    result: dict[str, Any] = {"psnr": {}, "ssim": {}, "token_accuracy_changed": {}}
    longest = max(len(episode) for episode in video.episodes) - 1
    if longest < 1:
        raise ValueError("prediction needs an episode of 2 frames or more")
    for horizon in HORIZONS:
        measured = (
            _at_horizon(world, video, horizon, most_clips) if horizon <= longest else (None, None, None)
        )
        for name, value in zip(("psnr", "ssim", "token_accuracy_changed"), measured, strict=True):
            result[name][str(horizon)] = value
    frames = _first_frames(world, video, min(longest, HORIZONS[-1]), most_clips)
    z = world.encode(frames)
    result["reconstruction_psnr"] = _quality(world.decode(z[:, 0]), frames[:, 0])[0]
    latent = world.infer_actions(world.factorize(z))
    kl = torch.distributions.kl_divergence(latent, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    result["kl_per_factor"] = kl.mean((0, 1)).tolist()
    return result


def _first_frames(world: World, video: Video, horizon: int, most: int) -> torch.Tensor:
    clips = [torch.as_tensor(episode[: horizon + 1]) for episode in video.episodes if len(episode) > horizon]
    return torch.stack(clips[:most]).to(world.device)


def _at_horizon(world: World, video: Video, horizon: int, most: int) -> tuple[float, float, float]:
    """PSNR, SSIM and accuracy on changed tokens of the frame `horizon` steps after the first."""
    frames = _first_frames(world, video, horizon, most)
    z = world.encode(frames)
    factors = world.factorize(z)
    unrolled = world.model.unroll(factors[:, 0], world.infer_actions(factors).mean)
    predicted = world.aggregate(unrolled[:, -1]).log_probs_BNV.argmax(-1)
    changed = z[:, -1] != z[:, 0]
    psnr, ssim = _quality(world.decode(predicted), frames[:, -1])
    return psnr, ssim, float((predicted == z[:, -1])[changed].float().mean())


def _quality(predicted: torch.Tensor, frames: torch.Tensor) -> tuple[float, float]:
    predicted, target = predicted.permute(0, 3, 1, 2), frames.permute(0, 3, 1, 2).float() / 255
    psnr = peak_signal_noise_ratio(predicted, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(predicted, target, data_range=1.0)
    assert isinstance(ssim, torch.Tensor)
    return float(psnr.clamp_max(BEST_PSNR).mean()), float(ssim)
