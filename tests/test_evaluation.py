"""Measures against known answers, and the shipped world against its bars."""

from __future__ import annotations

import json
import re
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from tiles import tile_world

import flam_rl
from flam_rl.core.world import World
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation import (
    correspondence,
    disentanglement,
    foreground,
    intervention,
    perceptual,
    prediction,
    segmentation,
    tokens,
    tracking,
    transfer,
)
from flam_rl.evaluation.card import TOLERANCES
from flam_rl.evaluation.correspondence import dci
from flam_rl.evaluation.encoded import Encoded, encode
from flam_rl.evaluation.measure import measure_world
from flam_rl.evaluation.perceptual import FVD, LPIPS
from flam_rl.evaluation.pictures import (
    factor_colors,
    masks_picture,
    matrix_picture,
    prediction_picture,
    reconstruction_picture,
    write_gif,
)
from flam_rl.evaluation.summary import summary
from flam_rl.evaluation.truth import chosen_actions, true_entities, truths_of
from flam_rl.models.rivals import CopyLastFrame
from flam_rl.models.tiles.code_model import CodeFacts
from flam_rl.types import Json, Truth, Video


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


@pytest.fixture(scope="module")
def encoded(video: Video, episodes) -> Encoded:
    """Real video as the shipped world encodes it."""
    few = Video(video.episodes[:24])
    return encode(
        flam_rl.load_world("multigrid"), few, truths_of([episode.entities for episode in episodes[:24]])
    )


@pytest.fixture(scope="module")
def measured(encoded: Encoded, task: gym.Env) -> Json:
    """All figures of the shipped world; measuring sees no frame again, each was encoded once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoded.world.model, "see", lambda *_: pytest.fail("frames are encoded again"))
        return measure_world(encoded, task.unwrapped, seed=1, probe_iterations=10)


@pytest.mark.learning
def test_figures_of_the_shipped_world_are_beside_their_floors(encoded: Encoded, measured: Json) -> None:
    found = measured
    assert found["frames"] == sum(map(len, encoded.frames))
    assert min(found["kl_per_factor"]) > 0.5  # no dead factor
    assert found["codes"] == 33
    assert (found["lpips"], found["fvd"]) == (None, None)
    # Every one beside what knows nothing.
    assert found["psnr"]["floors"]["last_frame"]["15"] < 25
    for horizon in ("1", "5", "15"):
        moving = found["foreground"][horizon]
        assert moving["foreground_psnr"] > 50
        assert moving["psnr"] > 60
        for floor in ("last_frame", "background"):
            assert moving["floors"][floor]["foreground_psnr"] < 20
    assert found["tracking"]["hota"] > 0.95 > 0.6 > found["tracking"]["floors"]["random_identities"]["hota"]
    assert found["masks"]["mask_iou"] > 0.95 > 0.1 > found["masks"]["floors"]["one_factor"]["mask_iou"]
    assert found["intervention"]["on_entity"] > 0.95
    assert found["intervention"]["floors"]["chance"]["on_entity"] < 0.5
    assert found["disentanglement"]["disentanglement"] > 0.9
    assert found["disentanglement"]["floors"]["random_matching"]["informativeness"] < 0.3
    assert found["transfer"]["floors"]["random_actions"]["same_heading"] < 0.4
    assert found["imagination_validity"]["floors"]["random_actions"]["40"] < 0.1
    assert json.loads(json.dumps(found)) == found
    text = summary(found | {"reward_rate": None})
    assert re.search(r"^tracking +hota 1\.000  deta", text, re.M)
    assert re.search(r"^floor: background alone +1: 1\d\.\d+  5:", text, re.M)
    assert re.search(
        r"^changed tokens +1: \d.*\n^floor: last frame copied +1: 0\.000  5: 0\.000  15: 0\.000$", text, re.M
    )
    assert re.search(
        r"^DCI +disent.*\n^floor: chance +disentanglement 0\.000  completeness 0\.000", text, re.M
    )
    assert re.search(r"^KL per factor +\d\.\d\d  ", text, re.M)


def test_what_cannot_be_measured_is_left_out_and_said(
    world, video: Video, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    found = measure_world(encode(world, Video(video.episodes[:5])), None, seed=0)
    without = {
        "dci": "there is no truth of what entities do",
        "disentanglement": "there is no truth of who is where and what they do",
        "masks": "there is no truth of who is where",
        "tracking": "there is no truth of who is where",
        "transfer": "there is no task that lists the tiles",
        "imagination_validity": "there is no task that lists the tiles",
    }
    for name, reason in without.items():
        assert found[name] is None
        assert f"{name} is left out: {reason}" in caplog.text
    assert found["intervention"]["on_entity"] > 0.9  # asks the model alone where entities are
    assert found["foreground"]["1"]["foreground_psnr"] > 40  # what differs from the median
    text = summary(found | {"reward_rate": None})
    assert "tracking" not in text


@pytest.mark.learning
def test_video_is_encoded_once(encoded: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each frame passes the tokenizer and the factorizer one time; `measured` shows that none does afterwards."""
    world, seen = encoded.world, []
    see = world.model.see
    monkeypatch.setattr(
        world.model, "see", lambda frames, actions: (seen.append(frames.shape[1]), see(frames, actions))[1]
    )
    encode(world, Video(encoded.frames), encoded.truth)
    assert seen == [len(frames) for frames in encoded.frames]


