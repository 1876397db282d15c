"""Minari datasets as they are recorded: lossless, an episode after the other, in place when all are there."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import minari
import numpy as np
from gymnasium.envs.registration import EnvSpec
from minari import MinariDataset
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from ..files import sole_use, written_whole
from ..progress import progress
from ..results import read_json, write_json
from ..types import Episode, Json
from .minari_storage import ENTITIES, METADATA


class Resumable(Protocol):
    """Episodes that can go on after any of them.

    Attributes:
        steps: transitions to record. recorded: those that are.
    """

    steps: int
    recorded: int

    def __iter__(self) -> Iterator[Episode]:
        """The episodes that are still to come."""

    def state_dict(self) -> Json:
        """What decides them, as JSON."""

    def load_state_dict(self, state: Json) -> None:
        """Go on from there."""


def write_dataset(folder: Path, task: gym.Env, episodes: Iterable[Episode]) -> MinariDataset:
    """Write `episodes` as they come to a Minari dataset in `folder`: parquet, no JPEG, moved in place whole.

    Raises:
        FileExistsError: `folder` exists and is not empty.
    """
    folder = _free(folder)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as scratch:
        building = Path(scratch) / "data"
        storage = _new(building, task, folder.name)
        _fill(storage, (_buffer(index, episode) for index, episode in enumerate(episodes)))
        _put(building, folder)
    return MinariDataset(folder)


def record_dataset(folder: Path, task: gym.Env, recording: Resumable, settings: Json) -> MinariDataset:
    """As `write_dataset`; whatever interrupts it, what was recorded stays in `.NAME-unfinished` beside `folder`, and a recording with
    the same settings goes on with the next episode.

    Args:
        settings: of the recording.

    Raises:
        FileExistsError: `folder` exists and is not empty.
        ValueError: there is an interrupted recording with other settings, or it is damaged.
    """
    folder = _free(folder)
    unfinished = folder.with_name(f".{folder.name}-unfinished")
    building, record = unfinished / "data", unfinished / "progress.json"
    with sole_use(unfinished):
        try:
            if record.exists():
                found = read_json(record)
                other = sorted(name for name in settings if found["settings"].get(name) != settings[name])
                if other:
                    raise ValueError(
                        f"{unfinished} holds an interrupted recording with other settings ({', '.join(other)}); delete it, "
                        "or give another --out"
                    )
                count, metadata = found["episodes"], found["metadata"]
                recording.load_state_dict(found["recording"])
                storage = _again(building, metadata, count, recording.recorded)
            else:
                shutil.rmtree(building, ignore_errors=True)
                storage = _new(building, task, folder.name)
                count, metadata = 0, (building / METADATA).read_text()

            def buffers() -> Iterator[EpisodeBuffer]:
                with progress(
                    total=recording.steps, initial=recording.recorded, desc="recording", unit="step"
                ) as bar:
                    for index, episode in enumerate(recording, count):
                        yield _buffer(index, episode)
                        # Asked for the next one: this one is on the disk.
                        state = {"settings": settings, "metadata": metadata, "episodes": index + 1}
                        write_json(record, state | {"recording": recording.state_dict()})
                        bar.update(len(episode.actions))

            _fill(storage, buffers())
            _put(building, folder)
            record.unlink()
        finally:
            if not record.exists():  # nothing was recorded, or all
                shutil.rmtree(unfinished, ignore_errors=True)
    return MinariDataset(folder)


def _free(folder: Path) -> Path:
    folder = Path(folder).resolve()  # Minari fails on relative paths
    if folder.exists() and any(folder.iterdir()):
        raise FileExistsError(f"{folder} is not empty; give --out another folder or delete it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def _new(building: Path, task: gym.Env, name: str) -> MinariStorage:
    storage = MinariStorage.new(
        building,
        observation_space=task.observation_space,
        action_space=task.action_space,
        env_spec=_spec(task),
        data_format="parquet",
        jpeg_encoding=False,
    )
    storage.update_metadata({"dataset_id": f"flam_rl/{name}-v0", "minari_version": minari.__version__})
    return storage


def _again(building: Path, metadata: str, episodes: int, steps: int) -> MinariStorage:
    """The storage after so many episodes; what was being written is deleted."""
    with written_whole(building / METADATA) as scratch:
        scratch.write_text(metadata)
    for path in building.iterdir():
        if path.name.isdecimal() and int(path.name) >= episodes:
            shutil.rmtree(path)
    storage = MinariStorage.read(building)
    storage.update_metadata({"total_episodes": episodes, "total_steps": steps})
    return storage


def _fill(storage: MinariStorage, buffers: Iterable[EpisodeBuffer]) -> None:
    storage.get_size = lambda: 0.0  # it looks at all files after each episode
    storage.update_episodes(buffers)
    del storage.get_size
    storage.update_metadata({"dataset_size": storage.get_size()})


def _put(building: Path, folder: Path) -> None:
    if folder.exists():
        folder.rmdir()
    os.replace(building, folder)


def _spec(task: gym.Env) -> EnvSpec | None:
    """What made `task`, in a form that JSON holds: a class that was registered itself by its name."""
    spec = task.spec
    if spec is None or not callable(spec.entry_point):
        return spec
    made_by: Any = spec.entry_point
    return replace(spec, entry_point=f"{made_by.__module__}:{made_by.__qualname__}")


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
        infos={ENTITIES + key: value for key, value in episode.entities.items()} or None,
    )
