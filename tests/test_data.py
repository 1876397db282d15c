"""Video in, and labels only through their own type."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import minari
import numpy as np
import pytest
import torch

from flam_rl.core.checkpoint import load_world
from flam_rl.data.minari import read_entities, read_labelled, read_video, write_dataset
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.models.tiles.clips import Clips, Codes, tokenize
from flam_rl.types import LabelledTransitions, Video


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory, task: gym.Env, episodes) -> Path:
    folder = tmp_path_factory.mktemp("data") / "multigrid"
    write_dataset(folder, task, episodes[:8])
    return folder


def test_minari_keeps_every_pixel(dataset: Path, episodes) -> None:
    video = read_video(dataset)
    for stored, recorded in zip(video.episodes, episodes, strict=False):
        assert np.array_equal(stored, recorded.frames)
    storage = minari.MinariDataset(dataset).storage
    assert not storage.jpeg_encoding
    assert storage.metadata["dataset_size"] == pytest.approx(storage.get_size(), abs=0.11)


def test_minari_keeps_labels_and_entities(dataset: Path, episodes) -> None:
    budget = sum(len(e.actions) for e in episodes[:8])
    labelled = read_labelled(dataset, budget, range(8))
    assert len(labelled) == budget
    assert [len(actions) for actions in labelled.actions] == [len(e.actions) for e in episodes[:8]]
    chosen = read_labelled(dataset, len(episodes[5].actions) + 1, [5, 2])
    assert np.array_equal(chosen.episodes[0], episodes[5].frames)
    assert [len(actions) for actions in chosen.actions] == [len(episodes[5].actions), 1]
    for stored, recorded in zip(read_entities(dataset), episodes, strict=False):
        assert np.array_equal(stored["position"], recorded.entities["position"])


def test_a_dataset_is_never_overwritten(dataset: Path, task: gym.Env) -> None:
    with pytest.raises(FileExistsError, match="is not empty"):
        write_dataset(dataset, task, [])


def test_label_budget_is_exact(episodes) -> None:
    assert len(LabelledTransitions.of(episodes, 123, 4)) == 123
    with pytest.raises(ValueError, match="label budget is 99999"):
        LabelledTransitions.of(episodes, 99999, 4)


def test_labels_know_all_actions_of_their_task(tmp_path: Path, task: gym.Env) -> None:
    experts = list(record_episodes(task, 60, seed=0, policy="expert"))  # who never stay, the last action
    write_dataset(tmp_path / "experts", task, experts)
    labelled = read_labelled(tmp_path / "experts", 50, range(len(experts)))
    assert max(actions.max() for actions in labelled.actions) < 3
    assert labelled.action_count == (labelled + labelled).action_count == 4
    with pytest.raises(
        ValueError, match=r"labelled actions hold 2; allowed are ints in 0..1, the task's 2 actions"
    ):
        LabelledTransitions.of(experts, 50, 2)
    continuous = dataclasses.replace(experts[0], actions=np.full(len(experts[0].actions), 0.5))
    with pytest.raises(ValueError, match=r"labelled actions hold 0.5; allowed are ints"):
        LabelledTransitions.of([continuous], 1, 4)
    with pytest.raises(ValueError, match="4 actions and of one with 5 do not add up"):
        labelled + dataclasses.replace(labelled, action_count=5)


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
