"""FLAM on tracked layers: factors of tracks, drawing, dynamics, imagination, and a world of it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from interrupting import Interrupted, Interrupting

import flam_rl
from flam_rl.core.checkpoint import load_world, save_world
from flam_rl.core.info import WorldInfo
from flam_rl.core.world import World
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation import correspondence, disentanglement
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.prediction import measure as measure_prediction
from flam_rl.evaluation.truth import truths_of
from flam_rl.models.build import BuildConfig, Footage, build_world, check_build
from flam_rl.models.tiles.training import WorldTrainingConfig
from flam_rl.models.tracked import track_cache
from flam_rl.models.tracked.build import TrackedBuildConfig
from flam_rl.models.tracked.flam import TrackedConfig
from flam_rl.models.tracked.joint import TrackedJointModel
from flam_rl.models.tracked.look_codes import draw_factors
from flam_rl.models.tracked.model import TrackedModel
from flam_rl.models.tracked.sequences import Sequences
from flam_rl.models.tracked.sprites import draw
from flam_rl.models.tracked.states import DEPTH, LOOK, PLACE, PRESENCE, VELOCITY, StateConfig, rows_of
from flam_rl.models.tracked.track_cache import (
    Ground,
    digest_of,
    find_ground,
    read_tracks,
    side_by_side,
    track_video,
    write_tracks,
)
from flam_rl.models.tracked.tracker import TrackerConfig
from flam_rl.models.tracked.tracks import track
from flam_rl.models.tracked.training import (
    DynamicsTrainingConfig,
    LookTrainingConfig,
    PriorTrainingConfig,
    sample_looks,
    train_looks,
)
from flam_rl.training.run import Log
from flam_rl.types import Scene, Video

CPU = torch.device("cpu")
BRIEF = TrackedBuildConfig(
    looks=LookTrainingConfig(frames=600, patch_steps=300, steps=300),
    dynamics_training=DynamicsTrainingConfig(steps=1000, batch=64),
    prior_training=PriorTrainingConfig(steps=600, batch=512),
)


def film_of(seed: int, frames: int = 48, **options: Any) -> np.ndarray:
    """An episode of pucks that goes on for so many frames, the last one if it ends."""
    task: Any = gym.make("flam_rl/Pucks-v0", **{"goal": "flee"} | options).unwrapped
    frame, _ = task.reset(seed=seed)
    act, film = task.make_behavior("patrol", np.random.default_rng(seed)), [frame]
    while len(film) < frames:
        frame, _, terminated, truncated, _ = task.step(act())
        film.append(frame)
        if terminated or truncated:
            break
    return np.stack(film)


@pytest.fixture(scope="module")
def films() -> list[np.ndarray]:
    return [film_of(seed, pucks=2, looks=2) for seed in range(28)]


@pytest.fixture(scope="module")
def trained(films: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world of two pucks, trained for a minute."""
    footage = Footage(Video(tuple(films[:24])), Video(tuple(films[24:])))
    config = BuildConfig(model="tracked", tracked=BRIEF)
    folder = tmp_path_factory.mktemp("run")
    return build_world(config, footage, WorldInfo(), CPU, Log(None), folder=folder)


@pytest.fixture
def blank() -> World:
    """A world of three factors whose weights mean nothing."""
    torch.manual_seed(0)
    model = TrackedModel(TrackedConfig(StateConfig(32, 48, entities=3, patch=12), shared_ground=True))
    model.flam.latent_action_prior.codebook.normal_()
    model.flam.ground_3HW.uniform_()
    starts = {
        "factors": present(model, 5),
        "context": torch.randint(256, (2, model.context_dim), dtype=torch.uint8),
        "episode": torch.tensor([0, 0, 1, 1, 1]),
    }
    return World(model, starts, WorldInfo())


def present(model: TrackedModel, count: int) -> torch.Tensor:
    """Factors `(count, K, S)` who are all there."""
    factors = 0.5 * torch.randn(count, model.factors, model.factor_dim).clamp(-2, 2)
    factors[..., PRESENCE] = 1
    return factors


