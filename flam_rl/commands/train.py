"""`flam-rl train`: from video to a world."""

from __future__ import annotations

import logging
import resource
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import gymnasium as gym
import numpy as np
import torch

from ..actions import ActionSpace
from ..core.checkpoint import check_replaceable, load_world, save_world
from ..core.info import Origin, WorldInfo, check_license
from ..core.registry import ModelName, kind_of
from ..core.world import World
from ..data import cache
from ..data.hold_out import Split, hold_out
from ..data.labels import find_labels
from ..data.minari import action_space, find_dataset, recorded_task
from ..data.reading import ReadingConfig, data_fingerprints, frame_size, read
from ..evaluation import correspondence
from ..evaluation.card import card_figures
from ..evaluation.encoded import encode
from ..evaluation.pictures import (
    masks_picture,
    matrix_picture,
    prediction_picture,
    reconstruction_picture,
)
from ..evaluation.report import report_lines, report_of
from ..evaluation.summary import summary
from ..evaluation.tracked import failures_of_frames
from ..evaluation.truth import truths_of
from ..grounding.adapter import fit_labels
from ..models.build import BuildConfig, Footage, build_world, check_build, settled
from ..results import made_by, write_results
from ..training.checkpoints import seconds_spent
from ..training.run import DeviceName, Log, pick_device, seed_everything
from ..types import Video, check_ranges
from .checks import check_out
from .endings import ended
from .evaluate import evaluate_world, write_pictures
from .labels import film_actions, label_budget
from .preview import choose_clips, frame_rate, preview
from .runs import Run, resolved
from .tasks import find_task, fitted, misfit

logger = logging.getLogger(__name__)

WORLD = "world"
"""Folder in a run's with the world that it makes."""
LATER = ("labels", "task", "episodes", "license")
"""Settings that concern only what is done with a trained world."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(BuildConfig):
    """Train tokenizer, world and, where there are labels, heads; ends with an evaluation.

    Example: flam-rl train --data data/multigrid --out runs/multigrid

    Example: flam-rl train --data my-videos --out runs/look --preview

    Example: flam-rl train --data my-videos --out runs/mine --labels 0 --factors 3

    An interrupted run goes on where it was when the same command is given again. A finished one is kept: with other --labels,
    --task, --episodes or --license its world is taken as it is, and labels are fitted to it anew.
    """

    model: ModelName | Literal["auto"] = "auto"
    """`auto` is FLAM on tiles (`flam`) or on tracked layers (`tracked`), whichever suits the video. The others are what
    these are compared with: rivals on tiles, and `joint` and `tracked-joint`, which have one latent action for all factors."""
    data: Path
    """A film, a folder of films or of folders of numbered pictures, or a Minari dataset (folder, root or name)."""
    out: Path
    """Run folder: OUT/world, OUT/results.json, TensorBoard logs in OUT/logs."""
    labels: int = 1000
    """Label budget: transitions whose action, reward and end are read, for what is fitted after world training; 0 for
    none. Of a data set, or of film.csv beside film.mp4: docs/labels.md."""
    task: str | None = None
    """Gymnasium id of the real task; for data that names one which is not flam_rl's own."""
    held_out: float = 0.1
    """Share of episodes, of a single one its last part, that is only evaluated on and started from; of 20,000 frames at most."""
    episodes: int = 200
    """Episodes of the random agent on the real task, for the reward rate."""
    device: DeviceName = "auto"
    deterministic: bool = False
    """Same seed, same weights on CUDA too; slower there."""
    files: ReadingConfig = field(default_factory=ReadingConfig)
    preview: bool = False
    """Only follow what moves, for a minute at most: OUT/film.gif and OUT/results.json say what factors would be found."""
    factors: int | None = None
    """Factors at most. By default FLAM on tracked layers has as many as the video needs, FLAM on tiles 4."""
    overwrite: bool = False
    """Start anew where OUT holds another run, or this one finished; its world stays until the new one is complete."""
    license: str = "unknown"
    """Licence of the world, for its card: an identifier of the Hub, as mit or cc-by-4.0."""

    def __post_init__(self) -> None:
        check_license(self.license)
        check_ranges(self, seed=(0, 2**31), labels=(0, 10**9), held_out=(0, 0.9), episodes=(1, 10**9))
        if self.factors is not None:
            check_ranges(self, factors=(1, 256))


