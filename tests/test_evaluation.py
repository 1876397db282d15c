"""Measures against known answers, and the shipped world against its bars."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiles import tile_world

import flam_rl
from flam_rl.core.world import World
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.card import TOLERANCES
from flam_rl.evaluation.correspondence import dci, evaluate_correspondence
from flam_rl.evaluation.masks import evaluate_masks
from flam_rl.evaluation.measure import measure_world
from flam_rl.evaluation.perceptual import FVD, LPIPS
from flam_rl.evaluation.pictures import (
    factor_colors,
    matrix_picture,
    prediction_picture,
    reconstruction_picture,
    write_gif,
)
from flam_rl.evaluation.prediction import evaluate_prediction
from flam_rl.evaluation.transfer import evaluate_transfer
from flam_rl.evaluation.validity import imagination_validity
from flam_rl.models.rivals import CopyLastFrame
from flam_rl.models.tiles.code_model import CodeFacts
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


@pytest.mark.learning
def test_the_shipped_world_is_what_its_card_says(world, task: gym.Env) -> None:
    """On fresh video, on whatever machine this is."""
    fresh = list(record_episodes(task, 12_000, seed=2))
    video = Video(tuple(episode.frames for episode in fresh))
    found = measure_world(world, video, [e.entities for e in fresh], task.unwrapped, seed=2)
    for name, tolerance in TOLERANCES.items():
        for key, on_card in world.info.metrics[name].items():
            assert found[name][key] == pytest.approx(on_card, abs=tolerance), (name, key)


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


@pytest.fixture
def still(world) -> World:
    """The shipped world's tokenizer, and nothing moves."""
    config = world.model.code_model.config
    facts = CodeFacts.blank(config, world.tokenizer.grid, *world.tokenizer.looks().shape, 32)
    return tile_world(
        world.model.tokenizer, CopyLastFrame(config, facts), world.stored_starts["starts"][:, -1:]
    )


def test_masks_of_the_shipped_world_are_its_entities(world, still: World, video: Video, episodes) -> None:
    entities = [episode.entities for episode in episodes]
    found = evaluate_masks(world, video, entities, most=300)
    assert found["foreground_ari"] > 0.95
    assert found["mask_iou"] > 0.95
    floor = evaluate_masks(still, video, entities, most=300)
    assert floor["foreground_ari"] == 0
    assert floor["mask_iou"] < 0.02  # one factor draws all 64 tokens, and matches one of four agents


def test_latent_actions_do_the_same_in_another_video(world, still: World, task, video, episodes) -> None:
    entities = [episode.entities for episode in episodes]
    tiles = task.unwrapped.tiles()
    found = evaluate_transfer(world, video, entities, tiles, pairs=300)
    assert found["same_heading"] > 0.85
    assert found["any_heading"] < found["same_heading"]  # its latent actions say where to face
    assert set(evaluate_transfer(still, video, entities, tiles, pairs=300).values()) == {0}
    # A wrong truth must show: everyone is taken for someone else.
    swapped = [{key: value[:, ::-1] for key, value in truth.items()} for truth in entities]
    assert evaluate_transfer(world, video, swapped, tiles, pairs=300)["same_heading"] < 0.5


def test_lpips_with_weights_of_the_right_shapes(tmp_path: Path) -> None:
    shapes = {
        0: (64, 3, 11, 11),
        3: (192, 64, 5, 5),
        6: (384, 192, 3, 3),
        8: (256, 384, 3, 3),
        10: (256, 256, 3, 3),
    }
    state = {f"features.{i}.weight": torch.randn(shape) * 0.05 for i, shape in shapes.items()}
    state |= {f"features.{i}.bias": torch.zeros(shape[0]) for i, shape in shapes.items()}
    state["classifier.6.bias"] = torch.zeros(1000)  # as in torchvision's file, and not needed
    torch.save(state, tmp_path / "alexnet.pth")
    lpips = LPIPS(tmp_path / "alexnet.pth")
    frames = torch.randint(256, (2, 64, 64, 3), dtype=torch.uint8)
    same = lpips.distance(frames / 255, frames)
    near = lpips.distance((frames / 255 + 0.02 * torch.randn(frames.shape)).clamp(0, 1), frames)
    far = lpips.distance(torch.rand(frames.shape), frames)
    assert same == pytest.approx(0, abs=1e-6)
    assert 0 < near < far


class TinyI3D(torch.nn.Module):
    """What StyleGAN-V's file takes and gives, with four features."""

    def forward(
        self, x: torch.Tensor, rescale: bool = True, resize: bool = True, return_features: bool = True
    ) -> torch.Tensor:
        steps = (x[:, :, 1:] - x[:, :, :-1]).abs().mean((2, 3, 4))
        return torch.cat([x.mean((2, 3, 4)), steps[:, :1]], 1)


@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_fvd_grows_with_the_difference_of_videos(tmp_path: Path) -> None:
    torch.jit.script(TinyI3D()).save(str(tmp_path / "i3d.pt"))
    fvd = FVD(tmp_path / "i3d.pt")
    videos = torch.randint(256, (20, 5, 8, 8, 3), dtype=torch.uint8)
    assert fvd.distance(videos, videos / 255) == pytest.approx(0, abs=1e-3)
    brighter, frozen = (videos / 255 * 0.5 + 0.5), (videos / 255)[:, :1].expand(-1, 5, -1, -1, -1)
    assert fvd.distance(videos, brighter) > 1
    assert fvd.distance(videos, frozen) > 1


def test_measures_that_need_weights_are_none_without(world, video: Video) -> None:
    found = evaluate_prediction(world, video)
    assert found["lpips"] is None
    assert found["fvd"] is None
