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
    first frame's. Each episode of at least 16 frames gives a clip, its first one.

    Raises:
        ValueError: no episode has 16 frames.
    """
    clips = [episode[: HORIZONS[-1] + 1] for episode in video.episodes if len(episode) > HORIZONS[-1]]
    if not clips:
        raise ValueError(
            f"prediction needs an episode of {HORIZONS[-1] + 1} frames; the longest has {max(map(len, video.episodes))}"
        )
    frames = torch.stack([torch.as_tensor(clip) for clip in clips[:most_clips]]).to(world.device)
    z = world.encode(frames)
    factors = world.factorize(z)
    latent = world.infer_actions(factors)
    unrolled = world.flam.unroll(factors[:, 0], latent.mean).factors_BTKS
    result: dict[str, Any] = {"psnr": {}, "ssim": {}, "token_accuracy_changed": {}}
    for horizon in HORIZONS:
        predicted = world.aggregate(unrolled[:, horizon]).log_probs_BNV.argmax(-1)
        quality = _quality(world.decode(predicted), frames[:, horizon])
        changed = z[:, horizon] != z[:, 0]
        result["psnr"][str(horizon)], result["ssim"][str(horizon)] = quality
        result["token_accuracy_changed"][str(horizon)] = float(
            (predicted == z[:, horizon])[changed].float().mean()
        )
    result["reconstruction_psnr"] = _quality(world.decode(z[:, 0]), frames[:, 0])[0]
    kl = torch.distributions.kl_divergence(latent, torch.distributions.Normal(0.0, 1.0)).sum(-1)
    result["kl_per_factor"] = kl.mean((0, 1)).tolist()
    return result


def _quality(predicted: torch.Tensor, frames: torch.Tensor) -> tuple[float, float]:
    predicted, target = predicted.permute(0, 3, 1, 2), frames.permute(0, 3, 1, 2).float() / 255
    psnr = peak_signal_noise_ratio(predicted, target, data_range=1.0, reduction="none", dim=(1, 2, 3))
    ssim = structural_similarity_index_measure(predicted, target, data_range=1.0)
    assert isinstance(ssim, torch.Tensor)
    return float(psnr.clamp_max(BEST_PSNR).mean()), float(ssim)
