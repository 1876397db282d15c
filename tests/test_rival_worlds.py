"""Worlds of rivals behind the verbs of every world: measured, saved, imagined, acted in."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from rivals import CODES, KINDS, make_model, model_input
from tiles import tile_world
from vector_quantize_pytorch import VectorQuantize

import flam_rl
from flam_rl.actions import ActionSpace
from flam_rl.agents.ppo import ImaginationConfig, train_in_imagination
from flam_rl.core.adapters import make_adapter
from flam_rl.core.agent import Agents
from flam_rl.core.heads import EventHead, Labels
from flam_rl.core.world import World
from flam_rl.envs import DecodedEnv
from flam_rl.envs.flam_vector_env import FLAMVectorEnv
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.measure import measure_world
from flam_rl.evaluation.truth import truths_of
from flam_rl.grounding import ActionAdapter
from flam_rl.models.rivals.rival import Coded, Continuous
from flam_rl.models.tiles.flam import FLAM
from flam_rl.models.tiles.tokenizer import Tokenizer, TokenizerConfig
from flam_rl.types import LabelledTransitions, Video


@pytest.fixture(params=KINDS)
def rival(request: pytest.FixtureRequest) -> World:
    """An untrained world of every kind."""
    model = make_model(request.param)
    if any(
        isinstance(part, VectorQuantize) for part in model.modules()
    ):  # codebooks are made from the first batch
        model.train().act(model.factorize(torch.randint(CODES, (20, 5, 16))), 0.0)
    tokenizer = Tokenizer(TokenizerConfig(codebook_size=CODES), (32, 32))
    tokenizer.quantizer._codebook.embed.normal_()  # codes that coincide are not saved
    return tile_world(tokenizer, model, torch.randint(CODES, (6, model.window, 16)))


def test_every_rival_is_measured(rival: World) -> None:
    rng = np.random.default_rng(0)
    video = Video(tuple(rng.integers(0, 256, (17, 32, 32, 3), np.uint8) for _ in range(5)))
    shapes = {"position": (17, 3, 2), "direction": (17, 3), "action": (17, 3)}
    entities = [{key: rng.integers(0, 4, shape) for key, shape in shapes.items()} for _ in range(5)]
    found = measure_world(encode(rival, video, truths_of(entities)), None, 0, probe_iterations=2)
    assert all(0 < found["psnr"][horizon] < 100 for horizon in ("1", "5", "15"))
    assert found["dci"] is not None
    assert len(found["kl_per_factor"]) == rival.model.latent_actions
    if isinstance(rival.model.code_model, Continuous):
        assert set(found["psnr_by_code"].values()) == {None}
    elif isinstance(rival.model.code_model, Coded):  # what they infer is a code already
        found["psnr"].pop("floors")
        assert found["psnr_by_code"] == pytest.approx(found["psnr"])
    else:
        assert isinstance(rival.model.code_model, FLAM)
        assert found["psnr_by_code"]["1"] > 0
        codebook = rival.model.action_codes
        assert torch.equal(rival.model.nearest_codes(codebook + 1e-4), codebook)


def test_verbs_have_their_shapes(rival: World) -> None:
    model = rival.model
    z = model_input(model.code_model, torch.randint(CODES, (2, 5, 16)))
    factors = model.factorize(z)
    assert factors.shape == (2, 5, rival.factors, rival.factor_dim)
    assert torch.allclose(factors.square().mean(-1), torch.ones(2, 5, rival.factors), atol=1e-3)
    latent = rival.infer_actions(factors)
    assert latent.mean.shape == (2, 4, rival.latent_actions, rival.latent_action_dim)
    unrolled = model.unroll(factors[:, 0], latent.mean)
    assert torch.allclose(unrolled.square().mean(-1), torch.ones(2, 5, rival.factors), atol=1e-3)
    frame = model.aggregate(unrolled)
    assert frame.log_probs_BNV.shape == (2, 5, 16, CODES)
    assert frame.masks_BKN.shape == (2, 5, rival.factors, 16)
    prior = rival.prior(factors[:, 0])
    assert prior.sample().shape == (2, rival.latent_actions, rival.latent_action_dim)
    assert prior.log_prob(prior.sample()).shape == (2, rival.latent_actions)


def test_all_have_as_many_latent_dims(rival: World) -> None:
    dims = rival.latent_actions * rival.latent_action_dim
    assert dims == 3 * 4
    assert rival.latent_actions == (3 if rival.model.kind == "flam" else 1)


def test_a_saved_rival_is_the_same_world(rival: World, tmp_path: Path) -> None:
    flam_rl.save_world(rival, tmp_path / "world")
    loaded = flam_rl.load_world(tmp_path / "world")
    assert type(loaded.model.code_model) is type(rival.model.code_model)
    before, after = rival.state_dict(), loaded.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_unknown_model_is_named(rival: World, tmp_path: Path) -> None:
    flam_rl.save_world(rival, tmp_path / "world")
    path = tmp_path / "world" / "config.json"
    path.write_text(path.read_text().replace(f'"model": "{rival.model.kind}"', '"model": "dreamer"'))
    with pytest.raises(ValueError, match=r"model: Input should be 'flam', 'genie'.*found 'dreamer'"):
        flam_rl.load_world(tmp_path / "world")


@pytest.mark.filterwarnings("ignore:.*symmetric and normalized.*")
@pytest.mark.parametrize("control", ["all", [0]])
def test_a_rival_is_an_env(rival: World, control: object) -> None:
    env = gym.make("FLAM-v0", world=rival, control=control, horizon=5)
    check_env(env.unwrapped, skip_render_check=False)
    env.reset(seed=0)
    seen = [env.step(np.full(env.action_space.shape, 0.5, np.float32))[0] for _ in range(3)]
    env.reset(seed=0)
    again = [env.step(np.full(env.action_space.shape, 0.5, np.float32))[0] for _ in range(3)]
    assert np.array_equal(seen, again)


def test_one_latent_action_moves_the_scene(rival: World) -> None:
    with pytest.raises(ValueError, match=f"indices 0 to {rival.latent_actions - 1}"):
        FLAMVectorEnv(2, rival, control=[rival.latent_actions])


def test_codes_are_snapped_to_and_counted(rival: World) -> None:
    model = rival.model.code_model
    factors = rival.start(7).factors
    wanted = torch.randn(7, rival.latent_action_dim)
    if isinstance(model, Continuous):
        assert torch.equal(rival.snap(factors, 0, wanted), wanted)
    if isinstance(model, Coded):
        snapped = rival.snap(factors, 0, wanted)
        assert torch.equal(model.latent_action_of(model.code_of(snapped)), snapped)
        assert torch.allclose(snapped, model.latent_action_of(model.code_of(wanted)))
        one = model.latent_action_of(torch.zeros(1, len(model.frequency_GM), dtype=torch.long))
        model.count(one.expand(1000, -1))
        assert (model.frequency_GM[:, 0] > 0.9).all()
        assert torch.allclose(model.frequency_GM.sum(-1), torch.ones(len(model.frequency_GM)))
        drawn = model.sample_actions(rival.start(500).factors, torch.Generator().manual_seed(0))
        assert ((drawn - one).abs().amax((1, 2)) < 1e-6).float().mean() > 0.5


def test_imagination_without_control_draws_from_the_prior(rival: World) -> None:
    rollout = rival.imagine(lambda seen: seen, rival.start(4), 3, generator=torch.Generator().manual_seed(0))
    assert rollout.latent_actions_BTLA.shape == (4, 3, rival.latent_actions, rival.latent_action_dim)
    if rival.model.kind != "copy":
        assert rollout.latent_actions_BTLA.std(0).max() > 0


def test_gradients_reach_a_policy_through_a_rival(rival: World) -> None:
    policy = torch.nn.Linear(rival.factors * rival.factor_dim, rival.latent_action_dim)
    rollout = rival.imagine(policy, rival.start(3), 2, controlled=[0])
    if rival.model.kind == "copy":  # nothing ever moves
        assert not rollout.factors_BTKS.requires_grad
        return
    rollout.factors_BTKS.square()[..., 0].sum().backward()
    assert policy.weight.grad is not None
    assert policy.weight.grad.abs().sum() > 0


@pytest.mark.learning
def test_labels_fit_a_rival(rival: World) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (4, 21, 32, 32, 3), dtype=np.uint8)
    actions = rng.integers(0, 4, (4, 20))
    zeros = np.zeros((4, 20))
    labelled = LabelledTransitions(
        tuple(frames), tuple(actions), tuple(zeros), tuple(zeros.astype(bool)), ActionSpace.discrete(4)
    )
    if rival.model.needs_actions:
        with pytest.raises(ValueError, match="nothing to fit"):
            ActionAdapter.fit(rival, labelled)
        return
    adapter = ActionAdapter.fit(rival, labelled)
    assert len(adapter.accuracy) == rival.factors

    class Task(gym.Env):
        observation_space = gym.spaces.Box(0, 255, (32, 32, 3), np.uint8)
        action_space = gym.spaces.Discrete(4)

        def reset(self, *, seed=None, options=None):
            return frames[0, 0], {}

        def step(self, action):
            return frames[0, 1], 0.0, False, False, {}

    env = DecodedEnv(Task(), rival, adapter)
    env.reset()
    assert env.step(env.action_space.sample())[0].shape == env.observation_space.shape


@pytest.mark.learning
def test_ppo_trains_in_imagination_of_a_rival(rival: World) -> None:
    if rival.model.needs_actions:
        return
    heads = [EventHead(rival.factor_dim, (0,), 1.0) for _ in range(2)]
    moves = ActionSpace.discrete(4)
    adapter = make_adapter(rival.factor_dim, rival.latent_action_dim, moves)
    rival.labels = Labels(Agents(moves, [rival.factors - 1], [[0]], [adapter]), *heads, budget=10)
    rival.requires_grad_(False)
    config = ImaginationConfig(steps=256, num_envs=8, rollout=16, batch=64, checks=1)
    model, history = train_in_imagination(rival, config)
    assert model.action_space.shape == (rival.latent_action_dim,)
    assert all(0 <= found.plausible <= 1 for found in history)
