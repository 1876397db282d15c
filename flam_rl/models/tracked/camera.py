"""How far the camera moved between two frames, by phase correlation."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .sprites import hats


def shift_between(
    one_B3HW: Float[Tensor, "B 3 H W"], two_B3HW: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B 2"]:
    """Pixels (x, y), with fractions, by which the whole picture moved from one frame to the other.

    The shift is the peak of the phase correlation of grey frames that fade out towards their borders, refined by a
    parabola through the neighbours of the peak.
    """
    height, width = one_B3HW.shape[-2:]
    fade = torch.hann_window(height)[:, None] * torch.hann_window(width)
    spectra = []
    for frame in (one_B3HW, two_B3HW):
        grey = frame.mean(1)
        spectra.append(torch.fft.rfft2((grey - grey.mean((-1, -2), keepdim=True)) * fade.to(frame)))
    cross = spectra[1] * spectra[0].conj()
    peaks = torch.fft.irfft2(cross / cross.abs().clamp_min(1e-9), s=(height, width))
    rows = torch.arange(len(peaks), device=peaks.device)
    best = peaks.flatten(1).argmax(1)
    y, x = best // width, best % width
    shift = []
    for at, length, line in (
        (x, width, lambda step: peaks[rows, y, (x + step) % width]),
        (y, height, lambda step: peaks[rows, (y + step) % height, x]),
    ):
        low, middle, high = line(-1), line(0), line(1)
        bend = (low - 2 * middle + high).clamp(max=-1e-9)
        whole = torch.where(at > length // 2, at - length, at)
        shift.append(whole + ((low - high) / (2 * bend)).clamp(-0.5, 0.5))
    return torch.stack(shift, -1)


def shifted(frame_B3HW: Float[Tensor, "B 3 H W"], shift_B2: Float[Tensor, "B 2"]) -> Float[Tensor, "B 3 H W"]:
    """Frames moved by (x, y) pixels; pixels that come into view are 0."""
    height, width = frame_B3HW.shape[-2:]
    across = hats(width / 2 + shift_B2[:, 0], width, width)[:, None]
    down = hats(height / 2 + shift_B2[:, 1], height, height)[:, None]
    return down @ frame_B3HW @ across.mT


@dataclass(frozen=True)
class CameraConfig:
    """Settings of the camera's path."""

    iterations: int = 8
    """Gauss-Newton steps of a registration."""
    cap: float = 0.1
    """Pixels that differ by more (colours in 0..1) show things that move by themselves, and have little weight."""
    reach: float = 0.2
    """When a frame has moved by more than this share of its smaller side, it becomes the key frame of the frames
    after it."""
    apart: int = 8
    """Frames between the frames that are compared to decide whether the camera moves."""
    least: float = 0.1
    """Mean motion in pixels per frame below which the camera counts as still."""


def camera_path(
    frames_T3HW: Float[Tensor, "T 3 H W"], config: CameraConfig = CameraConfig()
) -> Float[Tensor, "T 2"]:
    """Pixels (x, y) by which the ground of each frame is moved against the first frame; zeros if the camera stands
    still.

    Each frame is registered to a key frame. The registration starts from the last motion, from no motion, or from
    phase correlation, whichever fits best.
    """
    path = torch.zeros(len(frames_T3HW), 2, device=frames_T3HW.device)
    if not _moves(frames_T3HW, config):
        return path
    key, motion = 0, torch.zeros(2, device=frames_T3HW.device)
    limit = config.reach * min(frames_T3HW.shape[-2:])
    for t in range(1, len(frames_T3HW)):
        ground, frame = frames_T3HW[key][None], frames_T3HW[t][None]
        since = path[t - 1] - path[key]
        tries = torch.stack([since + motion, since, shift_between(ground, frame)[0]])
        errors = misfit(frame.expand(3, -1, -1, -1), ground.expand(3, -1, -1, -1), tries, config)
        shift = register(frame, ground, tries[errors.argmin()][None], config)[0]
        path[t] = path[key] + shift
        motion = path[t] - path[t - 1]
        if float(shift.abs().max()) > limit:
            key = t
    return path


