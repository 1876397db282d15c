"""Minari episodes are read one at a time: damage, memory, labels and actions."""

from __future__ import annotations

import shutil
import tracemalloc
from pathlib import Path

import gymnasium as gym
import h5py
import minari
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete
from minari_sets import FILMS, FORMATS, RGB, H, W, assert_films, broken, film, read

from flam_rl.actions import ActionSpace
from flam_rl.data.minari import (
    action_space,
    episodes,
    pieces,
    read_entities,
    read_labels,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(eval_env|env_spec).*:UserWarning"
)  # Minari wants an environment


def test_a_damaged_episode_is_left_out_and_said(record) -> None:
    folder = record(RGB, [*FILMS, FILMS[0]], infos=lambda rows: {"entities_heading": np.arange(rows)})
    shutil.rmtree(folder / "0")
    damaged = next((folder / "2").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-400])
    found = list(episodes(folder))
    assert_films([frames for frames, _ in found], [FILMS[0][:0], FILMS[1], FILMS[2][:0], FILMS[0]])
    assert "episode 0 of" in found[0][1][0]
    assert "episode 2 of" in found[2][1][0]
    assert found[1][1] == found[3][1] == []
    assert [len(entities.get("heading", [])) for entities in read_entities(folder)] == [0, 9, 0, 5]
    with pytest.raises(ValueError, match="episode 2 of"):
        list(read_labels(folder, [1, 2]))


@pytest.mark.learning
def test_episodes_are_read_once_and_one_at_a_time(record) -> None:
    films = [film(3000, seed) for seed in range(5)]
    folder = record(RGB, films)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    for index, (frames, _) in enumerate(episodes(folder)):
        assert np.array_equal(frames, films[index])
        assert tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before < 3 * films[0].nbytes
        shutil.rmtree(folder / str(index))  # gone before the next is asked for
    tracemalloc.stop()
    assert index == 4