def train(config: TrainConfig) -> None:
    """Run the command.

    Raises:
        ValueError: no video can be read, settings do not fit it, labels are damaged or tell nothing, or `out` cannot be written or
            holds another run.
    """
    if config.preview:
        if (config.out / WORLD).exists() and not config.overwrite:
            raise ValueError(
                f"{config.out} holds a world; give another --out for its preview, or --overwrite"
            )
        preview(config.data, config.out, config.files, config.factors, config.seed)
        return
    began = time.perf_counter()
    device = pick_device(config.device)
    check_out(config.out)
    check_replaceable(config.out / WORLD)
    dataset = find_dataset(config.data)
    needs_actions = config.model != "auto" and kind_of(config.model).needs_actions
    if dataset is None and needs_actions:
        raise ValueError(f"the model {config.model!r} is given true actions; films come without")
    labels = find_labels(config.data, config.out) if dataset is None and config.labels else {}
    actions = action_space(dataset) if dataset and config.labels else None
    task_id, task_kwargs = recorded_task(dataset) if dataset else ("", {})
    task = find_task(task_id, task_kwargs, config.task, f"the data set {config.data}")
    size = frame_size(config.data, config.files)
    if config.model != "auto":
        check_build(settled(config, None, config.factors)[0], size)
    task = _fitting(task, (*size, 3), actions, config)
    if labels:
        actions = film_actions(labels, task)
        logger.info("%d films have labels; their actions are %s", len(labels), actions)
    prints = data_fingerprints(config.data, config.out)
    run = Run(config.out, resolved(config), prints, WORLD, LATER, config.overwrite)
    if run.state() == "finished":
        print(
            f"{config.out} holds this run, finished; --overwrite trains it anew, other --labels are fitted to its world"
        )
        return
    with run.locked():
        reading = read(config.data, config.files, config.out, prints=prints)
        split = hold_out(reading.video, reading.entities(), config.seed, config.held_out)
        built, reason = settled(config, split.training, config.factors)
        logger.info("the model is %s: %s", built.model, reason)
        check_build(built, size, _entity_actions(built, split))
        labelled = None
        if actions is not None and not needs_actions:
            labelled = label_budget(reading, split, labels, actions, config.labels, config.data)
        info = WorldInfo(
            config.task or task_id,
            task_kwargs,
            fit=config.files.fit,
            training=resolved(config),
            license=config.license,
        )
        run.begin()
        kept = run.unfinished / WORLD
        spent = None
        if not kept.exists():
            earlier = seconds_spent(run.unfinished)
            world = _trained(config, built, split, info, device, run.unfinished)
            spent = earlier + time.perf_counter() - began
            origin = Origin.from_made_by(made_by(config.seed), split.training.frames, spent)
            world.info = replace(info, origin=origin)
            save_world(world, kept)
        # Read again, so that all that follows is the same whether or not the run was interrupted here.
        world = load_world(kept, device)
        assert world.info.origin is not None
        origin = world.info.origin
        spent, began = 60 * origin.minutes if spent is None else spent, time.perf_counter()
        world.labels = None
        if labelled is not None:
            world.labels, adapter = fit_labels(world, labelled, config.labels, seed=config.seed)
            print(adapter.summary)
        encoded = encode(world, split.held_out, truths_of(split.held_out_entities))
        results = evaluate_world(encoded, task, config.seed, config.episodes)
        results |= {
            "wall_s": spent + time.perf_counter() - began,
            "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "training_frames": split.training.frames,
            "parameters": sum(p.numel() for p in world.parameters()),
        }
        fps = frame_rate(reading, config.files)
        results["report"] = report_of(world, split.held_out, fps, run.unfinished, config.out)
        origin = replace(
            origin,
            command=made_by(config.seed)["command"],
            minutes=round(results["wall_s"] / 60, 1),
            figures=summary(results),
        )
        world.info = replace(info, metrics=card_figures(results), origin=origin)
        save_world(world, config.out / WORLD)
        write_results(config.out, results, config.seed)
        write_pictures(encoded, results, config.out)
        cache.remove(config.out)
        run.finish()
    print(summary(results))
    if results["report"] is not None:
        print(
            "\n".join([*report_lines(results["report"]), "film.gif shows the factors over held-out frames"])
        )
    ended(
        f"{config.out}/world in {results['wall_s'] / 60:.1f} minutes; gym.make('FLAM-v0', world='{config.out}/world')",
        *("flam-rl", "play", "--world", config.out),
    )


