"""Training: what it may see, that it can go on, and that it learns."""

from __future__ import annotations

import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from interrupting import Interrupted, Interrupting
from tiles import tile_world
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler

from flam_rl.data.minari_writing import write_dataset
from flam_rl.data.reading import read
from flam_rl.evaluation import correspondence, tokens
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.truth import truths_of
from flam_rl.models.tiles.clips import Clips, tokenize
from flam_rl.models.tiles.code_model import FLAMConfig
from flam_rl.models.tiles.flam import FLAM
from flam_rl.models.tiles.tokenizer import TokenizerConfig
from flam_rl.models.tiles.tokenizer_training import TokenizerTrainingConfig, train_tokenizer
from flam_rl.models.tiles.training import (
    WorldTrainingConfig,
    beta_at,
    make_model,
    train_prior,
    train_world,
    warmed_cosine,
)
from flam_rl.training.checkpoints import Checkpoints
from flam_rl.training.run import Log, pick_device, seed_everything
from flam_rl.types import Episode, Video

CPU = torch.device("cpu")
BRIEF = WorldTrainingConfig(steps=6, frames=32, prior_steps=5, checkpoint_every=2)


def train_briefly(
    video: Video, seed: int = 0, folder: Path | None = None, config=BRIEF, log: Log | None = None
) -> FLAM:
    seed_everything(seed)
    checkpoints = Checkpoints(folder, config.checkpoint_every)
    with log or Log(None) as log:
        tokenizer = train_tokenizer(
            video, TokenizerConfig(), TokenizerTrainingConfig(steps=20), seed, CPU, log, checkpoints
        )
        codes = tokenize(tokenizer, video)
        flam = make_model("flam", tokenizer, codes.episodes, FLAMConfig(), seed)
        train_world(flam, Clips(codes, seed), config, log, checkpoints=checkpoints)
        return train_prior(flam, codes.episodes, config, seed, log, checkpoints)


def same(a: FLAM, b: FLAM) -> bool:
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


LOGGED = """
import time
from flam_rl.progress import progress, shown_while_waiting
from flam_rl.training.run import Log
for step, bar in Log(None, every=0.3).steps("world", 20, 256):
    bar.set_postfix(prediction=f"{step / 3:.1e}")
    time.sleep(0.1)
for _ in range(20):  # short ones in turn
    for _ in progress(range(2), desc="probes", unit="probe", every=0.3):
        time.sleep(0.05)
with progress(total=3, desc="cells", unit="cell", every=0.3) as bar, shown_while_waiting(bar, every=0.3):
    time.sleep(2)
"""


@pytest.mark.learning
def test_a_log_file_gets_a_line_now_and_then_with_step_losses_rate_and_time_left() -> None:
    ran = subprocess.run([sys.executable, "-c", LOGGED], check=True, stderr=subprocess.PIPE, text=True)
    lines = ran.stderr.splitlines()
    world = [line for line in lines if line.startswith("world: ")]
    assert len(world) >= 4
    for line in world:
        assert re.fullmatch(
            r"world: \d+/20 step \[\d\d:\d\d<\d\d:\d\d, +[\d.]+step/s, prediction=[\d.]+e[+-]\d+\]", line
        ), line
    assert len([line for line in lines if line.startswith("probes: ")]) >= 3
    assert len([line for line in lines if line.startswith("cells: 0/3")]) >= 3
    assert "\r" not in ran.stderr


@pytest.mark.learning
def test_scrambled_actions_and_rewards_change_no_weight(
    tmp_path: Path, task: gym.Env, episodes: list[Episode]
) -> None:
    rng = np.random.default_rng(0)
    scrambled = [
        replace(
            e,
            actions=rng.permutation(3 - e.actions),
            rewards=rng.normal(size=len(e.rewards)).astype(np.float32),
        )
        for e in episodes[:6]
    ]
    write_dataset(tmp_path / "true", task, episodes[:6])
    write_dataset(tmp_path / "scrambled", task, scrambled)
    assert same(
        train_briefly(read(tmp_path / "true").video), train_briefly(read(tmp_path / "scrambled").video)
    )


@pytest.mark.learning
def test_same_seed_same_weights_and_another_seed_others(video: Video) -> None:
    few = Video(video.episodes[:6])
    assert same(train_briefly(few), train_briefly(few))
    assert not same(train_briefly(few), train_briefly(few, seed=1))


