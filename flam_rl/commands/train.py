"""`flam-rl train`: from video to a world."""

from __future__ import annotations

import dataclasses
import json
import logging
import resource
import time
from dataclasses import dataclass, field
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch

from ..agents.adapter import fit_labels
from ..checkpoint import check_replaceable, save_world
from ..data.clips import tokenize
from ..data.minari import action_count, is_dataset, read_labelled, recorded_task
from ..data.sources import read_source
from ..data.video import VideoFilesConfig
from ..evaluation.card import card_figures
from ..evaluation.correspondence import evaluate_correspondence
from ..evaluation.pictures import (
    mask_picture,
    matrix_picture,
    prediction_picture,
    reconstruction_picture,
)
from ..models.baselines import MODELS
from ..models.world import World, WorldInfo
from ..results import made_by, read_json, source_text, write_json, write_results
from ..training.build import BuildConfig, build_world, check_told
from ..training.run import DeviceName, Log, pick_device, seed_everything
from ..training.tokenizer import train_tokenizer
from ..types import Json, Video, check_ranges
from .checks import check_out, check_settings
from .evaluate import evaluate_world, summary, write_pictures
from .tasks import find_task, misfit

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class TrainConfig(BuildConfig):
    """Train tokenizer, world and, where there are labels, heads; ends with an evaluation.

    Example: flam-rl train --data data/multigrid --out runs/multigrid

    Example: flam-rl train --data my-videos --out runs/mine --labels 0 --flam.factorizer.factors 3

    An interrupted run goes on where it was when the same command is given again.
    """

    data: Path
    """Minari dataset, or a folder of video files (mp4, webm, gif, or folders of png)."""
    out: Path
    """Run folder: OUT/world, OUT/results.json, TensorBoard logs in OUT/logs."""
    labels: int = 1000
    """Label budget: transitions whose action and reward are read, after world training; 0 for none."""
    task: str | None = None
    """Gymnasium id of the real task; for data that names one which is not flam_rl's own."""
    held_out: float = 0.1
    """Share of episodes that are only evaluated on and started from."""
    episodes: int = 200
    """Episodes of the random agent on the real task, for the reward rate."""
    device: DeviceName = "auto"
    deterministic: bool = False
    """Same seed, same weights on CUDA too; slower there."""
    files: VideoFilesConfig = field(default_factory=VideoFilesConfig)

    def __post_init__(self) -> None:
        check_ranges(self, seed=(0, 2**31), labels=(0, 10**9), held_out=(0, 0.9), episodes=(1, 10**9))


def train(config: TrainConfig) -> None:
    """Run the command."""
    began = time.perf_counter()
    device = pick_device(config.device)
    check_out(config.out)
    check_replaceable(config.out / "world")
    dataset = is_dataset(config.data)
    actions = action_count(config.data) if dataset and config.labels else None
    task_id, task_kwargs = recorded_task(config.data) if dataset else ("", {})
    task = find_task(task_id, task_kwargs, config.task, f"the data set {config.data}")
    if not dataset:
        check_settings(config, (config.files.size, config.files.size))
    video, entities = read_source(config.data, config.files)
    frame_shape = video.episodes[0].shape[1:]
    check_settings(config, frame_shape[:2])
    task = _fitting(task, frame_shape, actions, config)
    order = np.random.default_rng(config.seed).permutation(len(video.episodes))
    training, held_out, held_out_entities = _split(video, entities, order, config.held_out)
    for_labels = order[len(held_out.episodes) :]  # never of held-out episodes
    transitions = sum(len(video.episodes[i]) - 1 for i in for_labels)
    if dataset and transitions < config.labels:
        raise ValueError(
            f"label budget is {config.labels}, but the training episodes of {config.data} hold only "
            f"{transitions} transitions; give fewer --labels or record more"
        )
    told = [entities[i]["action"] for i in for_labels] if entities and MODELS[config.model].TOLD else None
    check_told(config, told)
    del video
    _save_config(config)
    seed_everything(config.seed, config.deterministic)
    with Log(config.out / "logs") as log:
        tokenizer = train_tokenizer(
            training, config.tokenizer, config.tokenizer_training, config.seed, device, log
        )
        codes = tokenize(tokenizer, training, config.out / "codes.npy")
        training_frames = training.frames
        del training  # 12 kB a frame, against 64 bytes of codes
        info = WorldInfo(
            config.task or task_id,
            task_kwargs,
            training=json.loads(json.dumps(dataclasses.asdict(config), default=str)),
        )

        def pictures(world: World, step: int) -> None:
            if step in {round(share * (config.world.steps - 1)) for share in (0.1, 0.25, 0.5, 1.0)}:
                _log_pictures(world, held_out, held_out_entities, log, step)

        world = build_world(
            config,
            tokenizer,
            codes,
            tokenize(tokenizer, held_out),
            info,
            log,
            pictures,
            config.out / "checkpoint.pt",
            told,
        )
    if config.deterministic:
        torch.use_deterministic_algorithms(False)  # imagination sums cumulatively: CUDA cannot do that so
    save_world(world, config.out / "world", "Trained; labels and evaluation were not finished.\n")
    if dataset and config.labels and not world.model.TOLD:
        labelled = read_labelled(config.data, config.labels, for_labels.tolist())
        world.labels, adapter = fit_labels(world, labelled, config.labels, actions, config.seed)
        print(
            f"the agent's factor is {adapter.agent_factor}; held-out accuracy of its adapter {max(adapter.accuracy):.3f}"
        )
    save_world(world, config.out / "world", "Trained; its evaluation was not finished.\n")
    results = evaluate_world(world, held_out, held_out_entities, task, config.seed, config.episodes)
    results |= {
        "wall_s": time.perf_counter() - began,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "training_frames": training_frames,
        "parameters": sum(p.numel() for p in world.parameters()),
    }
    world.info = dataclasses.replace(info, metrics=card_figures(results))
    save_world(world, config.out / "world", model_card(world, results, config))
    write_results(config.out, results, config.seed)
    write_pictures(world, held_out, held_out_entities, results, config.out)
    for scratch in ("checkpoint.pt", "codes.npy"):
        (config.out / scratch).unlink(missing_ok=True)
    print(summary(results))
    print(
        f"wrote {config.out}/world in {results['wall_s'] / 60:.1f} minutes; gym.make('FLAM-v0', world='{config.out}/world')"
    )


