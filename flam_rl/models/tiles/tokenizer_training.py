"""Train the tokenizer on patches; then it is frozen."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR

from ...core.threads import one_core
from ...training.checkpoints import Checkpoints
from ...training.run import Log
from ...types import Video, check_ranges
from .tokenizer import Tokenizer, TokenizerConfig


@dataclass(frozen=True)
class TokenizerTrainingConfig:
    """Settings of the tokenizer's training."""

    steps: int = 1500
    batch: int = 1024
    """Patches a step."""
    learning_rate: float = 2e-3
    rarity_power: float = 0.7
    """Patches that occur n times are drawn with weight n^(1 - rarity_power): moving things are few."""
    enough: float | None = None
    """PSNR in dB of the training frames at which to stop before `steps`: makes tokenizers of several videos alike."""
    max_patches: int = 200_000
    """Distinct patches kept in memory at most; of more, a random part."""

    def __post_init__(self) -> None:
        most = (1, 10**12)
        check_ranges(self, steps=most, batch=most, max_patches=most)
        check_ranges(self, learning_rate=(1e-12, 10), rarity_power=(0, 1))


@one_core()
def train_tokenizer(
    video: Video,
    model: TokenizerConfig,
    training: TokenizerTrainingConfig,
    seed: int,
    device: torch.device,
    log: Log,
    checkpoints: Checkpoints = Checkpoints(),
) -> Tokenizer:
    """A tokenizer fitted to `video`, in eval mode and without gradients, its codes kept apart by a margin."""
    generator = torch.Generator().manual_seed(seed)
    tokenizer = Tokenizer(model, video.episodes[0].shape[1:3]).to(device)
    patches, counts = _distinct_patches(tokenizer, video, training.max_patches, generator)
    weight = counts.double() ** (1 - training.rarity_power)
    optimizer = torch.optim.AdamW(tokenizer.parameters(), training.learning_rate, weight_decay=0.0)
    schedule = CosineAnnealingLR(optimizer, training.steps, 0.01 * training.learning_rate)
    tokenizer.train()
    checkpoint = checkpoints.for_loop(
        "tokenizer",
        training.steps,
        tokenizer=tokenizer,
        optimizer=optimizer,
        schedule=schedule,
        patches=generator,
    )
    frames = training.batch // math.prod(tokenizer.grid) or 1
    for step, bar in log.steps("tokenizer", training.steps, frames, checkpoint.resume()):
        drawn = patches[torch.multinomial(weight, training.batch, True, generator=generator)]
        loss, metrics = tokenizer.loss(drawn.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == training.steps - 1:
            log.metrics("tokenizer", metrics, step)
            bar.set_postfix(mse=f"{metrics['mse']:.1e}")
        if training.enough is not None and step % 10 == 9:
            psnr = _psnr(tokenizer, patches, counts)
            log.scalar("tokenizer/psnr", psnr, step)
            if psnr >= training.enough:
                break
        checkpoint.after(step)
    tokenizer = tokenizer.eval().separated(patches.to(device), counts)
    log.scalar("tokenizer/codes", len(tokenizer.codebook), training.steps)
    log.scalar("tokenizer/ambiguous", float(tokenizer.ambiguous), training.steps)
    return tokenizer


@torch.no_grad()
def _psnr(tokenizer: Tokenizer, patches: torch.Tensor, counts: torch.Tensor, most: int = 4096) -> float:
    """PSNR in dB of the frames that distinct `patches` make up; of a part of them if there are many."""
    every = -(-len(patches) // most)
    shown, weight = (
        patches[::every].to(tokenizer.codebook.device),
        counts[::every].to(tokenizer.codebook.device),
    )
    looks = tokenizer.looks()[tokenizer.distances(shown).argmin(-1)]
    error = (looks - shown.float() / 255).square().mean(-1)
    return float(-10 * torch.log10((error * weight).sum() / weight.sum()))


def _distinct_patches(
    tokenizer: Tokenizer, video: Video, most: int, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Distinct patches uint8 `(n, pixels)` and how often each occurs `(n,)`: in all of the video, or where there are more
    than `most`, in a random part of it."""
    found: dict[bytes, int] = {}
    rng = np.random.default_rng(int(torch.randint(2**31, (), generator=generator)))
    share = 1.0
    for episode in video.episodes:
        patches = tokenizer.patches(torch.as_tensor(episode)).flatten(0, -2).numpy()
        if share < 1:
            patches = patches[rng.random(len(patches)) < share]
        whole = np.ascontiguousarray(patches).view(f"V{patches.shape[1]}").ravel()
        for patch, count in zip(*np.unique(whole, return_counts=True), strict=True):
            found[patch.tobytes()] = found.get(patch.tobytes(), 0) + int(count)
        while len(found) > most:
            share /= 2
            kept = rng.binomial(list(found.values()), 0.5).tolist()
            found = {patch: count for patch, count in zip(found, kept, strict=True) if count}
    distinct = np.frombuffer(bytearray().join(found), np.uint8).reshape(len(found), -1)
    return torch.as_tensor(distinct), torch.as_tensor(list(found.values()))
