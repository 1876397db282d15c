"""Minari datasets: written lossless, read either as video or, within a budget, as labels."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
from minari import MinariDataset
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from ..types import Episode, LabelledTransitions, Video

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
    return MinariDataset(Path(folder).resolve())


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


def read_video(folder: Path) -> Video:
    """The frames of a dataset, and nothing else of it."""
    dataset = MinariDataset(Path(folder).resolve())
    return Video(tuple(np.asarray(episode.observations) for episode in dataset.iterate_episodes()))


def read_labelled(folder: Path, budget: int, order: Sequence[int]) -> LabelledTransitions:
    """`budget` labelled transitions of whole episodes; the last may be cut.

    Args:
        order: which episodes to read, one after the other until there are enough.

    Raises:
        ValueError: they hold fewer transitions.
    """
    dataset = MinariDataset(Path(folder).resolve())
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
    for episode in MinariDataset(Path(folder).resolve()).iterate_episodes():
        infos = {k.removeprefix(_ENTITIES): v for k, v in episode.infos.items() if k.startswith(_ENTITIES)}
        if not infos:
            raise ValueError(f"{folder} has no true entities; the correspondence matrix needs them")
        found.append(infos)
    return found


def find_dataset(data: str | Path) -> Path | None:
    """The folder of the dataset at `data`, if there is one."""
    return Path(data) if is_dataset(Path(data)) else None


def episodes(folder: Path, key: str | None = None) -> Iterator[tuple[np.ndarray, list[str]]]:
    """Frames of one episode at a time."""
    for episode in MinariDataset(Path(folder).resolve()).iterate_episodes():
        yield np.asarray(episode.observations), []