def test_long_episodes_are_encoded_in_pieces_and_mapped_frames_stay_mapped(
    world, video: Video, tmp_path: Path
) -> None:
    frames = np.concatenate(video.episodes)[:1201]
    np.save(tmp_path / "film.npy", frames)
    mapped = np.load(tmp_path / "film.npy", mmap_mode="c")
    found = encode(world, Video((mapped,)))
    assert [len(part) for part in found.frames] == [600, 601]
    assert all(isinstance(part, np.memmap) for part in found.frames)
    assert [scene.factors.shape[0] for scene in found.scenes] == [600, 601]
    assert [len(acted) for acted in found.latent_actions] == [599, 600]


@pytest.mark.learning
def test_the_shipped_world_is_what_its_card_says(world, task: gym.Env) -> None:
    """On fresh video, on whatever machine this is."""
    fresh = list(record_episodes(task, 12_000, seed=2))
    video = Video(tuple(episode.frames for episode in fresh))
    found = measure_world(
        encode(world, video, truths_of([e.entities for e in fresh])), task.unwrapped, seed=2
    )
    card = world.info.metrics
    assert {"psnr", "dci", "imagination_validity"} <= {name for name, figures in card.items() if figures}
    for name, tolerance in TOLERANCES.items():
        for key, on_card in card.get(name, {}).items():
            assert found[name][key] == pytest.approx(on_card, abs=tolerance), (name, key)


def test_horizons_that_no_episode_reaches_are_left_open(world, video: Video) -> None:
    short = encode(world, Video(tuple(e[:8] for e in video.episodes)))
    found = prediction.measure(short)
    assert found["psnr"]["5"] > 40
    assert found["psnr"]["15"] is None
    assert found["psnr"]["floors"]["last_frame"]["15"] is None
    assert set(foreground.measure(short).values()) == {None}
    assert tokens.measure(short)["token_accuracy_changed"]["15"] is None
    with pytest.raises(ValueError, match="2 frames or more"):
        prediction.measure(encode(world, Video(tuple(e[:1] for e in video.episodes))))


@pytest.mark.learning
def test_the_shipped_world_binds_one_factor_to_one_agent(encoded: Encoded, measured: Json) -> None:
    assert measured["dci"]["disentanglement"] > 0.9
    assert sorted(np.argmax(measured["correspondence"], 0).tolist()) == [0, 1, 2, 3]
    few = encode(encoded.world, Video(encoded.frames[:2]), encoded.truth[:2])
    assert correspondence.measure(few, few.truth) is None
    with pytest.raises(ValueError, match="4 episodes or more"):
        correspondence.correspond(few, few.truth)


@pytest.mark.learning
def test_the_shipped_world_holds_in_imagination(measured: Json) -> None:
    found = measured["imagination_validity"]
    assert found["1"] > 0.93
    assert found["40"] > 0.8


def test_factors_keep_their_norm_for_100_imagined_steps(world) -> None:
    import torch

    generator = torch.Generator().manual_seed(0)
    factors = world.imagine(lambda factors: factors, world.start(32), 100, generator=generator).factors_BTKS[
        :, -1
    ]
    assert torch.allclose(factors.square().mean(-1), torch.ones(32, world.factors), atol=1e-3)