def test_a_place_has_gradients_through_what_is_drawn() -> None:
    look = torch.zeros(1, 1, 4, 8, 8, dtype=torch.float64)
    look[..., 2:6, 2:6] = 0.7
    place = torch.tensor([[[9.3, 7.6]]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda at: draw(look, at, (16, 20)).drawn_BK4HW, (place,), eps=1e-4, atol=1e-3
    )


@pytest.mark.learning
def test_tracks_become_rows_that_keep_their_entity(films: list[np.ndarray]) -> None:
    tracks = track(films[0])
    rows = rows_of(tracks)
    assert rows.presence.shape == (len(films[0]), 2)
    for row in range(2):
        names = rows.identity[:, row][rows.presence[:, row]]
        assert len(names.unique()) == 1
    moved = rows.place[1:] - rows.place[:-1]
    both = rows.presence[1:] & rows.presence[:-1]
    assert torch.allclose(moved[both], rows.velocity[1:][both], atol=1e-4)
    fewer = rows_of(tracks, 1)
    assert torch.equal(fewer.place[:, 0], rows.place[:, 0])


@pytest.mark.learning
def test_a_track_is_read_as_it_was_written(films: list[np.ndarray], tmp_path: Path) -> None:
    tracks = track(films[0])
    write_tracks(tmp_path / "one.npz", tracks)
    again = read_tracks(tmp_path / "one.npz")
    assert torch.equal(again.place, tracks.place)
    assert torch.equal(again.identity, tracks.identity)
    assert (again.look - tracks.look.clamp(0, 1)).abs().max() < 0.003


@pytest.mark.learning
def test_tracks_are_found_again_by_the_same_tracker_only(
    films: list[np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = Video((films[0][:12],))
    ground = find_ground(video, TrackerConfig())

    def kept(ground: Ground) -> dict[str, int]:
        (found,) = track_video(video, ground, tmp_path)
        assert len(found.presence) == 12
        return {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    once = kept(ground)
    assert len(once) == 1
    assert kept(ground) == once
    settings = kept(replace(ground, tracker=replace(ground.tracker, patience=3)))
    assert len(settings) == 2
    monkeypatch.setattr("flam_rl.models.tracked.track_cache.CODE", "another")
    code = kept(ground)
    assert len(code) == 3
    assert code.items() > settings.items() > once.items()


def test_every_change_of_a_source_is_another_tracker(tmp_path: Path) -> None:
    sources = Path(track_cache.__file__).parent
    shutil.copytree(sources, tmp_path / "copy")
    assert digest_of(tmp_path / "copy") == digest_of(sources) == track_cache.CODE
    with (tmp_path / "copy" / "tracker.py").open("a") as source:
        source.write("\n")
    changed = digest_of(tmp_path / "copy")
    assert changed != track_cache.CODE
    (tmp_path / "copy" / "camera.py").rename(tmp_path / "copy" / "cameras.py")
    assert digest_of(tmp_path / "copy") not in (changed, track_cache.CODE)


@pytest.mark.learning
def test_an_interrupted_training_goes_on_as_if_it_had_not_been(
    films: list[np.ndarray], tmp_path: Path
) -> None:
    video = Video(tuple(frames[:24] for frames in films[:4]))
    config = BuildConfig(
        "tracked",
        world=WorldTrainingConfig(checkpoint_every=3),
        tracked=TrackedBuildConfig(
            looks=LookTrainingConfig(frames=40, patch_steps=4, steps=4, batch=4),
            dynamics_training=DynamicsTrainingConfig(steps=8, batch=8),
            prior_training=PriorTrainingConfig(steps=8, batch=32),
        ),
    )

    def built(folder: Path | None, log: Log) -> dict[str, torch.Tensor]:
        with log:
            world = build_world(config, Footage(video, video), WorldInfo(), CPU, log, folder=folder)
        return world.model.state_dict() | world.stored_starts

    whole = built(None, Log(None))
    for name, at in (("looks", 2), ("looks", 5), ("dynamics", 7), ("prior", 4)):
        log = Interrupting(name, at)
        with pytest.raises(Interrupted):
            built(tmp_path, log)
        assert len(log.done) < 13, "what was done before is done again"
    log = Interrupting()
    again = built(tmp_path, log)
    assert log.done == [("prior", step) for step in range(3, 8)]
    assert whole.keys() == again.keys()
    assert all(torch.equal(whole[name], again[name]) for name in whole)


def test_as_many_episodes_are_tracked_side_by_side_as_memory_holds() -> None:
    lengths = [100] * 130 + [1000] * 8 + [9000]
    parts = list(side_by_side(list(range(len(lengths))), lengths))
    assert [index for part in parts for index in part] == list(range(len(lengths)))
    assert [len(part) for part in parts] == [64, 64, 8, 2, 1]
    assert list(side_by_side([], lengths)) == []


def test_places_go_to_pixels_and_back() -> None:
    state = StateConfig(32, 48)
    corner, middle = state.to_pixels(torch.tensor([[-1.0, -2 / 3], [0.0, 0.0]]))
    assert corner.tolist() == pytest.approx([0, 0], abs=1e-5)
    assert middle.tolist() == [24, 16]
    pixels = torch.tensor([[3.0, 30.0]])
    assert torch.allclose(state.to_pixels(state.from_pixels(pixels)), pixels)


def test_clips_are_drawn_within_episodes() -> None:
    episodes = [torch.full((length, 1, 3), float(length)) for length in (5, 9)]
    for episode in episodes:
        episode[:, 0, 0] = torch.arange(len(episode))
    clips = Sequences(episodes).sample(200, 4, torch.Generator().manual_seed(0))
    assert clips.shape == (200, 4, 1, 3)
    assert torch.equal(clips[:, 1:, 0, 0] - clips[:, :-1, 0, 0], torch.ones(200, 3))
    assert (clips[:, :, 0, 1] == clips[:, :1, 0, 1]).all()
    assert set(clips[:, 0, 0, 1].tolist()) == {5.0, 9.0}


def test_pairs_of_frames_are_all_or_evenly_spread_and_of_one_episode(tmp_path: Path) -> None:
    episodes = [torch.full((length, 1, 3), float(length)) for length in (50, 90)]
    for episode in episodes:
        episode[:, 0, 0] = torch.arange(len(episode))
    sequences = Sequences(iter(episodes), tmp_path)
    assert not list(tmp_path.iterdir())  # its file has no name
    for most, count in ((200, 49 + 89), (23, 23)):
        now, following = sequences.pairs(most)
        assert now.shape == (count, 1, 3)
        assert (following[..., 0] - now[..., 0] == 1).all()
        assert (following[..., 1] == now[..., 1]).all()
        assert abs(float((now[..., 1] == 50).float().mean()) - 49 / 138) < 0.05


@torch.inference_mode()
def test_a_latent_action_moves_its_own_factor_only(blank: World) -> None:
    factors = present(blank.model, 20)  # type: ignore[arg-type]
    latent = torch.randn(20, 3, blank.latent_action_dim)
    other = latent.clone()
    other[:, 1] += 1
    one, two = blank.step(factors, latent), blank.step(factors, other)
    assert torch.equal(one[:, [0, 2]], two[:, [0, 2]])
    assert not torch.equal(one[:, 1], two[:, 1])


def test_the_control_has_one_latent_action_for_all() -> None:
    """Whoever is in which row, it is the same latent action, and it moves all of them; all parts of it are trained."""
    torch.manual_seed(0)
    model = TrackedJointModel(TrackedConfig(StateConfig(32, 48, entities=4, patch=12)))
    factors = present(model, 6)  # type: ignore[arg-type]
    clip = torch.stack([factors[:3], factors[3:]], 1)
    clip[0, :, 3] = 0  # nobody
    latent = model.infer_actions(clip).mean
    assert latent.shape == (3, 1, 1, 4 * 4) == (3, 1, model.latent_actions, model.latent_action_dim)
    other = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(model.infer_actions(clip[:, :, other]).mean, latent)
    moved = model.step(clip[:, 0], latent[:, 0])
    torch.testing.assert_close(model.step(clip[1:, 0, other], latent[1:, 0]), moved[1:, other])
    pushed = model.step(clip[1:, 0], latent[1:, 0] + 1)
    assert ((pushed - moved[1:]).abs().amax(-1) > 0).all()
    loss, metrics = model.flam.loss(clip)
    loss.backward()
    parts = {"inverse_dynamics": model.flam.inverse_dynamics, "forward_dynamics": model.flam.forward_dynamics}
    for name, part in parts.items():
        untouched = {key for key, value in part.named_parameters() if value.grad is None}
        assert not untouched, name
    assert metrics["nats"] > 0


def test_of_empty_rows_the_control_fills_the_first() -> None:
    torch.manual_seed(0)
    model = TrackedJointModel(TrackedConfig(StateConfig(32, 48, entities=4, patch=12)))
    factors = present(model, 64)  # type: ignore[arg-type]
    factors[:, 1:] = 0
    with torch.no_grad():
        model.flam.forward_dynamics.birth[-1].bias[PRESENCE] = 4  # type: ignore[index, operator]
    following = model.step(factors, 3 * torch.randn(64, 1, model.latent_action_dim))
    born = following[:, 1:, PRESENCE] > 0.5
    assert born[:, 0].any()
    assert not born[:, 1:].any()


def test_a_world_of_the_control_is_saved_and_imagined(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = TrackedJointModel(TrackedConfig(StateConfig(32, 48, entities=3, patch=12), shared_ground=True))
    starts = {
        "factors": present(model, 5),  # type: ignore[arg-type]
        "context": torch.randint(256, (1, model.context_dim), dtype=torch.uint8),
        "episode": torch.zeros(5, dtype=torch.long),
    }
    save_world(World(model, starts, WorldInfo()), tmp_path / "world")
    world = load_world(tmp_path / "world")
    assert world.model.kind == "tracked-joint"
    stepper = world.imagination([0])
    now = stepper.begin(world.starts().factors[:4])
    wanted = torch.randn(4, 1, 12)
    following, taken = stepper.step(now, wanted)
    torch.testing.assert_close(taken.latent_actions_BLA, wanted)
    torch.testing.assert_close(following.factors_BKS, world.step(now.factors_BKS, wanted))
    own = world.imagination([])
    _, drawn = own.step(own.begin(world.starts().factors[:4]), None, torch.Generator().manual_seed(0))
    assert drawn.latent_actions_BLA.shape == (4, 1, 12)


@torch.inference_mode()
def test_what_is_absent_is_not_drawn_and_nearer_hides_farther(blank: World) -> None:
    state = blank.model.settings.state
    scene = blank.start(1)
    nobody = Scene(torch.zeros_like(scene.factors), scene.context)
    ground = (scene.context.view(3, 32, 48) * 255).round().to(torch.uint8).movedim(0, -1)
    assert torch.equal(blank.draw(nobody)[0], ground)
    assert blank.shares(nobody).sum() == 0
    factors = scene.factors.clone()
    factors[..., PLACE], factors[0, :, DEPTH] = 0, torch.tensor([0.0, 0.5, 1.0])
    layers, _ = draw_factors(blank.model.flam.codes, state, factors, scene.context.view(1, 3, 32, 48))
    alpha = layers.drawn_BK4HW[0, :, 3]
    expected = torch.stack([alpha[0], alpha[1] * (1 - alpha[0]), alpha[2] * (1 - alpha[0]) * (1 - alpha[1])])
    assert torch.allclose(blank.shares(Scene(factors, scene.context))[0], expected, atol=1e-5)


@torch.inference_mode()
def test_imagination_of_a_batch_is_that_of_its_worlds(blank: World) -> None:
    factors = present(blank.model, 70)  # type: ignore[arg-type]
    stepper = blank.imagination([1])
    wanted = torch.randn(70, 1, blank.latent_action_dim)
    whole, taken = stepper.step(stepper.begin(factors), wanted, torch.Generator().manual_seed(0))
    chance = torch.rand(70, 3, 3, generator=torch.Generator().manual_seed(0))
    alone = [stepper._step(*(part[i : i + 1] for part in (factors, chance, wanted))) for i in range(70)]
    assert torch.allclose(whole.factors_BKS, torch.cat([one[0] for one in alone]), atol=1e-5)
    assert torch.allclose(taken.latent_actions_BLA, torch.cat([one[1] for one in alone]), atol=1e-5)
    snapped, log_prior = blank.model.snap(factors, 1, wanted[:, 0])
    assert torch.allclose(taken.latent_actions_BLA[:, 1], snapped, atol=1e-5)
    assert torch.allclose(taken.log_prior_BC[:, 0], log_prior, atol=1e-5)


@torch.inference_mode()
def test_who_the_prior_says_comes_is_there_and_nobody_goes_where_nobody_does(blank: World) -> None:
    factors, prior = present(blank.model, 40), blank.model.flam.latent_action_prior
    stepper, generator = blank.imagination(), torch.Generator().manual_seed(0)
    prior.birth[-1].bias.fill_(50.0)
    nobody = stepper.step(stepper.begin(torch.zeros_like(factors)), None, generator)[0].factors_BKS
    assert (nobody[..., PRESENCE] == 1).all()
    prior.net[-1].bias[-1] = 50.0
    assert (stepper.step(stepper.begin(factors), None, generator)[0].factors_BKS == 0).all()
    prior.keep_alive()
    for scale in (1, 100):
        state = stepper.begin(factors * scale)
        assert (stepper.step(state, None, generator)[0].factors_BKS[..., PRESENCE] == 1).all()


@torch.inference_mode()
def test_a_latent_action_tells_an_end_from_what_stays_as_it_is(blank: World) -> None:
    factors = present(blank.model, 20)  # type: ignore[arg-type]
    still = blank.infer_actions(torch.stack([factors, factors], 1)).mean
    gone = blank.infer_actions(torch.stack([factors, torch.zeros_like(factors)], 1)).mean
    assert ((still - gone).norm(dim=-1) > 0.01).all()


@pytest.mark.learning
@pytest.mark.filterwarnings("ignore:.*script_method.*:DeprecationWarning")
@torch.inference_mode()
def test_a_compiled_step_is_the_plain_one(blank: World) -> None:
    factors = present(blank.model, 64)  # type: ignore[arg-type]
    wanted = torch.randn(64, 1, blank.latent_action_dim)
    found = []
    for compile in (False, True):
        stepper = blank.model.stepper([0], compile=compile)
        state, taken = stepper.step(stepper.begin(factors), wanted, torch.Generator().manual_seed(0))
        found.append((state.factors_BKS, *taken))
    assert all(torch.allclose(*pair, atol=1e-4) for pair in zip(*found, strict=True))


def test_gradients_reach_a_policy(blank: World) -> None:
    policy = torch.nn.Linear(blank.factors * blank.factor_dim, blank.latent_action_dim)
    rollout = blank.imagine(
        policy, Scene(present(blank.model, 4), torch.zeros(4, blank.model.context_dim)), 2, [0]
    )  # type: ignore[arg-type,attr-defined]
    rollout.factors_BTKS[..., 0, PLACE].sum().backward()
    assert policy.weight.grad is not None
    assert policy.weight.grad.abs().sum() > 0


def test_a_saved_world_is_the_same(blank: World, tmp_path: Path) -> None:
    flam_rl.save_world(blank, tmp_path / "world")
    loaded = flam_rl.load_world(tmp_path / "world")
    before, after = blank.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert loaded.model.settings == blank.model.settings
    assert all(torch.equal(a, loaded.stored_starts[name]) for name, a in blank.stored_starts.items())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        (
            "factors",
            lambda t: t[:, :2],
            r"'factors' is torch.float32 of shape \(5, 2, 18\); allowed .*\(5, 3, 18\)",
        ),
        ("factors", lambda t: t / 0, "'factors' has numbers that are NaN or infinite"),
        ("context", lambda t: t.float(), "'context' is torch.float32"),
        ("episode", lambda t: t + 5, "'episode' has rows 5 to 6; allowed are 0 to 1"),
    ],
)
def test_starts_that_cannot_be_are_named(blank: World, name: str, change: Any, message: str) -> None:
    starts = blank.stored_starts
    with pytest.raises(ValueError, match=message):
        World(blank.model, starts | {name: change(starts[name])}, WorldInfo())


def test_a_video_in_which_nothing_moves_is_refused() -> None:
    still = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8).repeat(20, 0)
    footage = Footage(Video((still,) * 4), Video((still,)))
    with pytest.raises(ValueError, match="nothing that moves was found"):
        build_world(BuildConfig(model="tracked", tracked=BRIEF), footage, WorldInfo(), CPU, Log(None))


def test_settings_are_checked_before_training() -> None:
    with pytest.raises(ValueError, match="frames are 4x64; tracking needs 16x16 pixels or more"):
        check_build(BuildConfig(model="tracked"), (4, 64))
    with pytest.raises(ValueError, match="factors is 0; allowed is 1 to 256"):
        replace(TrackedBuildConfig(), factors=0)


def test_the_camera_moves_the_view_and_all_that_is_in_it() -> None:
    state = StateConfig(32, 48, entities=2, patch=12, margin=8)
    torch.manual_seed(0)
    flam = TrackedModel(TrackedConfig(state)).flam
    ground = torch.rand(1, 3, 48, 64)
    factors = torch.zeros(1, 3, state.dim)
    factors[:, -1, DEPTH], factors[:, -1, PRESENCE] = -1.0, 1.0
    torch.testing.assert_close(flam.draw(factors, ground), ground[..., 8:40, 8:56])
    factors[:, -1, PLACE] = torch.tensor([3.0, -2.0]) / state.half
    torch.testing.assert_close(flam.draw(factors, ground), ground[..., 10:42, 5:53])
    factors[:, 0, PRESENCE] = 1.0
    factors[:, -1, VELOCITY] = torch.tensor([4.0, 0.0])
    moved = flam.forward_dynamics(factors, torch.zeros(1, 3, 4)).factors_BKS
    way = (moved - factors)[..., PLACE] * state.half / state.speed
    torch.testing.assert_close(way[:, 0], moved[:, 0, VELOCITY] + moved[:, -1, VELOCITY])


@pytest.mark.learning
def test_looks_are_learned_where_the_camera_moves() -> None:
    film = film_of(0, 24, pucks=2, camera="moving", background="new_texture")
    tracks = track(film)
    state = StateConfig(64, 64, entities=2, patch=24, margin=8)
    sample = sample_looks([(film, rows_of(tracks, 2), tracks.context)], len(film), state, 24)
    codes = TrackedModel(TrackedConfig(state)).flam.codes
    config = LookTrainingConfig(patch_steps=2, steps=2)
    before = codes.decoder[0].weight.clone()
    train_looks(codes, sample, state, config, Log(None), torch.Generator().manual_seed(0))
    assert not torch.equal(codes.decoder[0].weight, before)


@pytest.mark.learning
def test_it_predicts_held_out_pucks(trained: World, films: list[np.ndarray]) -> None:
    assert trained.factors == 2
    found = measure_prediction(encode(trained, Video(tuple(films[24:]))), None)["psnr"]
    assert found["1"] > 34
    assert found["5"] > 28
    assert found["5"] > found["floors"]["last_frame"]["5"] + 6
    film = trained.predict(films[24], 12, 5)
    error = ((film.astype(float) - films[24][13:18]) ** 2).mean((1, 2, 3))
    assert (10 * np.log10(255**2 / error)).mean() > 27


@pytest.mark.learning
@torch.inference_mode()
def test_imagination_holds_for_a_thousand_steps(trained: World) -> None:
    stepper, generator = trained.imagination(), torch.Generator().manual_seed(0)
    state = stepper.begin(trained.start(64, generator).factors)
    first = state.factors_BKS
    for _ in range(1000):
        state, _ = stepper.step(state, None, generator)
    last = state.factors_BKS
    assert last.isfinite().all()
    assert float(last[..., PRESENCE].mean()) > 0.5
    bound = trained.model.factor_bound
    assert float(last.abs().max()) <= bound
    pixels = trained.model.settings.state.to_pixels(last[..., PLACE])[last[..., PRESENCE] > 0.5]
    assert float(pixels.min()) > -16
    assert float(pixels.max()) < 80
    speed = [x[..., VELOCITY].norm(dim=-1)[x[..., PRESENCE] > 0.5].mean() for x in (first, last)]
    assert 0.3 < float(speed[1] / speed[0]) < 3
    assert last[..., LOOK].isfinite().all()


@pytest.mark.learning
@pytest.mark.filterwarnings("ignore:.*symmetric and normalized.*")
def test_it_is_flam_v0_and_watches_running_tasks(trained: World) -> None:
    env = gym.make("FLAM-v0", world=trained, control=[0], observation="pixels")
    check_env(env.unwrapped, skip_render_check=True)
    venv = gym.make_vec("FLAM-v0", num_envs=5, world=trained, control="all", compile=False)
    seen, _ = venv.reset(seed=0)
    assert seen in venv.observation_space
    for _ in range(3):
        seen, *_ = venv.step(venv.action_space.sample())
        assert seen in venv.observation_space
    films = [film_of(seed, pucks=2, looks=2) for seed in (50, 51)]
    length = min(len(film) for film in films)
    watcher = trained.model.watch(2)
    for t in range(length):
        scene = watcher.see(np.stack([film[t] for film in films]), np.array([t == 0] * 2))
    assert (scene.factors[..., PRESENCE].sum(1) == 2).all()
    drawn = trained.draw(scene).numpy().astype(float)
    last = np.stack([film[length - 1] for film in films])
    assert 10 * np.log10(255**2 / ((drawn - last) ** 2).mean()) > 30


@pytest.mark.learning
def test_a_clip_is_seen_once_for_all_horizons() -> None:
    world = flam_rl.load_world("pucks")
    encoded = encode(world, Video((film_of(9100, 24, goal="reach", pucks=4, looks=4),)))
    now, inferred = encoded.opening(0, 2, 1)
    again, further = encoded.opening(0, 2, 5)
    assert again is now
    assert torch.equal(further[:1], inferred)
    alone, latent_actions = world.model.opening(torch.as_tensor(encoded.frames[0][:8]), 2, 5)
    assert torch.allclose(alone.factors, now.factors, atol=1e-4)
    assert torch.allclose(alone.context, now.context, atol=1e-4)
    assert torch.allclose(latent_actions, further, atol=1e-3)


@pytest.mark.learning
def test_factors_of_no_fixed_entity_have_no_dci_by_their_number() -> None:
    world = flam_rl.load_world("pucks")
    episodes = list(record_episodes(gym.make("flam_rl/Pucks-v0", pucks=4, looks=4, max_steps=12), 48, 3))
    video = Video(tuple(episode.frames for episode in episodes))
    encoded = encode(world, video, truths_of([episode.entities for episode in episodes]))
    assert correspondence.measure(encoded, encoded.truth) is None
    assert disentanglement.measure(encoded, encoded.truth, iterations=2) is not None


@pytest.mark.learning
def test_the_shipped_pucks_world_holds_on_fresh_video() -> None:
    """Bars of the first rung: 35 and 32 dB, no identity lost; the world's background is that of its task."""
    world = flam_rl.load_world("pucks")
    fresh = [film_of(seed, goal="reach", pucks=4, looks=4) for seed in range(9000, 9008)]
    long = Video(tuple(film for film in fresh if len(film) > 16))
    found = measure_prediction(encode(world, long))["psnr"]
    assert found["1"] > 35
    assert found["15"] > 32
    env = gym.make("FLAM-v0", world="pucks")  # without labels all factors are the caller's
    assert env.action_space.shape == (world.factors * world.latent_action_dim,)
    observation, _ = env.reset(seed=0)
    for _ in range(5):
        observation, reward, terminated, *_ = env.step(env.action_space.sample())
        assert observation in env.observation_space
        assert (reward, terminated) == (0, False)
    assert env.render().shape == (64, 64, 3)