def _split(
    video: Video, entities: list[dict[str, np.ndarray]] | None, order: np.ndarray, share: float
) -> tuple[Video, Video, list[dict[str, np.ndarray]] | None]:
    if len(order) < 2:
        raise ValueError("training needs 2 episodes or more: one is held out")
    cut = max(1, round(share * len(order)))
    training = Video(tuple(video.episodes[i] for i in order[cut:]))
    held_out = Video(tuple(video.episodes[i] for i in order[:cut]))
    return training, held_out, entities and [entities[i] for i in order[:cut]]


def _fitting(
    task: gym.Env | None, frame_shape: tuple[int, ...], actions: int | None, config: TrainConfig
) -> gym.Env | None:
    """`task`, if the world can be evaluated on it; else None and a warning, or an error if the user named it."""
    if task is None:
        return None
    reason = misfit(task, frame_shape)
    if reason is None and actions is not None and task.action_space != gym.spaces.Discrete(actions):
        reason = f"its actions are {task.action_space}, those of the data Discrete({actions})"
    if reason and config.task:
        raise ValueError(f"--task {config.task} does not fit {config.data}: {reason}")
    if reason:
        logger.warning("the task of %s does not fit its frames: %s; going on without it", config.data, reason)
        return None
    return task


def _save_config(config: TrainConfig) -> None:
    resolved = json.loads(json.dumps(dataclasses.asdict(config), default=str))
    path = config.out / "config.json"
    if path.exists() and (config.out / "checkpoint.pt").exists() and read_json(path) != resolved:
        raise ValueError(
            f"{config.out} holds an interrupted run with other settings; delete it or give another --out"
        )
    write_json(path, resolved)


def _log_pictures(
    world: World, video: Video, entities: list[dict[str, np.ndarray]] | None, log: Log, step: int
) -> None:
    world.model.eval()
    longest = max(range(len(video.episodes)), key=lambda index: len(video.episodes[index]))
    episode, truth = video.episodes[longest], entities[longest] if entities else None
    log.picture("world/reconstruction", reconstruction_picture(world, episode[:6]), step)
    log.picture("world/prediction", prediction_picture(world, episode, truth), step)
    with torch.no_grad():
        factors = world.factorize(world.encode(torch.as_tensor(episode[:8], device=world.device))[None])[0]
    log.picture("world/masks", np.concatenate(list(mask_picture(world, factors)), 1), step)
    if entities and len(video.episodes) >= 4:
        found = evaluate_correspondence(world, video, entities, iterations=10)
        log.picture("world/correspondence", matrix_picture(found.matrix, f"step {step}"), step)
        for name, value in found.scores().items():
            log.scalar(f"world/{name}", value, step)
    world.model.train()


def model_card(world: World, results: Json, config: TrainConfig) -> str:
    """The README.md of a world folder."""
    budget = world.labels.budget if world.labels else 0
    made = made_by(config.seed)
    return f"""# A FLAM world

| | |
| --- | --- |
| task | {world.info.task or "none: video files"} {world.info.task_kwargs or ""} |
| video | {results["training_frames"]} action-free frames of {world.tokenizer.frame_size[0]}x{world.tokenizer.frame_size[1]} |
| label budget | {budget} transitions, for labels.safetensors only |
| factors | {world.factors} of {world.factor_dim}, latent actions of {world.latent_action_dim} |
| parameters | {results["parameters"]} |
| seed | {config.seed} |
| made by | {source_text(made)} |
| machine | {made["gpu"] or made["cpu"]}, {made["instruction_set"]}, {made["threads"]} threads, torch {made["torch"]}, Python {made["python"]} |
| training | {results["wall_s"] / 60:.1f} minutes on {config.device}, evaluation included |

Measured on held-out episodes at the end of training:

```
{summary(results)}
```

`model.safetensors` came from video alone, `labels.safetensors` from the label budget, `starts.safetensors` holds
the codes of held-out clips that imagination starts from. `config.json` holds the settings to rebuild it with.
"""
