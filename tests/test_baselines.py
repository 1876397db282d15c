"""FLAM's rivals: matched to it in size, and worlds like any other."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from tiles import tile_world
from vector_quantize_pytorch import VectorQuantize

import flam_rl
from flam_rl.actions import ActionSpace
from flam_rl.agents.ppo import ImaginationConfig, train_in_imagination
from flam_rl.core.adapters import make_adapter
from flam_rl.core.agent import Agents
from flam_rl.core.heads import EventHead, Labels
from flam_rl.core.layers import linears, parameters
from flam_rl.core.registry import TILE_MODELS, ModelName
from flam_rl.core.world import World
from flam_rl.envs import DecodedEnv
from flam_rl.envs.flam_vector_env import FLAMVectorEnv
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.measure import measure_world
from flam_rl.evaluation.truth import truths_of
from flam_rl.grounding import ActionAdapter
from flam_rl.models.build import BuildConfig, check_build
from flam_rl.models.rivals.playslot import PlaySlot
from flam_rl.models.rivals.rival import Coded, Continuous
from flam_rl.models.rivals.scene import DIM, SceneModel
from flam_rl.models.tiles.aggregator import AggregatorConfig
from flam_rl.models.tiles.clips import with_actions
from flam_rl.models.tiles.code_model import CodeFacts, CodeModel, FLAMConfig
from flam_rl.models.tiles.dynamics import DynamicsConfig
from flam_rl.models.tiles.factorizer import FactorizerConfig
from flam_rl.models.tiles.flam import FLAM
from flam_rl.models.tiles.kinds import CODE_MODELS
from flam_rl.models.tiles.tokenizer import Tokenizer, TokenizerConfig
from flam_rl.types import LabelledTransitions, Video

CODES, KINDS = 10, list(TILE_MODELS)
TRAINED: list[ModelName] = [name for name in TILE_MODELS if name != "copy"]
CONFIG = FLAMConfig(FactorizerConfig(factors=3))


def make_model(name: ModelName, config: FLAMConfig = CONFIG) -> CodeModel:
    torch.manual_seed(0)
    facts = CodeFacts(
        looks_VP=torch.rand(CODES, 192),
        codebook_VD=torch.randn(CODES, 32),
        keys_VE=torch.randn(CODES, 4),
        queries_KE=torch.randn(4, 4),
        frequency_V=torch.full((CODES,), 1 / CODES),
        activity_V=torch.rand(CODES),
        background_NV=torch.full((16, CODES), 1 / CODES),
        grid=(4, 4),
    )
    return CODE_MODELS[name](config, facts)


def model_input(model: CodeModel, z: torch.Tensor) -> torch.Tensor:
    """What the model sees: the oracle, actions as well."""
    if not model.NEEDS_ACTIONS:
        return z
    return torch.cat([z, torch.randint(1, 5, (*z.shape[:2], 3))], -1)


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


@pytest.mark.parametrize("name", TRAINED)
@pytest.mark.parametrize(("factors", "codes", "grid"), [(2, 64, (8, 8)), (8, 128, (8, 8)), (4, 64, (4, 6))])
def test_parameters_are_within_a_tenth_of_flams(
    name: ModelName, factors: int, codes: int, grid: tuple[int, int]
) -> None:
    config = FLAMConfig(FactorizerConfig(factors=factors))
    facts = CodeFacts.blank(config, grid, codes, 192, 32)
    own, theirs = parameters(CODE_MODELS[name](config, facts)), parameters(CODE_MODELS["flam"](config, facts))
    assert abs(own / theirs - 1) < 0.1


@pytest.mark.parametrize("name", ["genie", "genie-matched", "adaworld"])
@pytest.mark.parametrize(("factors", "window"), [(2, 1), (8, 1), (8, 4)])
def test_transformers_have_room_for_their_hidden_layers(name: ModelName, factors: int, window: int) -> None:
    """As many parameters as FLAM's are no fair match if attention takes them all."""
    config = FLAMConfig(FactorizerConfig(factors=factors, window=window))
    facts = CodeFacts.blank(config, (8, 8), 128, 192, 16)
    model = CODE_MODELS[name](config, facts)
    assert isinstance(model, SceneModel)
    hidden, _ = linears(model.encoder.net)
    assert hidden.out_features > 1.8 * DIM