def _trained(
    config: TrainConfig, built: BuildConfig, split: Split, info: WorldInfo, device: torch.device, folder: Path
) -> World:
    """The world, from what an interrupted run left in `folder` on."""
    seed_everything(config.seed, config.deterministic)
    with Log(config.out / "logs") as log:

        def pictures(world: World, step: int) -> None:
            if step in {round(share * (config.world.steps - 1)) for share in (0.1, 0.25, 0.5, 1.0)}:
                _log_pictures(world, split.held_out, split.held_out_entities, log, step)

        footage = Footage(split.training, split.held_out, _entity_actions(built, split))
        for line in failures_of_frames(
            choose_clips(split.training.episodes, config.seed), built.tracked.tracker
        ):
            logger.warning("%s", line)
        try:
            return build_world(built, footage, info, device, log, pictures, folder)
        finally:  # imagination sums cumulatively: CUDA cannot do that so
            torch.use_deterministic_algorithms(False)


def _entity_actions(config: BuildConfig, split: Split) -> list[np.ndarray] | None:
    """True actions of the training episodes, for the one model that is given them."""
    if not kind_of(config.model).needs_actions or not split.training_entities:
        return None
    return [truth["action"] for truth in split.training_entities]


def _fitting(
    task: gym.Env | None, frame_shape: tuple[int, ...], actions: ActionSpace | None, config: TrainConfig
) -> gym.Env | None:
    """`task`, if the world can be evaluated on it; else None and a warning, or an error if the user named it."""
    if task is None:
        return None
    task = fitted(task, frame_shape, config.files.fit)
    reason = misfit(task, frame_shape)
    if reason is None and actions is not None and ActionSpace.from_gym(task.action_space) != actions:
        reason = f"its actions are {task.action_space}, those of the data {actions}"
    if reason and config.task:
        raise ValueError(f"--task {config.task} does not fit {config.data}: {reason}")
    if reason:
        logger.warning("the task of %s does not fit its frames: %s; going on without it", config.data, reason)
        return None
    return task


def _log_pictures(
    world: World, video: Video, entities: list[dict[str, np.ndarray]] | None, log: Log, step: int
) -> None:
    world.model.eval()
    encoded = encode(world, video, truths_of(entities))
    longest = max(range(len(encoded.frames)), key=lambda index: len(encoded.frames[index]))
    log.picture("world/reconstruction", reconstruction_picture(encoded, longest), step)
    log.picture("world/prediction", prediction_picture(encoded, longest), step)
    log.picture("world/masks", masks_picture(encoded, longest), step)
    found = correspondence.measure(encoded, encoded.truth, iterations=10)
    if found is not None:
        log.picture(
            "world/correspondence", matrix_picture(np.array(found.pop("matrix")), f"step {step}"), step
        )
        del found["floors"]
        for name, value in found.items():
            log.scalar(f"world/{name}", value, step)
    world.model.train()
