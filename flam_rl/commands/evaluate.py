"""`flam-rl evaluate`: how well a world predicts, factors and imagines."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import imageio.v3 as imageio
import numpy as np

from ..core.checkpoint import load_world
from ..core.heads import DenseHead
from ..core.world import World
from ..data.reading import ReadingConfig, read
from ..envs.decoded_env import DecodedEnv, DecodedVectorEnv
from ..envs.flam_vector_env import FLAMVectorEnv
from ..envs.tasks.record import record_episodes
from ..evaluation import correspondence
from ..evaluation.card import compare, comparison_text
from ..evaluation.encoded import Encoded, encode, left_out
from ..evaluation.measure import measure_world
from ..evaluation.perceptual import FVD, LPIPS, lacking
from ..evaluation.pictures import matrix_picture, prediction_picture
from ..evaluation.policies import several
from ..evaluation.summary import summary
from ..evaluation.truth import truths_of
from ..evaluation.validity import random_reward_rate, random_reward_rate_batched
from ..results import write_results
from ..training.run import DeviceName, pick_device
from ..types import Json, Video, check_ranges
from .checks import check_out
from .collect import with_bar
from .endings import ended
from .tasks import find_task, fitted, misfit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure a world on held-out or fresh video and write OUT/results.json.

    Example: flam-rl evaluate --world multigrid --seed 1 --out runs/evaluate
    """

    out: Path
    """Folder for results.json and pictures."""
    world: str = "multigrid"
    """A shipped world's name, a folder, a zip, or hf://user/name, also with @revision."""
    data: Path | None = None
    """Film, folder of video or Minari dataset to measure on; without it, video is made fresh on the world's own task."""
    task: str | None = None
    """Gymnasium id of the real task; for a world whose own is not one of flam_rl's."""
    seed: int = 1
    """Seed of the fresh video and of imagination."""
    steps: int = 12_000
    """Transitions of fresh video."""
    episodes: int = 200
    """Episodes of the random agent on the real task, for the reward rate."""
    device: DeviceName = "auto"
    lpips_weights: Path | None = None
    """AlexNet's weights, torchvision's alexnet-owt-7be5be79.pth, for LPIPS."""
    fvd_weights: Path | None = None
    """I3D as TorchScript, StyleGAN-V's i3d_torchscript.pt, for FVD; loading it runs its code, so trust its source."""

    def __post_init__(self) -> None:
        check_ranges(self, seed=(0, 2**31), steps=(1, 10**12), episodes=(1, 10**9))


def evaluate(config: EvaluateConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such world, its task or the data do not fit it, or `out` cannot be written.
    """
    check_out(config.out)
    world = load_world(config.world, pick_device(config.device))
    task = _find_task(config, world)
    lpips = LPIPS(config.lpips_weights).to(world.device) if config.lpips_weights else None
    fvd = FVD(config.fvd_weights) if config.fvd_weights else None
    if config.data is not None:
        height, width = world.frame_size
        reading = read(config.data, ReadingConfig(height=height, width=width, fit=world.info.fit))
        video, entities = reading.video, reading.entities()
    else:
        assert task is not None
        recorded = list(with_bar(record_episodes(task, config.steps, config.seed), config.steps))
        video = Video(tuple(episode.frames for episode in recorded))
        entities = [episode.entities for episode in recorded]
    encoded = encode(world, video, truths_of(entities))
    results = evaluate_world(encoded, task, config.seed, config.episodes, lpips, fvd)
    results["card"] = compare(results, world.info.metrics)
    path = write_results(config.out, results, config.seed)
    write_pictures(encoded, results, config.out)
    print(summary(results))
    print(comparison_text(results["card"]))
    if missing := lacking(lpips is not None, fvd is not None):
        print(missing)
    ended(f"{path} and pictures beside it", *_following(config, world))


def _following(config: EvaluateConfig, world: World) -> tuple[str, ...]:
    if world.labels is None:
        return "flam-rl", "play", "--world", config.world
    return "flam-rl", "agent", "--world", config.world, "--out", "runs/agent"


def _find_task(config: EvaluateConfig, world: World) -> gym.Env | None:
    """The task, which must be there and fit the world where its video is all that there is to measure on."""
    whose = f"the world {config.world}"
    try:
        task = find_task(world.info.task, world.info.task_kwargs, config.task, whose, config.data is None)
    except ValueError as error:
        advice = "; or give --data to measure on" if config.data is None else ""
        raise ValueError(f"{error}{advice}") from error
    if task is None:
        return None
    task = fitted(task, (*world.frame_size, 3), world.info.fit)
    reason = misfit(task, (*world.frame_size, 3))
    if reason is None and world.labels is not None:
        DecodedEnv(task, world)  # says what does not fit
    if reason and config.data is None:
        raise ValueError(f"the task of {whose} does not fit it: {reason}")
    if reason:
        logger.warning("the task of %s does not fit it: %s; going on without it", whose, reason)
        return None
    return task


def evaluate_world(
    encoded: Encoded,
    task: gym.Env | None,
    seed: int,
    episodes: int = 200,
    lpips: LPIPS | None = None,
    fvd: FVD | None = None,
) -> Json:
    """What `measure_world` says, beside it what probes find without latent actions, and how often a random agent is rewarded.

    Args:
        episodes: of the random agent on the real task.
    """
    results = measure_world(encoded, task and task.unwrapped, seed, lpips=lpips, fvd=fvd)
    results["reward_rate"] = None
    if results["dci"]:
        alone = correspondence.measure(encoded, encoded.truth, latent=False)
        assert alone is not None
        results["dci"]["floors"]["factors_alone"] = {key: alone[key] for key in alone["floors"]["chance"]}
    labels = encoded.world.labels
    if labels is not None and isinstance(labels.reward, DenseHead):
        left_out("reward_rate", "rewards are dense, so every agent is rewarded")
    elif task is not None and labels is not None:
        results["reward_rate"] = evaluate_reward_rate(encoded.world, task, seed, episodes)
    return results


def evaluate_reward_rate(world: World, task: gym.Env, seed: int, episodes: int) -> dict[str, float]:
    """A uniformly random agent of the latent action space, in imagination and on the real task."""
    return {
        "imagined": random_reward_rate_batched(FLAMVectorEnv(1024, world, "agent", compile=False), seed),
        "real": random_reward_rate(DecodedVectorEnv(several(task), world), seed, episodes),
    }


def write_pictures(encoded: Encoded, results: Json, out: Path) -> None:
    """prediction.png, and correspondence.png when it was measured."""
    longest = max(range(min(200, len(encoded.frames))), key=lambda index: len(encoded.frames[index]))
    imageio.imwrite(out / "prediction.png", prediction_picture(encoded, longest))
    if results["correspondence"]:
        title = f"disentanglement {results['dci']['disentanglement']:.2f}"
        imageio.imwrite(
            out / "correspondence.png", matrix_picture(np.array(results["correspondence"]), title)
        )
