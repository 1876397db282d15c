"""Video in, and labels only through their own type."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

from flam_rl.actions import ActionSpace
from flam_rl.core.checkpoint import load_world
from flam_rl.data.minari import action_space, read_entities, read_labels
from flam_rl.data.minari_writing import write_dataset
from flam_rl.data.reading import read
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.models.tiles.clips import Clips, Codes, tokenize
from flam_rl.types import LabelledTransitions, Video


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, task: gym.Env, episodes) -> Path:
    folder = tmp_path_factory.mktemp("data") / "multigrid"
    write_dataset(folder, task, episodes[:8])
    return folder


def test_minari_keeps_every_pixel(dataset: Path, episodes) -> None:
    video = read(dataset).video
    for stored, recorded in zip(video.episodes, episodes, strict=False):
        assert np.array_equal(stored, recorded.frames)
    storage = minari.MinariDataset(dataset).storage
    assert not storage.jpeg_encoding
    assert storage.metadata["dataset_size"] == pytest.approx(storage.get_size(), abs=0.11)


def test_minari_keeps_labels_and_entities(dataset: Path, episodes) -> None:
    order = [5, 2, 0]
    for number, (actions, rewards, ends) in zip(order, read_labels(dataset, order), strict=True):
        assert np.array_equal(actions, episodes[number].actions)
        assert np.array_equal(rewards, episodes[number].rewards)
        assert np.array_equal(ends, episodes[number].terminations)
    for stored, recorded in zip(read_entities(dataset), episodes, strict=False):
        assert np.array_equal(stored["position"], recorded.entities["position"])


def test_a_dataset_is_never_overwritten(dataset: Path, task: gym.Env) -> None:
    with pytest.raises(FileExistsError, match="is not empty"):
        write_dataset(dataset, task, [])


def test_label_budget_is_exact(episodes) -> None:
    moves = ActionSpace.discrete(4)
    labelled = LabelledTransitions.from_episodes(episodes, 123, moves)
    assert len(labelled) == sum(map(len, labelled.actions)) == 123
    assert np.array_equal(labelled.episodes[0], episodes[0].frames)
    every_third = [np.arange(len(e.actions))[:, None] % 3 == [0, 0, 1] for e in episodes]
    some = LabelledTransitions.from_episodes(episodes, 123, moves, every_third)
    assert len(some) == 123 < sum(map(len, some.actions))
    with pytest.raises(ValueError, match="label budget is 99999"):
        LabelledTransitions.from_episodes(episodes, 99999, moves)


def test_labels_know_all_actions_of_their_task(tmp_path: Path, task: gym.Env) -> None:
    experts = list(record_episodes(task, 60, seed=0, policy="expert"))  # who never stay, the last action
    write_dataset(tmp_path / "experts", task, experts)
    moves = action_space(tmp_path / "experts")
    labelled = LabelledTransitions.from_episodes(experts, 50, moves)
    assert max(actions.max() for actions in labelled.actions) < 3
    assert labelled.action_space == (labelled + labelled).action_space == ActionSpace.discrete(4)
    with pytest.raises(
        ValueError, match=r"labelled actions hold 2; allowed are those of the task, Discrete\(2\)"
    ):
        LabelledTransitions.from_episodes(experts, 50, ActionSpace.discrete(2))
    continuous = dataclasses.replace(experts[0], actions=np.full(len(experts[0].actions), 0.5))
    with pytest.raises(ValueError, match=r"labelled actions hold 0.5; allowed are those of the task"):
        LabelledTransitions.from_episodes([continuous], 1, moves)
    with pytest.raises(ValueError, match=r"Discrete\(4\) and of one with Discrete\(5\) do not add up"):
        labelled + dataclasses.replace(labelled, action_space=ActionSpace.discrete(5))


def test_video_has_no_room_for_actions(video: Video) -> None:
    assert [name for name in vars(video)] == ["episodes"]
    with pytest.raises(ValueError, match="uint8 frames"):
        Video((np.zeros((2, 8, 8, 3), np.float32),))


def test_clips_are_successive_frames_of_one_episode() -> None:
    codes = Codes(torch.tensor([*range(10), *range(100, 104)], dtype=torch.uint8)[:, None], (10, 4))
    clips = Clips(codes, seed=0)
    drawn = clips.sample(200, 4)[..., 0]
    assert (drawn.diff(dim=1) == 1).all()
    assert set(drawn[:, 0].tolist()) == {*range(7), 100}
    assert torch.equal(Clips(codes, seed=1).sample(5, 2), Clips(codes, seed=1).sample(5, 2))
    with pytest.raises(ValueError, match="the longest episode has 10"):
        clips.sample(1, 11)


def test_tokenized_video_is_the_same_in_memory_and_mapped_from_a_file(tmp_path: Path, video: Video) -> None:
    few, world = Video(video.episodes[:3]), load_world("multigrid")
    held, mapped = (
        tokenize(world.model.tokenizer, few),
        tokenize(world.model.tokenizer, few, tmp_path / "codes.npy", batch=7),
    )
    assert held.frames_FN.dtype == mapped.frames_FN.dtype == torch.uint8
    assert torch.equal(held.frames_FN, mapped.frames_FN)
    assert (tmp_path / "codes.npy").stat().st_size < 64 * few.frames + 200
    for codes, frames in zip(mapped.episodes, few.episodes, strict=True):
        assert torch.equal(codes.long(), world.model.encode(torch.as_tensor(frames)))
