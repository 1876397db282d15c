"""Train a world model on the codes of action-free video."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR

from ...core.layers import linears, nearest_code
from ...core.threads import one_core
from ...files import new_array
from ...training.checkpoints import Checkpoints
from ...training.run import Log
from ...types import check_ranges
from ..rivals.playslot import PlaySlot
from ..rivals.rival import Coded
from .binding import code_statistics, coherent_keys
from .clips import Clips
from .code_model import CodeFacts, CodeModel, FLAMConfig
from .flam import FLAM
from .kinds import CODE_MODELS
from .tokenizer import Tokenizer

PRIOR_BYTES = 2**29
"""What the transitions that the prior learns from may take on disk."""


@dataclass(frozen=True)
class WorldTrainingConfig:
    """Settings of the training of a model of codes and its prior."""

    steps: int = 4500
    frames: int = 256
    """Frames a step; clips times frames of a clip."""
    clip_lengths: tuple[int, ...] = (2, 4, 8, 16)
    """Frames of a clip, and so of the open-loop unroll, growing as training goes on."""
    learning_rate: float = 2e-3
    beta: float = 3e-3
    """Highest weight of the KL of latent actions from the standard normal, at 60% of the steps."""
    beta_start: float = 3e-4
    """The same until a fifth of the steps is done: too much before factors are in use ends in collapse."""
    beta_end: float = 1e-3
    """The same from 85% of the steps on: less noise in latent actions, sharper dynamics."""
    clip_norm: float = 1.0
    """Largest norm of the gradient."""
    prior_steps: int = 5000
    """Steps of the prior, after the rest is trained; with 0 every action code is as likely."""
    prior_batch: int = 512
    """Transitions a step of the prior."""
    prior_learning_rate: float = 1e-3
    precision: Literal["float32", "bfloat16"] = "float32"
    """Precision of the products in the world's loss (autocast); weights stay float32."""
    checkpoint_every: int = 250
    """Steps after which an interrupted run can go on, in whatever loop of its training it was."""

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: a number is out of its range.
        """
        most = (1, 10**12)
        check_ranges(self, steps=most, frames=most, prior_batch=most, checkpoint_every=most)
        check_ranges(
            self, prior_steps=(0, 10**12), learning_rate=(1e-12, 10), prior_learning_rate=(1e-12, 10)
        )
        check_ranges(
            self, beta=(1e-12, 1e6), beta_start=(0, 1e6), beta_end=(1e-12, 1e6), clip_norm=(1e-12, 1e12)
        )
        if not self.clip_lengths or min(self.clip_lengths) < 2:
            raise ValueError(
                f"clip_lengths are {self.clip_lengths}; allowed are one or more of 2 frames or more"
            )


@one_core()
def make_model(
    name: str, tokenizer: Tokenizer, episodes: list[torch.Tensor], config: FLAMConfig, seed: int
) -> CodeModel:
    """A model, FLAM or a rival, for what `episodes` of codes `(T, N)` show; factors start from what moves together.

    Raises:
        ValueError: there is no model of that name.
    """
    if name not in CODE_MODELS:
        raise ValueError(f"model is {name!r}; allowed are {', '.join(CODE_MODELS)}")
    looks = tokenizer.looks()
    statistics = code_statistics([e.numpy() for e in episodes], tokenizer.grid, len(looks))
    keys, queries = coherent_keys(statistics, config.factorizer.factors, seed=seed)
    torch.manual_seed(seed)
    facts = CodeFacts(
        looks.detach().cpu(),
        tokenizer.codebook.detach().cpu().clone(),
        torch.as_tensor(keys),
        torch.as_tensor(queries),
        torch.as_tensor(statistics.frequency).float(),
        torch.as_tensor(statistics.activity).float(),
        torch.as_tensor(statistics.background).float(),
        tokenizer.grid,
    )
    return CODE_MODELS[name](config, facts)


@one_core()
def train_world(
    model: CodeModel,
    clips: Clips,
    config: WorldTrainingConfig,
    log: Log,
    on_step: Callable[[int], None] = lambda step: None,
    checkpoints: Checkpoints = Checkpoints(),
) -> CodeModel:
    """`model` trained in place; one without parameters stays as it is.

    Args:
        on_step: called after each step, for pictures.
    """
    device = model.weight_V.device
    if not any(True for _ in model.parameters()):
        return model
    optimizer = torch.optim.AdamW(
        model.parameters(), config.learning_rate, (0.9, 0.98), weight_decay=1e-4, fused=True
    )
    model.train()
    checkpoint = checkpoints.for_loop(
        "world", config.steps, model=model, optimizer=optimizer, clips=clips.generator
    )
    first = checkpoint.resume()
    schedule = warmed_cosine(optimizer, config.learning_rate, config.steps, first)
    for step, bar in log.steps("world", config.steps, config.frames, first):
        done = step / config.steps
        length = min(config.clip_lengths[int(done * len(config.clip_lengths))], clips.longest)
        beta = beta_at(config, done)
        z_BTN = clips.sample(max(1, config.frames // length), length).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=config.precision == "bfloat16"):
            loss, metrics = model.loss(z_BTN, beta)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip_norm)
        optimizer.step()
        if step % 50 == 0 or step == config.steps - 1:
            log.metrics("world", metrics, step)
            log.scalar("world/beta", beta, step)
            log.scalar("world/learning_rate", float(schedule.get_last_lr()[0]), step)
            bar.set_postfix(
                prediction=f"{metrics['prediction']:.1e}",
                kl=" ".join(f"{kl:.1f}" for kl in metrics["kl"].tolist()),
            )
        schedule.step()
        on_step(step)
        checkpoint.after(step)
    return model.eval()


def warmed_cosine(optimizer: torch.optim.Optimizer, rate: float, steps: int, first: int = 0) -> LambdaLR:
    """From 0 to the learning rate `rate` in 100 steps, times a cosine that falls to 2% of it in `steps`; `first` is the
    step to begin with."""
    for group in optimizer.param_groups:  # whatever a checkpoint says
        group.update(lr=rate, initial_lr=rate)

    def share(step: int) -> float:
        return min(1.0, step / 100) * (0.49 * (1 + math.cos(math.pi * step / steps)) + 0.02)

    return LambdaLR(optimizer, share, last_epoch=first - 1)


def beta_at(config: WorldTrainingConfig, done: float) -> float:
    """Weight of the KL when the share `done` of the steps is: up, then down again."""
    if done < 0.6:
        rise = max(0.0, (done - 0.2) / 0.4)
        return config.beta_start + (config.beta - config.beta_start) * rise
    fall = min(1.0, (done - 0.6) / 0.25)
    return config.beta * (config.beta_end / config.beta) ** fall


@one_core()
def train_prior(
    model: CodeModel,
    episodes: list[torch.Tensor],
    config: WorldTrainingConfig,
    seed: int,
    log: Log,
    checkpoints: Checkpoints = Checkpoints(),
) -> CodeModel:
    """The prior of latent actions, with the rest of `model` as it is.

    FLAM's learns which action code was taken, given the factors; of a rival's codes it is counted how often each is
    taken; a continuous rival without codes keeps the standard normal.

    Args:
        episodes: codes `(T, N)` each.
    """
    if isinstance(model, FLAM):
        _train_flam_prior(model, episodes, config, seed, log, checkpoints)
    elif isinstance(model, Coded | PlaySlot):
        _count_codes(model, episodes)
    return model.requires_grad_(False)


@torch.inference_mode()
def _count_codes(model: Coded | PlaySlot, episodes: list[torch.Tensor]) -> None:
    device = model.weight_V.device
    model.count(
        torch.cat(
            [
                model.infer_actions(model.factorize(codes[None].to(device).long())).mean[0]
                for codes in episodes
                if len(codes) > 1
            ]
        )
    )


def _train_flam_prior(
    flam: FLAM,
    episodes: list[torch.Tensor],
    config: WorldTrainingConfig,
    seed: int,
    log: Log,
    checkpoints: Checkpoints,
) -> None:
    if config.prior_steps == 0:
        last = linears(flam.latent_action_prior.net)[-1]
        torch.nn.init.zeros_(last.weight)
        torch.nn.init.zeros_(last.bias)
        return
    device = flam.weight_V.device
    prior = flam.latent_action_prior
    optimizer = torch.optim.AdamW(
        prior.parameters(), config.prior_learning_rate, weight_decay=1e-2, fused=True
    )
    schedule = CosineAnnealingLR(optimizer, config.prior_steps, 0.02 * config.prior_learning_rate)
    generator = torch.Generator().manual_seed(seed)
    flam.eval()
    with tempfile.TemporaryDirectory(prefix="flam_rl-prior-") as folder:
        now, imagined, places, next_places, index = _prior_data(flam, episodes, Path(folder), generator)
        checkpoint = checkpoints.for_loop(
            "prior",
            config.prior_steps,
            prior=prior,
            optimizer=optimizer,
            schedule=schedule,
            rows=generator,
        )
        for step, bar in log.steps("prior", config.prior_steps, config.prior_batch, checkpoint.resume()):
            rows = torch.randint(len(now), (config.prior_batch,), generator=generator)
            # Imagination shows the prior predicted factors, and starts from inferred ones.
            mixed = torch.where((rows % 2 == step % 2)[:, None, None], now[rows], imagined[rows])
            batch = (mixed, places[rows], next_places[rows], index[rows].long())
            loss = flam.prior_loss(*(part.to(device) for part in batch))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            if step % 100 == 0 or step == config.prior_steps - 1:
                log.scalar("prior/loss", loss.item(), step)
                bar.set_postfix(loss=f"{loss.item():.3f}")
            checkpoint.after(step)


@torch.inference_mode()
def _prior_data(
    flam: FLAM, episodes: list[torch.Tensor], folder: Path, generator: torch.Generator
) -> tuple[torch.Tensor, ...]:
    """Factors now, and now as predicted from the frame before, `(n, K, S)`; places now and next, `(n, K, N)`;
    action codes uint8 `(n, K)`: of all transitions, or of as many in random episodes as `PRIOR_BYTES` hold. Mapped
    from files in `folder`."""
    factors, tokens = flam.factors, math.prod(flam.grid)
    shapes = [(factors, flam.factor_dim)] * 2 + [(factors, tokens)] * 2 + [(factors,)]
    most = PRIOR_BYTES // (4 * sum(map(math.prod, shapes)))
    order = [episodes[i] for i in torch.randperm(len(episodes), generator=generator).tolist()]
    rows = min(most, sum(len(codes) - 1 for codes in order))
    columns = [
        torch.from_numpy(new_array(folder / f"{i}.npy", dtype, (rows, *shape)))
        for i, (shape, dtype) in enumerate(zip(shapes, [np.float32] * 4 + [np.uint8], strict=True))
    ]
    for path in folder.iterdir():
        path.unlink()  # mapped they stay; a process that is killed leaves nothing
    first = 0
    for codes in order:
        if first == rows:
            break
        for column, value in zip(columns, _prior_rows(flam, codes), strict=True):
            column[first : first + len(value)] = value[: rows - first].to(column)
        first = min(rows, first + len(codes) - 1)
    return tuple(columns)


def _prior_rows(flam: FLAM, codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
    codebook = flam.latent_action_prior.codebook
    factors = flam.factorize(codes[None].to(codebook.device).long())
    taken = nearest_code(flam.infer_actions(factors).mean, codebook)[0]
    factors = factors[0]
    predicted = flam.step(factors[:-1], codebook[taken])
    imagined = torch.cat([factors[:1], predicted])
    places = flam.aggregator.places(factors)
    return factors[:-1], imagined[:-1], places[:-1], places[1:], taken
