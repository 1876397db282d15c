"""Train a FLAM on the codes of action-free video."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from ..data.clips import Clips
from ..models.binding import code_statistics, coherent_keys
from ..models.flam import FLAM, FLAMConfig
from ..models.tokenizer import Tokenizer
from .run import Log


@dataclass(frozen=True)
class WorldTrainingConfig:
    steps: int = 4000
    frames: int = 256
    """Frames a step; clips times frames of a clip."""
    clip_lengths: tuple[int, ...] = (2, 4, 8, 16)
    """Frames of a clip, and so of the open-loop unroll, growing as training goes on."""
    learning_rate: float = 2e-3
    beta: float = 1e-2
    """Weight of the KL of latent actions from the standard normal, reached half-way."""
    beta_start: float = 3e-4
    """... and at the start, until a fifth of the steps is done."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    checkpoint_every: int = 250
    """Steps after which an interrupted run can go on."""


def make_flam(tokenizer: Tokenizer, episodes: list[torch.Tensor], config: FLAMConfig, seed: int) -> FLAM:
    """A FLAM whose factors start from what moves together in `episodes` of codes int64 `(T, N)`."""
    looks = tokenizer.looks()
    statistics = code_statistics([e.numpy() for e in episodes], tokenizer.grid, len(looks))
    keys, queries = coherent_keys(statistics, config.factorizer.factors, seed=seed)
    torch.manual_seed(seed)
    return FLAM(
        config,
        looks.cpu(),
        tokenizer.codebook.cpu(),
        torch.as_tensor(keys),
        torch.as_tensor(queries),
        torch.as_tensor(statistics.frequency).float(),
        torch.as_tensor(statistics.activity).float(),
        torch.as_tensor(statistics.background).float(),
        tokenizer.grid,
    )


def train_world(
    flam: FLAM,
    clips: Clips,
    config: WorldTrainingConfig,
    log: Log,
    on_step: Callable[[int], None] = lambda step: None,
    checkpoint: Path | None = None,
) -> FLAM:
    """`flam` trained in place.

    Args:
        on_step: called after each step, for pictures.
        checkpoint: file to save the state to every `checkpoint_every` steps, and to go on from if it is there.
    """
    device = flam.weight_V.device
    parts = flam.parameter_groups()
    optimizer = torch.optim.AdamW(
        [p for part in parts for p in part], config.learning_rate, (0.9, 0.98), weight_decay=1e-4
    )
    flam.train()
    first = 0
    if checkpoint is not None and checkpoint.exists():
        first = _resume(checkpoint, flam, optimizer, clips)
    for step, bar in log.steps("world", config.steps, config.frames, first):
        done = step / config.steps
        length = min(config.clip_lengths[int(done * len(config.clip_lengths))], clips.longest)
        rate = min(1.0, step / 100) * (0.49 * (1 + math.cos(math.pi * done)) + 0.02)
        optimizer.param_groups[0]["lr"] = config.learning_rate * rate
        rise = min(1.0, max(0.0, (done - 0.2) / 0.3))
        beta = config.beta_start + (config.beta - config.beta_start) * rise
        z_BTN = clips.sample(max(1, config.frames // length), length).to(device)
        loss, metrics = flam.loss(z_BTN, beta)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for part in parts:
            torch.nn.utils.clip_grad_norm_(part, config.clip_norm)
        optimizer.step()
        if step % 50 == 0 or step == config.steps - 1:
            log.metrics("world", metrics, step)
            log.scalar("world/beta", beta, step)
            log.scalar("world/learning_rate", config.learning_rate * rate, step)
            bar.set_postfix(
                prediction=f"{metrics['prediction']:.1e}",
                prior=f"{metrics['prior']:.2f}",
                kl=" ".join(f"{kl:.1f}" for kl in metrics["kl"].tolist()),
            )
        on_step(step)
        if checkpoint is not None and (step + 1) % config.checkpoint_every == 0:
            _save(checkpoint, step + 1, flam, optimizer, clips)
    return flam.eval().requires_grad_(False)


def _save(path: Path, step: int, flam: FLAM, optimizer: torch.optim.Optimizer, clips: Clips) -> None:
    state = {
        "step": step,
        "flam": flam.state_dict(),
        "optimizer": optimizer.state_dict(),
        "clips": clips.generator.get_state(),
        "random": torch.get_rng_state(),
    }
    scratch = path.with_name(f".{path.name}.part")
    torch.save(state, scratch)
    os.replace(scratch, path)


def _resume(path: Path, flam: FLAM, optimizer: torch.optim.Optimizer, clips: Clips) -> int:
    state = torch.load(path, map_location="cpu", weights_only=True)
    flam.load_state_dict(state["flam"])
    optimizer.load_state_dict(state["optimizer"])
    clips.generator.set_state(state["clips"])
    torch.set_rng_state(state["random"])
    return int(state["step"])