def _moves(frames_T3HW: Float[Tensor, "T 3 H W"], config: CameraConfig) -> bool:
    """Whether frames, some time apart, fit better when one is moved as a whole."""
    lag = min(config.apart, len(frames_T3HW) - 1)
    ground, frame = frames_T3HW[:-lag:lag], frames_T3HW[lag::lag][: len(frames_T3HW[:-lag:lag])]
    nothing = torch.zeros(len(frame), 2, device=frame.device)
    phase = shift_between(ground, frame)
    still, rough = misfit(frame, ground, nothing, config), misfit(frame, ground, phase, config)
    shift = register(frame, ground, torch.where((rough < still)[:, None], phase, nothing), config)
    better = misfit(frame, ground, shift, config) < 0.7 * still
    return float((shift.norm(dim=-1) * better).mean()) > config.least * lag


def misfit(
    frame_B3HW: Float[Tensor, "B 3 H W"],
    ground_B3HW: Float[Tensor, "B 3 H W"],
    shift_B2: Float[Tensor, "B 2"],
    config: CameraConfig,
) -> Float[Tensor, B]:
    """Mean capped difference of frames, moved back, from the ground where both are known."""
    known = shifted(torch.ones_like(frame_B3HW), -shift_B2) > 0.99
    apart = (shifted(frame_B3HW, -shift_B2) - ground_B3HW).abs().clamp(max=2 * config.cap) * known
    return apart.sum((1, 2, 3)) / known.sum((1, 2, 3)).clamp_min(1)


def register(
    frame_B3HW: Float[Tensor, "B 3 H W"],
    ground_B3HW: Float[Tensor, "B 3 H W"],
    shift_B2: Float[Tensor, "B 2"],
    config: CameraConfig,
) -> Float[Tensor, "B 2"]:
    """The shift of frames against the ground to a fraction of a pixel, by robust Gauss-Newton from a rough one."""
    half = 0.5 * torch.eye(2, device=shift_B2.device)
    for _ in range(config.iterations):
        known = shifted(torch.ones_like(frame_B3HW), -shift_B2) > 0.99
        residual = (ground_B3HW - shifted(frame_B3HW, -shift_B2)) * known
        slopes = torch.stack(
            [shifted(frame_B3HW, -shift_B2 - step) - shifted(frame_B3HW, -shift_B2 + step) for step in half],
            1,
        ).flatten(2)
        weight = ((1 + (residual / config.cap).square()).reciprocal().square() * known).flatten(1)[:, None]
        normal = (slopes * weight) @ slopes.mT + 1e-6 * torch.eye(2, device=shift_B2.device)
        step = torch.linalg.solve(normal, (slopes * weight) @ residual.flatten(1)[..., None])[..., 0]
        shift_B2 = shift_B2 + step.clamp(-1, 1)
        if step.abs().max() < 0.01:
            break
    return shift_B2


class Mosaic:
    """Frames laid out on the ground that a camera passed over, whose first pixel is what lay farthest up and left.

    Args:
        path_T2: of `camera_path`. size: height and width of frames.
    """

    def __init__(self, path_T2: Float[Tensor, "T 2"], size: tuple[int, int]) -> None:
        self.size = size
        self.corner_T2 = path_T2.amax(0) - path_T2
        extra = self.corner_T2.amax(0).ceil().long().tolist()
        self.whole = size[0] + extra[1], size[1] + extra[0]

    def _hats(self, at: Tensor) -> tuple[Tensor, Tensor]:
        (height, width), (tall, wide) = self.size, self.whole
        return tuple(  # type: ignore[return-value]
            (
                1
                - (
                    torch.arange(long, device=at.device)[:, None] - torch.arange(short, device=at.device) - v
                ).abs()
            ).clamp_min(0)[:, None]
            for v, long, short in (
                (at[:, 1, None, None], tall, height),
                (at[:, 0, None, None], wide, width),
            )
        )

    def lay(self, images_TCHW: Float[Tensor, "T C H W"]) -> Float[Tensor, "T C Y X"]:
        """Each image at its place on the ground; 0 around it."""
        down, across = self._hats(self.corner_T2)
        return down @ images_TCHW @ across.mT

    def look(self, ground_CYX: Float[Tensor, "C Y X"]) -> Float[Tensor, "T C H W"]:
        """What the camera sees of the ground in each frame."""
        down, across = self._hats(self.corner_T2)
        seen = down.mT @ ground_CYX @ across
        whole = down.mT @ torch.ones_like(ground_CYX) @ across
        return seen / whole.clamp_min(1e-3)
