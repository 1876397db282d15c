"""Measures against known answers, and the shipped world against its bars."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest

import flam_rl
from flam_rl.evaluation.correspondence import dci, evaluate_correspondence
from flam_rl.evaluation.imagination import imagination_validity
from flam_rl.evaluation.pictures import (
    factor_colors,
    matrix_picture,
    prediction_picture,
    reconstruction_picture,
    write_gif,
)
from flam_rl.evaluation.prediction import evaluate_prediction
from flam_rl.types import Video


def test_dci_of_perfect_and_of_useless_factors() -> None:
    perfect = dci(np.eye(4)[:, [2, 0, 3, 1]])
    assert (perfect.disentanglement, perfect.completeness, perfect.informativeness) == pytest.approx(
        (1, 1, 1)
    )
    mixed = dci(np.full((4, 4), 0.5))
    assert (mixed.disentanglement, mixed.completeness) == pytest.approx((0, 0), abs=1e-9)
    assert mixed.informativeness == 0.5
    assert dci(np.zeros((3, 4))).disentanglement == 0.0


def test_dci_of_a_hand_computed_matrix() -> None:
    found = dci(np.array([[0.9, 0.1], [0.0, 0.5]]))
    row = 1 + (0.9 * np.log(0.9) + 0.1 * np.log(0.1)) / np.log(2)
    assert found.disentanglement == pytest.approx((row * 1.0 + 1.0 * 0.5) / 1.5)
    assert found.informativeness == pytest.approx((0.9 + 0.5) / 2)


def test_the_shipped_world_predicts_held_out_video(world, video: Video) -> None:
    found = evaluate_prediction(world, video)
    assert found["psnr"]["1"] > 50
    assert found["psnr"]["15"] > 35
    assert found["token_accuracy_changed"]["15"] > 0.97
    assert min(found["kl_per_factor"]) > 0.5  # no dead factor


def test_horizons_that_no_episode_reaches_are_left_open(world, video: Video) -> None:
    found = evaluate_prediction(world, Video(tuple(e[:8] for e in video.episodes)))
    assert found["psnr"]["5"] > 40
    assert found["psnr"]["15"] is None
    with pytest.raises(ValueError, match="2 frames or more"):
        evaluate_prediction(world, Video(tuple(e[:1] for e in video.episodes)))


def test_the_shipped_world_binds_one_factor_to_one_agent(world, video: Video, episodes) -> None:
    found = evaluate_correspondence(world, video, [e.entities for e in episodes], iterations=15)
    assert found.disentanglement > 0.9
    assert sorted(found.matrix.argmax(0).tolist()) == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="4 episodes or more"):
        evaluate_correspondence(world, Video(video.episodes[:2]), [])


def test_the_shipped_world_holds_in_imagination(world, task: gym.Env) -> None:
    found = imagination_validity(world, task.unwrapped, seed=0, count=256)
    assert found["1"] > 0.93
    assert found["40"] > 0.8


def test_factors_keep_their_norm_for_100_imagined_steps(world) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    factors = world.imagine(lambda factors: factors, world.start(32), 100, generator=generator).factors_BTKS[
        :, -1
    ]
    assert torch.allclose(factors.square().mean(-1), torch.ones(32, world.factors), atol=1e-3)


def test_pictures_are_pictures(world, video: Video, tmp_path: Path) -> None:
    strip = prediction_picture(world, max(video.episodes, key=len))
    assert strip.dtype == np.uint8
    assert strip.shape[2] == 3
    assert strip.std() > 20
    rebuilt = reconstruction_picture(world, video.episodes[0][:3])
    assert rebuilt.shape[2] == 3
    red, *_ = sorted(factor_colors(world).tolist(), key=lambda color: color[1] + color[2] - color[0])
    assert red[0] > 200 > 100 > max(red[1:])  # the caller's agent is red, and so is its factor's mask
    assert matrix_picture(np.eye(4), "title").shape[2] == 3
    write_gif(tmp_path / "a.gif", list(video.episodes[0][:5]))
    assert (tmp_path / "a.gif").read_bytes()[:4] == b"GIF8"


def test_shipped_worlds_are_listed() -> None:
    assert "multigrid" in flam_rl.shipped_worlds()
