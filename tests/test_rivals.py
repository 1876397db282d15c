"""Rivals of FLAM: their sizes, latent actions, codes and priors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rivals import CODES, CONFIG, TRAINED, make_model, model_input
from tiles import tile_world

from flam_rl.core.layers import linears, parameters
from flam_rl.core.registry import ModelName
from flam_rl.models.build import BuildConfig, check_build
from flam_rl.models.rivals.playslot import PlaySlot
from flam_rl.models.rivals.rival import Coded
from flam_rl.models.rivals.scene import DIM, SceneModel
from flam_rl.models.tiles.aggregator import AggregatorConfig
from flam_rl.models.tiles.clips import with_actions
from flam_rl.models.tiles.code_model import CodeFacts, FLAMConfig
from flam_rl.models.tiles.dynamics import DynamicsConfig
from flam_rl.models.tiles.factorizer import FactorizerConfig
from flam_rl.models.tiles.kinds import CODE_MODELS
from flam_rl.models.tiles.tokenizer import Tokenizer, TokenizerConfig


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
