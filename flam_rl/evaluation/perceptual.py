"""LPIPS and FVD, from weights that the user provides: nothing is downloaded."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torchmetrics
from torch import nn

from ..core.threads import one_core
from ..types import Json, Truth
from .encoded import Encoded
from .prediction import HORIZONS, Clips

HOW = {
    "LPIPS": "--lpips-weights (torchvision's alexnet-owt-7be5be79.pth)",
    "FVD": "--fvd-weights (StyleGAN-V's i3d_torchscript.pt, run as code: trust its source)",
}
"""The option that provides the network of each measure."""
_LAYERS = (
    (0, 3, 64, 11, 2, 4),
    (3, 64, 192, 5, 2, 1),
    (6, 192, 384, 3, 1, 1),
    (8, 384, 256, 3, 1, 1),
    (10, 256, 256, 3, 1, 1),
)
"""AlexNet's convolutions (Krizhevsky 2014) by their index: channels in and out, kernel, padding, stride."""
_POOLED = (3, 6)
"""Indices of the convolutions that see pooled features."""


class LPIPS(nn.Module):
    """Learned perceptual distance of images (Zhang et al. 2018), AlexNet's features; lower is nearer.

    The weights of its linear layers come with torchmetrics.

    Args:
        weights: AlexNet's state dict, as torchvision distributes it.

    Raises:
        ValueError: the file does not hold them.
    """

    shift: torch.Tensor
    scale: torch.Tensor

    def __init__(self, weights: Path) -> None:
        super().__init__()
        self.features = nn.ModuleDict(
            {
                str(index): nn.Conv2d(inside, outside, kernel, stride, padding)
                for index, inside, outside, kernel, padding, stride in _LAYERS
            }
        )
        try:
            state = torch.load(weights, map_location="cpu", weights_only=True)
            own = {k.removeprefix("features."): v for k, v in state.items() if k.startswith("features.")}
            self.features.load_state_dict(own)
        except Exception as error:
            raise ValueError(f"{weights}: not the state dict of torchvision's AlexNet ({error})") from error
        linear = Path(torchmetrics.__file__).parent / "functional/image/lpips_models/alex.pth"
        self.linear = list(torch.load(linear, map_location="cpu", weights_only=True).values())
        self.register_buffer("shift", torch.tensor([-0.030, -0.088, -0.188])[:, None, None])
        self.register_buffer("scale", torch.tensor([0.458, 0.448, 0.450])[:, None, None])
        self.eval().requires_grad_(False)

    def distance(self, predicted: torch.Tensor, frames: torch.Tensor) -> float:
        """Mean over a batch: float `(B, H, W, 3)` in 0..1 against uint8 of the same shape."""
        one, two = (
            (x.permute(0, 3, 1, 2) * 2 - 1 - self.shift) / self.scale
            for x in (predicted, frames.float() / 255)
        )
        total = torch.zeros(len(frames), device=frames.device)
        for index, weight in zip(self.features, self.linear, strict=True):
            if int(index) in _POOLED:
                one, two = (nn.functional.max_pool2d(x, 3, 2) for x in (one, two))
            one, two = (self.features[index](x).relu() for x in (one, two))
            unit = [x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10) for x in (one, two)]
            difference = nn.functional.conv2d((unit[0] - unit[1]).square(), weight.to(frames.device))
            total += difference.mean((1, 2, 3))
        return float(total.mean())


class FVD:
    """Fréchet distance of videos (Unterthiner et al. 2018) in the features of an I3D; lower is nearer.

    Args:
        weights: I3D as TorchScript, that of StyleGAN-V (Skorokhodov et al. 2022). Loading it runs its code.

    Raises:
        ValueError: the file is no TorchScript.
    """

    def __init__(self, weights: Path) -> None:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter(
                    "ignore", DeprecationWarning
                )  # the network is distributed as TorchScript only
                self.network = torch.jit.load(weights, map_location="cpu").eval()
        except Exception as error:
            raise ValueError(f"{weights}: no TorchScript ({error})") from error

    def distance(self, frames: torch.Tensor, predicted: torch.Tensor) -> float:
        """The distance between uint8 videos `(B, T, H, W, 3)` and predicted ones, float in 0..1."""
        real, imagined = (self._features(x) for x in (frames.float(), predicted * 255))
        apart = np.square(real.mean(0) - imagined.mean(0)).sum()
        spread = [np.cov(x, rowvar=False) for x in (real, imagined)]
        # The trace of a root is the sum of the roots of eigenvalues; rounding may make those of zero negative.
        shared = np.sqrt(np.linalg.eigvals(spread[0] @ spread[1]).real.clip(0)).sum()
        return float(apart + np.trace(spread[0]) + np.trace(spread[1]) - 2 * shared)

    def _features(self, videos: torch.Tensor) -> np.ndarray:
        found = [
            self.network(part.permute(0, 4, 1, 2, 3).cpu(), rescale=True, resize=True, return_features=True)
            for part in videos.split(16)
        ]
        return torch.cat(found).double().numpy()


@one_core()
@torch.inference_mode()
def measure(
    encoded: Encoded, truth: Sequence[Truth] | None = None, lpips: LPIPS | None = None, fvd: FVD | None = None
) -> Json:
    """LPIPS by horizon and FVD of predictions, open loop from the first frames; None without their networks.

    Returns:
        `lpips`, with `floors` beside it, and `fvd`, with `fvd_floors`: the same of the first frame copied, `last_frame`.
    """
    result: Json = {"lpips": None, "fvd": None, "fvd_floors": None}
    world = encoded.world
    if lpips is not None:
        distance: Json = {}
        copied: Json = {}
        for horizon in HORIZONS:
            clips = Clips.from_encoded(encoded, 0, horizon)
            distance[str(horizon)] = copied[str(horizon)] = None
            if clips is not None:
                true, first = (
                    torch.as_tensor(clips.frames(step), device=world.device) for step in (horizon, 0)
                )
                distance[str(horizon)] = lpips.distance(world.model.colors(clips.unroll()[-1]), true)
                copied[str(horizon)] = lpips.distance(first / 255, true)
        result["lpips"] = distance | {"floors": {"last_frame": copied}}
    if fvd is not None:
        clips = Clips.from_encoded(encoded, 0, min(HORIZONS[-1], max(map(len, encoded.frames)) - 1))
        assert clips is not None
        true = torch.stack([torch.as_tensor(clips.frames(step)) for step in range(clips.horizon + 1)], 1)
        drawn = torch.stack([world.model.colors(scene).cpu() for scene in clips.unroll()], 1)
        result["fvd"] = fvd.distance(true, drawn)
        result["fvd_floors"] = {"last_frame": fvd.distance(true, (true[:, :1] / 255).expand(true.shape))}
    return result


def lacking(lpips: bool, fvd: bool) -> str:
    """A line that names the measures left out, why, and the options that add them; empty if both were made."""
    missing = [name for name, made in (("LPIPS", lpips), ("FVD", fvd)) if not made]
    if not missing:
        return ""
    verb, networks = ("are", "feature networks") if len(missing) > 1 else ("is", "a feature network")
    needs = " and ".join(HOW[name] for name in missing)
    return f"{' and '.join(missing)} {verb} left out for want of {networks}: give {needs}."