@pytest.mark.learning
@pytest.mark.parametrize("data_format", FORMATS)
def test_memory_does_not_grow_with_the_episode(record, data_format: str) -> None:
    peaks = []
    for steps in (1000, 4000):
        films = [film(steps, 0), FILMS[1]]
        folder = record(RGB, films, f"test/{steps}-v0", data_format)
        found: list[list[np.ndarray]] = [[], []]
        held, peak = pa.total_allocated_bytes(), 0
        tracemalloc.start()
        for index, frames, warnings in pieces(folder):
            peak = max(peak, pa.total_allocated_bytes() - held + tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
            found[index].append(frames)
            assert warnings == []
        tracemalloc.stop()
        peaks.append(peak - sum(frames.nbytes for frames in found[0]))
        assert_films([np.concatenate(piece) for piece in found], films)
    assert peaks[1] < peaks[0] + 4e6  # the longer film has 14 MB more


def test_what_decodes_of_a_damaged_episode_is_kept(record) -> None:
    films = [film(4000, 0), FILMS[1]]
    folder = record(RGB, films)
    file = folder / "0" / "part-0.parquet"
    stored = bytearray(file.read_bytes())
    stored[len(stored) // 2 : len(stored) // 2 + 400] = bytes(400)
    file.write_bytes(stored)
    (kept, warnings), (frames, none) = episodes(folder)
    assert 0 < len(kept) < 4000
    assert np.array_equal(kept, films[0][: len(kept)])
    assert f"its first {len(kept)} frames are kept" in warnings[0]
    assert np.array_equal(frames, films[1])
    assert none == []


@pytest.mark.parametrize("data_format", ["parquet", "hdf5"])
def test_labels_and_entities_are_read_without_the_frames(record, data_format: str) -> None:
    infos = {"entities_position": np.arange(18).reshape(9, 2), "else": np.ones(9)}
    folder = record(RGB, [FILMS[1]], data_format=data_format, infos=lambda steps: infos)
    if data_format == "parquet":
        (file,) = folder.glob("**/*.parquet")
        group = pq.ParquetFile(file).metadata.row_group(0)
        (frames,) = (
            column
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema.startswith("observations")
        )
        stored = bytearray(file.read_bytes())
        at = frames.dictionary_page_offset or frames.data_page_offset
        stored[at : at + frames.total_compressed_size] = bytes(frames.total_compressed_size)
        file.write_bytes(stored)
    else:
        with h5py.File(folder / "main_data.hdf5", "a") as opened:
            del opened["episode_0/observations"]
    with pytest.raises(ValueError, match="cannot be read"):
        read(folder)
    assert next(read_labels(folder, [0]))[0].tolist() == list(range(8))
    (entities,) = read_entities(folder)
    assert list(entities) == ["position"]
    assert np.array_equal(entities["position"], infos["entities_position"])


def test_an_episode_without_frames_is_left_out_and_said(record) -> None:
    folder = record(RGB, FILMS, data_format="hdf5")
    with h5py.File(folder / "main_data.hdf5", "a") as opened:
        for episode in range(2):
            opened[f"episode_{episode}/observations"].resize(0, axis=0)
    found = list(episodes(folder))
    assert_films([frames for frames, _ in found], [FILMS[0][:0], FILMS[1][:0], FILMS[2]])
    assert "episode 1 of" in found[1][1][0]
    assert "has no frames" in found[1][1][0]


def test_damaged_hdf5_is_explained(record) -> None:
    folder = record(RGB, FILMS, data_format="hdf5")
    file = folder / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"no picture to learn from.*episode [0-2] of .* cannot be read"):
        read(folder)


@pytest.mark.parametrize("data_format", FORMATS)
def test_labels_are_read_as_recorded(record, data_format: str) -> None:
    films = [film(n) for n in (4, 6, 3)]
    floats = [np.float32(f / 255) for f in films]
    folder = record(Box(0, 1, (H, W, 3), np.float32), floats, data_format=data_format, actions=Discrete(9))
    assert action_space(folder) == ActionSpace.discrete(9)  # the last actions never occurred
    for (actions, rewards, terminations), n in zip(read_labels(folder, [1, 0]), (5, 3), strict=True):
        assert actions.tolist() == list(range(n))
        assert rewards.tolist() == [0, 0.5, 1, 1.5, 2][:n]
        assert terminations.tolist() == [False] * n


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "actions",
    [
        Box(-1, 1, (2,), np.float32),
        Box(-1, 1, (2, 3), np.float64),
        Box(-np.inf, 1, (1,), np.float32),
        MultiDiscrete([3, 2]),
        Discrete(3, start=-1),
    ],
    ids=str,
)
def test_actions_of_every_kind_are_read(record, actions: gym.Space, data_format: str) -> None:
    actions.seed(0)
    taken = [np.array([actions.sample() for _ in range(n - 1)]) for n in (5, 9, 3)]
    folder = record(RGB, FILMS, data_format=data_format, actions=actions, taken=taken)
    space = action_space(folder)
    assert space.space == actions or actions.dtype == np.float64
    for number, (given, rewards, _) in zip([2, 0, 1], read_labels(folder, [2, 0, 1]), strict=True):
        assert given.shape == (len(rewards), *actions.shape)
        assert given.dtype == (np.float32 if space.kind == "box" else np.int64)
        assert np.allclose(given, taken[number])


@pytest.mark.parametrize("actions", [Dict({"a": Discrete(2)}), MultiBinary(3), Discrete(70_000)], ids=str)
def test_actions_that_labels_cannot_name_are_refused(record, actions: gym.Space, minari_root: Path) -> None:
    storage = minari.dataset.minari_storage.MinariStorage
    minari_root.mkdir()
    storage.new(minari_root / "data", RGB, actions, data_format="parquet")
    broken(minari_root / "data", total_episodes=1)
    kind = str(actions).split("(")[0]
    said = (
        "allowed is 1 to 65536"
        if kind == "Discrete"
        else f"actions are {kind}.*allowed are Discrete, MultiDiscrete"
    )
    for call in (action_space, lambda folder: next(read_labels(folder, [0]))):
        with pytest.raises(ValueError, match=rf"{said}.*--labels 0 trains"):
            call(minari_root / "data")
