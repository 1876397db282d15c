"""Training of FLAM on tracked layers, whose tracks are known: look codes, dynamics and prior."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ...core.layers import nearest_code
from ...training.checkpoints import Checkpoints
from ...training.run import Log
from .flam import TrackedFLAM
from .look_codes import LookCodes, draw_entities
from .sequences import Sequences
from .states import PRESENCE, VELOCITY, Rows, StateConfig
from .tokens import differs

BEYOND = 0.02
"""Share of its range in the video by which a number of a factor may lie beyond it."""


@dataclass(frozen=True)
class LookTrainingConfig:
    """Settings of the training of look codes."""

    frames: int = 3000
    """Frames at most that looks are learned from, evenly spread."""
    patch_steps: int = 800
    """Steps on looks alone."""
    steps: int = 1500
    """Steps on what is drawn."""
    batch: int = 16
    """Frames of a step."""
    learning_rate: float = 2e-3
    foreground: float = 5.0
    """Weight of pixels that differ from the context."""


@dataclass
class LookSample:
    """Frames that looks are learned from.

    Attributes:
        frame: uint8 `(N, 3, H, W)`. context: uint8, the same or one for all. look: uint8 `(N, K, 4, P, P)`.
        numbers: factors `(N, K, S)` with codes of 0. there: bool `(N, K)`, who is present.
    """

    frame: Tensor
    context: Tensor
    look: Tensor
    numbers: Tensor
    there: Tensor


def sample_looks(
    episodes: Iterable[tuple[np.ndarray, Rows, Tensor]], total: int, config: StateConfig, most: int
) -> LookSample:
    """Of episodes (frames, rows, context) of `total` frames as many frames as `most`, evenly spread."""
    every = max(1, -(-total // most))
    parts: list[tuple[Tensor, ...]] = []
    for frames, rows, context in episodes:
        at = torch.arange(every // 2, len(frames), every)
        nothing = torch.zeros(*rows.presence.shape, config.look_dim)
        grey = (context * 255).round().to(torch.uint8)
        parts.append(
            (
                torch.from_numpy(np.ascontiguousarray(frames[at.numpy()])).movedim(-1, 1),
                grey[at] if len(grey) == len(frames) else grey.expand(len(at), -1, -1, -1),
                (rows.look[at] * 255).round().to(torch.uint8),
                rows.factors(config, nothing)[at],
                rows.presence[at],
            )
        )
    return LookSample(*(torch.cat(part) for part in zip(*parts, strict=True)))


def some_looks(sample: LookSample, chosen: Tensor, most: int = 4000) -> Float[Tensor, "N 4 P P"]:
    """Looks of the entities in the mask `(N, K)`, evenly spread."""
    looks = sample.look[chosen]
    return looks[:: max(1, len(looks) // most)].float() / 255


def find_typical(codes: LookCodes, sample: LookSample, count: int, seed: int) -> Float[Tensor, "M L"]:
    """Codes of looks that are typical of what moves: of the faster half, for what rests may be a piece of the ground."""
    speed = sample.numbers[:, : sample.there.shape[1], VELOCITY].norm(dim=-1)  # without the camera
    fast = sample.there & (speed >= speed[sample.there].median())
    return codes.typical(some_looks(sample, fast), count, seed)


def train_looks(
    codes: LookCodes,
    sample: LookSample,
    state: StateConfig,
    config: LookTrainingConfig,
    log: Log,
    generator: torch.Generator,
    checkpoints: Checkpoints = Checkpoints(),
) -> None:
    """First to reconstruct looks, then to draw frames."""
    looks = sample.look[sample.there]
    codes.start_from(some_looks(sample, sample.there))
    optimizer = torch.optim.Adam(codes.parameters(), config.learning_rate)
    total = config.patch_steps + config.steps
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, total)
    checkpoint = checkpoints.for_loop(
        "looks", total, codes=codes, optimizer=optimizer, schedule=schedule, drawn=generator
    )
    for step, bar in log.steps("looks", total, config.batch, checkpoint.resume()):
        if step < config.patch_steps:
            at = torch.randint(len(looks), (256,), generator=generator)
            look = looks[at].float() / 255
            error = (codes.decode(codes.encode(look)) - look).square().mean()
            loss = error
        else:
            at = torch.randint(len(sample.frame), (config.batch,), generator=generator)
            loss, error = _drawing_loss(codes, sample, at, state, config)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(codes.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            log.scalar("looks/error", error.item(), step)
            bar.set_postfix(error=f"{error.item():.5f}")
        checkpoint.after(step)
    codes.normalize(some_looks(sample, sample.there))


def _drawing_loss(
    codes: LookCodes, sample: LookSample, at: Tensor, state: StateConfig, config: LookTrainingConfig
) -> tuple[Tensor, Tensor]:
    frame, context = sample.frame[at].float() / 255, sample.context[at].float() / 255
    numbers = sample.numbers[at, : state.entities]
    code = codes.encode(sample.look[at].float() / 255)
    factors = torch.cat([numbers[..., : -state.look_dim], code], -1)
    _, scene = draw_entities(codes, state, factors, context)
    off = (scene.frame_B3HW - frame).square().mean(1)
    foreground = differs(frame - context, 0.05)
    loss = (off * torch.where(foreground, config.foreground, 1.0)).mean()
    return loss, off.mean()


@dataclass(frozen=True)
class DynamicsTrainingConfig:
    """Settings of the training of inverse and forward dynamics."""

    steps: int = 3000
    batch: int = 128
    """Clips of a step."""
    learning_rate: float = 2e-3
    unroll: tuple[int, ...] = (2, 4, 8)
    """Steps that are predicted open loop, in equal shares of training one after the other."""


def set_ranges(model: TrackedFLAM, sequences: Sequences, most: int) -> None:
    """Which range each number of a factor has in the video, in `most` frames of it."""
    shown, _ = sequences.pairs(most)
    shown = shown[shown[..., PRESENCE] > 0.5]
    low, high = shown.amin(0), shown.amax(0)
    room = BEYOND * (high - low)
    model.lowest_S.copy_(low - room)
    model.highest_S.copy_(high + room)


def train_dynamics(
    model: TrackedFLAM,
    sequences: Sequences,
    config: DynamicsTrainingConfig,
    log: Log,
    generator: torch.Generator,
    checkpoints: Checkpoints = Checkpoints(),
) -> None:
    """Inverse and forward dynamics, on factors alone."""
    model.train()
    parameters = [*model.inverse_dynamics.parameters(), *model.forward_dynamics.parameters()]
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, config.learning_rate, config.steps, pct_start=0.1
    )
    checkpoint = checkpoints.for_loop(
        "dynamics", config.steps, model=model, optimizer=optimizer, schedule=schedule, drawn=generator
    )
    for step, bar in log.steps("dynamics", config.steps, config.batch, checkpoint.resume()):
        share = step * len(config.unroll) // config.steps
        clips = sequences.sample(config.batch, config.unroll[share] + 1, generator)
        loss, metrics = model.loss(clips, min(1.0, 4 * step / config.steps))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            log.metrics("dynamics", metrics, step)
            bar.set_postfix({key: f"{value.item():.3f}" for key, value in metrics.items()})
        checkpoint.after(step)


@dataclass(frozen=True)
class PriorTrainingConfig:
    """Settings of the training of the prior."""

    steps: int = 1500
    batch: int = 1024
    """Frames of a step."""
    frames: int = 20_000
    """Frames at most that it is learned from, evenly spread."""
    learning_rate: float = 2e-3


def train_prior(
    model: TrackedFLAM,
    sequences: Sequences,
    config: PriorTrainingConfig,
    log: Log,
    generator: torch.Generator,
    checkpoints: Checkpoints = Checkpoints(),
) -> None:
    """Action codes and who takes which, with all else fixed; nothing of a model without action codes."""
    if not model.coded:
        return
    prior = model.latent_action_prior
    with torch.no_grad():
        now, following = sequences.pairs(config.frames)
        latent = model.inverse_dynamics(now, following).mean
        there, stays = now[..., PRESENCE] > 0.5, following[..., PRESENCE] > 0.5
        prior.keep_births(latent[~there & stays], latent[~there & ~stays], generator)
        index = nearest_code(latent, prior.codebook)
        off = (latent - prior.codebook[index])[there & stays]
        model.spread_A.copy_(off.square().mean(0).sqrt().clamp_min(1e-2))
        seen = model.forward_dynamics.interaction(now)
    parameters = [*prior.net.parameters(), *prior.birth.parameters()]
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, config.learning_rate, config.steps)
    model.eval()
    checkpoint = checkpoints.for_loop(
        "prior", config.steps, prior=prior, optimizer=optimizer, schedule=schedule, drawn=generator
    )
    for step, bar in log.steps("prior", config.steps, config.batch, checkpoint.resume()):
        at = torch.randint(len(now), (config.batch,), generator=generator)
        loss = prior.loss(now[at], seen[at], index[at], stays[at])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0:
            log.scalar("prior/loss", loss.item(), step)
            bar.set_postfix(loss=f"{loss.item():.3f}")
        checkpoint.after(step)
    if not bool((there & ~stays).any()):
        prior.keep_alive()
