"""Minari datasets: written lossless, read either as video or, within a budget, as labels."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
from minari import MinariDataset
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from ..types import Episode, Json, LabelledTransitions, Video

_ENTITIES = "entities_"
"""Prefix of infos: Minari 0.5.4 does not read nested ones back."""


def write_dataset(folder: Path, task: gym.Env, episodes: Iterable[Episode]) -> MinariDataset:
    """Write `episodes` as they come to a Minari dataset in `folder`: parquet, no JPEG, moved in place whole.

    Raises:
        FileExistsError: `folder` exists and is not empty.
    """
    folder = Path(folder).resolve()  # Minari fails on relative paths
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give --out another folder or delete it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        building = Path(scratch) / "data"
        storage = MinariStorage.new(
            building,
            observation_space=task.observation_space,
            action_space=task.action_space,
            env_spec=task.spec,
            data_format="parquet",
            jpeg_encoding=False,
        )
        storage.update_metadata(
            {"dataset_id": f"flam_rl/{folder.name}-v0", "minari_version": minari.__version__}
        )
        storage.update_episodes(_buffer(index, episode) for index, episode in enumerate(episodes))
        if folder.exists():
            folder.rmdir()
        os.replace(building, folder)
    return MinariDataset(folder)


def _buffer(index: int, episode: Episode) -> EpisodeBuffer:
    steps = len(episode.actions)
    truncations = np.zeros(steps, bool)
    truncations[-1] = not episode.terminations[-1]
    return EpisodeBuffer(
        id=index,
        seed=episode.seed,
        observations=episode.frames,
        actions=episode.actions,
        rewards=episode.rewards,
        terminations=episode.terminations,
        truncations=truncations,
        infos={_ENTITIES + key: value for key, value in episode.entities.items()} or None,
    )


def is_dataset(folder: Path) -> bool:
    """Whether `folder` holds a Minari dataset."""
    return (Path(folder) / "metadata.json").is_file()


def open_dataset(folder: Path) -> MinariDataset:
    """The dataset in `folder`; nothing that it names is imported.

    Raises:
        ValueError: its metadata is damaged, or lacks a space: Minari would then make the env that it names.
    """
    metadata = _metadata(folder)
    for key in ("observation_space", "action_space"):
        if not isinstance(metadata.get(key), str):
            raise ValueError(
                f"{Path(folder) / 'metadata.json'}: {key} is {metadata.get(key)!r}; needed is a space, as Minari writes "
                "it: without it the env would be made, which may be anyone's code"
            )
    return MinariDataset(Path(folder).resolve())  # Minari fails on relative paths


def action_count(folder: Path) -> int:
    """How many real actions there are, seen in the data or not.

    Raises:
        ValueError: actions are not integers from 0.
    """
    space = open_dataset(folder).spec.action_space
    if not isinstance(space, gym.spaces.Discrete) or space.start != 0:
        raise ValueError(f"actions of {folder} are {space}; allowed is Discrete from 0")
    return int(space.n)


def recorded_task(folder: Path) -> tuple[str, Json]:
    """Gymnasium id and arguments of the task that a dataset says it was recorded on; empty if it does not.

    Raises:
        ValueError: its metadata is damaged.
    """
    try:
        spec = json.loads(_metadata(folder).get("env_spec") or "{}")
        task, kwargs = spec.get("id", ""), spec.get("kwargs", {})
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(f"{Path(folder) / 'metadata.json'}: env_spec is damaged ({error})") from error
    if not isinstance(task, str) or not isinstance(kwargs, dict):
        raise ValueError(f"{Path(folder) / 'metadata.json'}: env_spec names {task!r} with {kwargs!r}")
    return task, {key: value for key, value in kwargs.items() if key != "render_mode"}


def _metadata(folder: Path) -> Json:
    path = Path(folder) / "metadata.json"
    try:
        found = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: damaged, no JSON ({error})") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path}: found a {type(found).__name__}; allowed is an object")
    return found


def read_video(folder: Path) -> Video:
    """The frames of a dataset, and nothing else of it."""
    dataset = open_dataset(folder)
    return Video(tuple(np.asarray(episode.observations) for episode in dataset.iterate_episodes()))


def read_labelled(folder: Path, budget: int, order: Sequence[int]) -> LabelledTransitions:
    """`budget` labelled transitions of whole episodes; the last may be cut.

    Args:
        order: which episodes to read, one after the other until there are enough.

    Raises:
        ValueError: they hold fewer transitions.
    """
    dataset = open_dataset(folder)
    episodes = (
        Episode(
            np.asarray(e.observations),
            np.asarray(e.actions),
            np.asarray(e.rewards, np.float32),
            e.terminations,
            {},
            -1,
        )
        for index in order
        for e in dataset.iterate_episodes([int(index)])
    )
    return LabelledTransitions.of(episodes, budget)


def read_entities(folder: Path) -> list[dict[str, np.ndarray]]:
    """For evaluation only: the true actions, positions and directions of every entity, an episode each.

    Raises:
        ValueError: an episode has none.
    """
    found = []
    for episode in open_dataset(folder).iterate_episodes():
        infos = {k.removeprefix(_ENTITIES): v for k, v in episode.infos.items() if k.startswith(_ENTITIES)}
        if not infos:
            raise ValueError(f"{folder} has no true entities; the correspondence matrix needs them")
        found.append(infos)
    return found