@pytest.mark.learning
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(tmp_path: Path, video: Video) -> None:
    few = Video(video.episodes[:6])
    whole = train_briefly(few)
    for name, at in (("tokenizer", 7), ("tokenizer", 13), ("world", 1), ("world", 5), ("prior", 3)):
        log = Interrupting(name, at)
        with pytest.raises(Interrupted):
            train_briefly(few, folder=tmp_path, log=log)
        assert len(log.done) < 10, "what was done before is done again"
    log = Interrupting()
    assert same(whole, train_briefly(few, folder=tmp_path, log=log))
    assert log.done == [("prior", 2), ("prior", 3), ("prior", 4)]
    log = Interrupting()
    assert same(whole, train_briefly(few, folder=tmp_path, log=log))
    assert log.done == []


def rates(schedule: LRScheduler, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found += schedule.get_last_lr()
        schedule.optimizer.step()
        schedule.step()
    return found


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 2e-3)


@pytest.mark.learning
@pytest.mark.parametrize("steps", [7, 150, 5000])
def test_learning_rates_are_the_formulas(steps: int) -> None:
    cosine = [0.5 * (1 + math.cos(math.pi * step / steps)) for step in range(steps)]
    for least in (0.01, 0.02):
        schedule = CosineAnnealingLR(make_optimizer(), steps, least * 2e-3)
        assert rates(schedule, steps) == pytest.approx(
            [2e-3 * ((1 - least) * c + least) for c in cosine], rel=1e-9
        )
    warmed = [2e-3 * (min(1.0, step / 100) * (0.98 * c + 0.02)) for step, c in enumerate(cosine)]
    assert rates(warmed_cosine(make_optimizer(), 2e-3, steps), steps) == pytest.approx(warmed, rel=1e-12)
    resumed = warmed_cosine(make_optimizer(), 2e-3, steps, first=5)
    assert rates(resumed, steps - 5) == pytest.approx(warmed[5:], rel=1e-12)


def test_beta_rises_and_falls() -> None:
    config = WorldTrainingConfig()
    values = [beta_at(config, done) for done in (0.0, 0.2, 0.4, 0.599, 0.7, 0.85, 1.0)]
    assert values[0] == values[1] == config.beta_start
    assert values[3] == pytest.approx(config.beta, rel=0.01)
    assert values[1] < values[2] < values[3] > values[4] > values[5]
    assert values[5] == pytest.approx(config.beta_end)


@pytest.mark.learning
def test_tokenizer_reconstructs(video: Video) -> None:
    with Log(None) as log:
        tokenizer = train_tokenizer(video, TokenizerConfig(), TokenizerTrainingConfig(steps=300), 0, CPU, log)
    frames = torch.as_tensor(video.episodes[0])
    error = (tokenizer.decode(tokenizer.encode(frames)) - frames / 255).square().mean()
    assert error < 1e-3


def test_a_missing_device_is_explained() -> None:
    assert pick_device("cpu") == CPU
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees none"):
            pick_device("cuda")


@pytest.mark.learning
def test_a_short_training_on_real_frames_binds_and_predicts(task: gym.Env) -> None:
    from flam_rl.envs.tasks.record import record_episodes

    recorded = list(record_episodes(task, 6000, seed=1))
    train, test = recorded[: len(recorded) * 3 // 4], recorded[len(recorded) * 3 // 4 :]
    video = Video(tuple(e.frames for e in train))
    seed_everything(0)
    config = WorldTrainingConfig(steps=700, frames=192, clip_lengths=(2, 4), prior_steps=1)
    with Log(None) as log:
        tokenizer = train_tokenizer(video, TokenizerConfig(), TokenizerTrainingConfig(steps=800), 0, CPU, log)
        codes = tokenize(tokenizer, video)
        flam = train_world(
            make_model("flam", tokenizer, codes.episodes, FLAMConfig(), 0), Clips(codes, 0), config, log
        )
    world = tile_world(tokenizer, flam, torch.stack([codes.episodes[0][:4]]))
    held_out = Video(tuple(e.frames for e in test))
    encoded = encode(world, held_out, truths_of([e.entities for e in test]))
    assert tokens.measure(encoded)["token_accuracy_changed"]["1"] > 0.7
    found = correspondence.correspond(encoded, encoded.truth, iterations=10)
    assert found.disentanglement > 0.8
    assert sorted(found.matrix.argmax(0).tolist()) == [0, 1, 2, 3]