@pytest.mark.parametrize("name", TRAINED)
def test_every_parameter_of_a_rival_moves(name: ModelName) -> None:
    model = make_model(name)
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2, weight_decay=0.0)
    z = model_input(model, torch.randint(CODES, (6, 5, 16)))
    for _ in range(3):
        loss, metrics = model.loss(z, beta=1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = {key for key, value in model.named_parameters() if torch.equal(before[key], value)}
    assert all(key.startswith("latent_action_prior") for key in still)  # FLAM's is trained afterwards
    assert all(value.isfinite().all() for value in metrics.values())


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


@pytest.mark.learning
@pytest.mark.parametrize("name", TRAINED)
def test_a_rival_learns_to_draw_and_predict(name: ModelName) -> None:
    torch.manual_seed(0)
    model = make_model(name)
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    one, two = torch.randint(CODES, (2, 1, 1, 16))
    first = torch.rand(32, 1, 1) < 0.5  # two frames, and every clip goes from one to the other or stays
    action = torch.randint(2, (32, 1, 1)).bool()
    z = torch.cat([torch.where(first, one, two), torch.where(first ^ action, one, two)], 1)
    if model.NEEDS_ACTIONS:
        z = torch.cat([z, (1 + action.long()).expand(-1, 2, 3)], -1)
    losses = []
    for _ in range(60):
        loss, metrics = model.loss(z, beta=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(metrics["prediction"] + metrics["reconstruction"]))
    assert losses[-1] < 0.5 * losses[0]


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
        assert torch.equal(model.of_code(model.code_of(snapped)), snapped)
        assert torch.allclose(snapped, model.of_code(model.code_of(wanted)))
        one = model.of_code(torch.zeros(1, len(model.frequency_GM), dtype=torch.long))
        model.count(one.expand(1000, -1))
        assert (model.frequency_GM[:, 0] > 0.9).all()
        assert torch.allclose(model.frequency_GM.sum(-1), torch.ones(len(model.frequency_GM)))
        drawn = model.sample_actions(rival.start(500).factors, torch.Generator().manual_seed(0))
        assert ((drawn - one).abs().amax((1, 2)) < 1e-6).float().mean() > 0.5


@pytest.mark.parametrize("name", ["playslot", "joint"])
def test_one_latent_action_for_all_factors_whatever_their_order(name: ModelName) -> None:
    model = make_model(name)
    factors = model.factorize(torch.randint(CODES, (2, 5, 16)))
    shuffled = factors[:, :, [2, 0, 1]]
    latent = model.infer_actions(factors)
    again = model.infer_actions(shuffled)
    assert torch.allclose(latent.mean, again.mean, atol=1e-5)
    assert torch.allclose(latent.stddev, again.stddev, atol=1e-5)
    moved = model.step(factors[:, 0], latent.mean[:, 0])
    assert torch.allclose(model.step(shuffled[:, 0], latent.mean[:, 0]), moved[:, [2, 0, 1]], atol=1e-4)


def test_playslots_latent_action_is_a_difference_of_frames() -> None:
    model = make_model("playslot")
    factors = model.factorize(torch.randint(CODES, (2, 5, 16)))
    forth, back = model.infer_actions(factors), model.infer_actions(factors.flip(1))
    assert forth.mean.abs().max() > 0
    assert torch.allclose(forth.mean, -back.mean.flip(1), atol=1e-5)
    assert torch.allclose(forth.stddev, back.stddev.flip(1), atol=1e-5)


def test_playslot_takes_a_latent_action_apart() -> None:
    model = make_model("playslot")
    assert isinstance(model, PlaySlot)
    model.train().act(model.factorize(torch.randint(CODES, (20, 5, 16))), 0.0)  # makes the prototypes
    latent = torch.randn(50, 1, 12, requires_grad=True)
    prototype, variability = model.condition(latent).chunk(2, -1)
    assert torch.allclose(prototype + variability, latent)
    distance = torch.cdist(latent.flatten(0, 1), model.quantizer.codebook)
    assert torch.allclose(variability.norm(dim=-1).flatten(), distance.amin(-1), atol=1e-4)
    for part in (prototype, variability):
        (gradient,) = torch.autograd.grad(part.sum(), latent, retain_graph=True)
        assert torch.equal(gradient, torch.ones_like(latent))


def test_playslots_prior_is_what_was_taken() -> None:
    model = make_model("playslot")
    assert isinstance(model, PlaySlot)
    model.train().act(model.factorize(torch.randint(CODES, (20, 5, 16))), 0.0)
    codebook = model.quantizer.codebook
    codebook.copy_(4 * torch.eye(8, 12))
    generator = torch.Generator().manual_seed(0)
    taken = codebook[torch.tensor([0] * 750 + [1] * 250)]
    model.count(taken + 0.3 * torch.randn(1000, 12, generator=generator))
    factors = model.factorize(torch.randint(CODES, (4000, 1, 16)))[:, 0]
    drawn = model.sample_actions(factors, generator)[:, 0]
    first = model.prototype_of(drawn) == 0
    assert first.float().mean() == pytest.approx(0.75, abs=0.03)
    assert torch.allclose(drawn[first].std(0), torch.full((12,), 0.3), atol=0.05)
    assert (
        model.prior(factors[:4]).log_prob(taken[:4, None]).min()
        > model.prior(factors[:4]).log_prob(codebook[5].expand(4, 1, -1)).max()
    )


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


def test_the_oracle_carries_what_it_is_told() -> None:
    model = make_model("oracle")
    z, actions = (
        torch.randint(CODES, (5, 16)),
        np.array([[-1] * 3, [0, 1, 2], [3, 3, 3], [0, 0, 0], [2, 1, 0]]),
    )
    factors = model.factorize(with_actions(z, actions)[None])
    assert isinstance(model, Coded)
    found = model.code_of(model.infer_actions(factors).mean)[0, :, 0]
    assert torch.equal(found, torch.as_tensor(actions[1:]))
    blind = model.factorize(z[None])
    assert torch.equal(blind[0, 0], factors[0, 0])
    assert torch.equal(model.aggregate(blind).log_probs_BNV, model.aggregate(factors).log_probs_BNV)


def test_the_oracle_without_actions_is_explained() -> None:
    tokenizer = Tokenizer(TokenizerConfig(codebook_size=CODES), (32, 32))
    world = tile_world(tokenizer, make_model("oracle"), torch.randint(CODES, (6, 4, 16)))
    with pytest.raises(ValueError, match="given true actions"):
        world.see(torch.zeros((1, 3, 32, 32, 3), dtype=torch.uint8))


def test_copy_last_frame_is_what_it_says() -> None:
    model = make_model("copy")
    z = torch.randint(CODES, (3, 4, 16))
    factors = model.factorize(z)
    drawn = model.aggregate(model.unroll(factors[:, 0], model.infer_actions(factors).mean)).log_probs_BNV
    assert torch.equal(drawn.argmax(-1), z[:, :1].expand(-1, 4, -1))


def test_tokens_must_divide_into_patches() -> None:
    config = FLAMConfig(FactorizerConfig(factors=3))
    with pytest.raises(ValueError, match="5x4 tokens do not divide into patches of 2x2"):
        CODE_MODELS["genie"](config, CodeFacts.blank(config, (5, 4), CODES, 192, 32))


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


def test_what_is_plausible_is_said_of_one_part() -> None:
    """With many codes the joint of all parts is always unlikely; that is not what imagination asks."""
    model = make_model("oracle")
    factors = model.factorize(torch.randint(CODES, (5, 1, 16)))[:, 0]
    _, log_prior = model.snap(factors, 0, torch.randn(5, model.latent_action_dim))
    assert torch.allclose(log_prior, torch.tensor(0.25).log().expand(5))


def test_codes_tell_their_entropy_and_not_more() -> None:
    model = make_model("oracle")
    actions = np.array([[0, 1, 2], [1, 1, 2], [2, 1, 2], [3, 1, 2], [0, 1, 2]])
    factors = model.factorize(with_actions(torch.randint(CODES, (5, 16)), actions)[None])
    assert model.nats(factors).tolist() == pytest.approx([np.log(4)], abs=1e-5)  # one of three acts


@pytest.mark.parametrize("actions", [np.full((5, 2), 1), np.full((5, 3), 4)])
def test_actions_that_the_oracle_cannot_take_are_explained(actions: np.ndarray) -> None:
    config = BuildConfig(model="oracle", flam=CONFIG)
    with pytest.raises(ValueError, match="the oracle has 3 entities with actions 0 to 3"):
        check_build(config, (32, 32), [actions])


def test_a_rival_that_cannot_be_as_large_is_refused() -> None:
    config = FLAMConfig(
        FactorizerConfig(factors=3, factor_dim=8, hidden=8),
        DynamicsConfig(hidden=8),
        AggregatorConfig(hidden=8),
    )
    with pytest.raises(ValueError, match="LAPO cannot be made as large as FLAM"):
        CODE_MODELS["lapo"](config, CodeFacts.blank(config, (4, 4), CODES, 192, 32))