@pytest.mark.learning
def test_pictures_are_pictures(encoded: Encoded, video: Video, tmp_path: Path) -> None:
    strip = prediction_picture(encoded, max(range(len(encoded.frames)), key=lambda i: len(encoded.frames[i])))
    assert strip.dtype == np.uint8
    assert strip.shape[2] == 3
    assert strip.std() > 20
    assert reconstruction_picture(encoded, 0, 3).shape[2] == 3
    assert masks_picture(encoded, 0, 3).shape == (64, 3 * 64, 3)
    red, *_ = sorted(
        factor_colors(encoded.world, encoded.world.start(64)).tolist(),
        key=lambda color: color[1] + color[2] - color[0],
    )
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
    facts = CodeFacts.blank(config, world.model.tokenizer.grid, *world.model.tokenizer.looks().shape, 32)
    return tile_world(
        world.model.tokenizer, CopyLastFrame(config, facts), world.stored_starts["starts"][:, -1:]
    )


@pytest.mark.learning
def test_a_world_of_one_factor_tells_no_entities_apart(
    encoded: Encoded, still: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    floor = encode(still, Video(encoded.frames), encoded.truth)
    for measure in (segmentation, tracking, disentanglement, intervention):
        assert measure.measure(floor, encoded.truth) is None
    assert caplog.text.count("the world draws the scene as one factor") == 4
    found = prediction.measure(floor)
    assert found["psnr"]["15"] == pytest.approx(found["psnr"]["floors"]["last_frame"]["15"], abs=0.5)


@pytest.mark.learning
def test_latent_actions_do_the_same_in_another_video(encoded: Encoded, still: World, task: gym.Env) -> None:
    found = transfer.measure(encoded, encoded.truth, task.unwrapped, pairs=300)
    assert found["same_heading"] > 0.85
    assert found["any_heading"] < found["same_heading"]  # its latent actions say where to face
    nothing = transfer.measure(encode(still, Video(encoded.frames)), encoded.truth, task.unwrapped, pairs=300)
    assert (nothing["same_heading"], nothing["any_heading"]) == (0, 0)
    # A wrong truth must show: everyone is taken for someone else.
    swapped = [Truth(centre=truth.centre[:, ::-1], heading=truth.heading[:, ::-1]) for truth in encoded.truth]
    assert transfer.measure(encoded, swapped, task.unwrapped, pairs=300)["same_heading"] < 0.5


def test_truth_of_a_task_of_continuous_motion() -> None:
    """Pucks: boxes cut at the frame's border, discs as masks, pushes apart from contact."""
    pucks = gym.make("flam_rl/Pucks-v0", pucks=6, looks=1, camera="moving", visits=True)
    (episode, *_) = record_episodes(pucks, 60, seed=3)
    (truth,) = truths_of([episode.entities])
    entities = true_entities(truth, (64, 64), masks=True)
    assert entities.presence.shape[1] == len(np.unique(truth.identity[truth.identity >= 0]))
    assert entities.presence.sum() == truth.presence.sum()
    inside = entities.box[entities.presence]
    assert inside.min() >= 0
    assert inside.max() <= 64
    radius = truth.radius[truth.presence & (truth.box.min(-1) >= 0) & (truth.box.max(-1) <= 64)]
    areas = entities.mask.sum((2, 3))
    assert areas.max() == pytest.approx(np.pi * radius.max() ** 2, rel=0.1)
    # What the renderer draws in a puck's middle is not what is drawn beside it.
    chosen = chosen_actions(truth)
    assert chosen.shape == (len(episode.frames) - 1, 6)
    assert (chosen[truth.contact[1:]] == -1).all()
    free = truth.presence[1:] & ~truth.contact[1:]
    assert (chosen[free] == truth.action[1:][free]).all()
    assert truths_of(None) is None
    assert truths_of([{}, {}]) is None


def random_lpips(tmp_path: Path) -> LPIPS:
    """With a network of random weights."""
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
    return LPIPS(tmp_path / "alexnet.pth")


def test_lpips_with_weights_of_the_right_shapes(tmp_path: Path) -> None:
    lpips = random_lpips(tmp_path)
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


@pytest.mark.learning
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_perceptual_measures_are_beside_their_floors(encoded: Encoded, tmp_path: Path) -> None:
    torch.jit.script(TinyI3D()).save(str(tmp_path / "i3d.pt"))
    few = encode(encoded.world, Video(encoded.frames[:8]))
    found = perceptual.measure(few, lpips=random_lpips(tmp_path), fvd=FVD(tmp_path / "i3d.pt"))
    assert found["lpips"]["15"] < found["lpips"]["floors"]["last_frame"]["15"]
    assert found["fvd"] < found["fvd_floors"]["last_frame"]
    assert perceptual.measure(few) == {"lpips": None, "fvd": None, "fvd_floors": None}
