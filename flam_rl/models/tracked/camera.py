"""How far the camera moved between two frames, by phase correlation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from .sprites import hats


def shift_between(
    one_B3HW: Float[Tensor, "B 3 H W"], two_B3HW: Float[Tensor, "B 3 H W"]
) -> Float[Tensor, "B 2"]:
    """By how many pixels (x, y) the whole picture moved from one frame to the other, to a fraction of a pixel.

    The peak of the phase correlation of grey frames, faded out to their borders, and a parabola through its neighbours.
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
    """Frames moved by (x, y) pixels; what comes into view is 0."""
    height, width = frame_B3HW.shape[-2:]
    across = hats(width / 2 + shift_B2[:, 0], width, width)[:, None]
    down = hats(height / 2 + shift_B2[:, 1], height, height)[:, None]
    return down @ frame_B3HW @ across.mT
