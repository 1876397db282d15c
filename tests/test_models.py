"""The parts of the world model: shapes (watched by jaxtyping), gradients, invariants."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from tiles import tile_world

from flam_rl.actions import ActionSpace
from flam_rl.core.adapters import make_adapter
from flam_rl.core.agent import Agents
from flam_rl.core.heads import EventHead, Labels
from flam_rl.core.layers import sincos_positions, unit_rms
from flam_rl.core.world import World
from flam_rl.models.tiles.aggregator import AggregatorConfig
from flam_rl.models.tiles.binding import code_statistics, coherent_keys
from flam_rl.models.tiles.code_model import CodeFacts, FLAMConfig
from flam_rl.models.tiles.factorizer import FactorizerConfig
from flam_rl.models.tiles.flam import FLAM
from flam_rl.models.tiles.tokenizer import Tokenizer, TokenizerConfig

SMALL = FLAMConfig(FactorizerConfig(factors=3, factor_dim=16, hidden=32))
GRID = (4, 4)


def make_facts(config: FLAMConfig = SMALL) -> CodeFacts:
    torch.manual_seed(0)
    factors = config.factorizer.factors
    return CodeFacts(
        looks_VP=torch.rand(10, 12),
        codebook_VD=torch.randn(10, 8),
        keys_VE=torch.randn(10, factors + 1),
        queries_KE=torch.randn(factors + 1, factors + 1),
        frequency_V=torch.full((10,), 0.1),
        activity_V=torch.rand(10),
        background_NV=torch.full((16, 10), 0.1),
        grid=GRID,
    )


def make_flam(config: FLAMConfig = SMALL) -> FLAM:
    return FLAM(config, make_facts(config))


def small_world(config: FLAMConfig) -> World:
    """An untrained world that rewards whatever is entered."""
    flam = make_flam(config)
    flam.train().act(
        flam.factorize(torch.randint(10, (40, 3, 16))), 0.0
    )  # codebooks are made from a first batch
    moves = ActionSpace.discrete(4)
    agents = Agents(moves, [0], [[0]], [make_adapter(16, flam.latent_action_dim, moves)])
    labels = Labels(agents, EventHead(16, (0,), 2.0), EventHead(16, (1,), 1.0), 9)
    labels.reward.net.bias_1.data.fill_(9.0)
    starts = torch.randint(10, (4, flam.window, 16))
    return tile_world(Tokenizer(TokenizerConfig(patch=2), (8, 8)), flam, starts, labels=labels)


CONFIGS = {
    "default": SMALL,
    "paper's aggregator": replace(SMALL, aggregator=AggregatorConfig(kind="transformer", hidden=32)),
    "paper's objective": replace(SMALL, objective="features"),
    "no temporal attention": replace(SMALL, factorizer=replace(SMALL.factorizer, temporal_attention=False)),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_parameter_moves(config: FLAMConfig) -> None:
    flam = make_flam(config)
    before = {name: value.clone() for name, value in flam.named_parameters()}
    optimizer = torch.optim.AdamW(flam.parameters(), 1e-2, weight_decay=0.0)
    z = torch.randint(10, (6, 5, 16))
    for _ in range(3):  # some layers start at zero and wait for the one after them
        loss, metrics = flam.loss(z, beta=1e-3)
        factors = flam.factorize(z).detach()
        places = flam.aggregator.places(factors).detach()
        loss = loss + flam.prior_loss(factors[:, 0], places[:, 0], places[:, 1], torch.randint(16, (6, 3)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    still = [name for name, value in flam.named_parameters() if torch.equal(before[name], value)]
    assert still == []
    assert all(value.isfinite().all() for value in metrics.values())


def test_factors_have_unit_rms_however_long_the_unroll() -> None:
    flam = make_flam().eval()
    factors = flam.factorize(torch.randint(10, (2, 3, 16)))
    assert torch.allclose(factors.square().mean(-1), torch.ones(2, 3, 3), atol=1e-4)
    rollout = flam.unroll(factors[:, 0], 3 * torch.randn(2, 100, 3, 4))
    assert rollout.shape == (2, 101, 3, 16)
    assert torch.allclose(rollout.square().mean(-1), torch.ones(2, 101, 3), atol=1e-4)


def test_large_batches_are_factorized_as_small_ones() -> None:
    flam = make_flam().eval()
    z = torch.randint(10, (20, 3, 16))
    small = torch.cat([flam.factorize(part) for part in z.split(1)])
    assert torch.allclose(flam.factorize(z), small, atol=1e-5)


def test_factorizer_is_causal() -> None:
    flam = make_flam().eval()
    torch.nn.init.normal_(flam.factorizer.past.out.weight)
    z = torch.randint(10, (1, 8, 16))
    changed = z.clone()
    changed[:, 5:] = (changed[:, 5:] + 1) % 10
    before, after = flam.factorize(z), flam.factorize(changed)
    assert torch.allclose(before[:, :5], after[:, :5], atol=1e-5)
    assert not torch.allclose(before[:, 5:], after[:, 5:], atol=1e-3)


def test_temporal_attention_sees_only_its_window() -> None:
    flam = make_flam().eval()
    torch.nn.init.normal_(flam.factorizer.past.out.weight)
    z = torch.randint(10, (1, 8, 16))
    window = SMALL.factorizer.window
    alone = flam.factorize(z[:, -window:])[:, -1]
    assert torch.allclose(flam.factorize(z)[:, -1], alone, atol=1e-5)


def test_a_latent_action_acts_on_its_own_factor_only() -> None:
    flam = make_flam().eval()
    factors = unit_rms(torch.randn(1, 3, 16))
    latent = torch.zeros(1, 3, 4)
    pushed = latent.clone()
    pushed[:, 1] = 2.0
    moved = (flam.step(factors, latent) - flam.step(factors, pushed)).abs().amax(-1)[0]
    assert moved[1] > 1e-3
    assert moved[[0, 2]].max() == 0


@pytest.mark.parametrize("kind", ["competitive", "transformer"])
def test_aggregated_frames_are_distributions(kind: str) -> None:
    flam = make_flam(replace(SMALL, aggregator=AggregatorConfig(kind=kind, hidden=32))).eval()
    frame = flam.aggregate(unit_rms(torch.randn(2, 3, 16)))
    assert torch.allclose(frame.log_probs_BNV.exp().sum(-1), torch.ones(2, 16), atol=1e-3)
    assert frame.masks_BKN.min() >= 0
    assert frame.masks_BKN.sum(-2).max() <= 1 + 1e-4


def test_the_background_starts_without_what_moves() -> None:
    facts = make_facts()
    moving = facts.keys_VE[:, -1] <= 0
    drawn = FLAM(SMALL, facts).aggregator.background_NV.softmax(-1)
    assert 0 < moving.sum() < len(moving)
    assert drawn[:, moving].max() < 1e-3
    assert drawn[:, ~moving].min() > 0.1


def test_parts_start_with_what_moves() -> None:
    facts = make_facts()
    moving = facts.keys_VE[:, -1] <= 0
    aggregator = FLAM(SMALL, facts).aggregator
    torch.nn.init.constant_(aggregator.background_N, -1e3)  # parts draw everything
    drawn = aggregator(unit_rms(torch.randn(2, 3, 16))).log_probs_BNV.exp()
    assert drawn[..., ~moving].max() < 1e-3
    assert drawn[..., moving].min() > 0.05


def test_prior_sees_only_what_moved_before() -> None:
    flam = make_flam().eval()
    prior, others = flam.latent_action_prior, ~torch.eye(3, dtype=torch.bool)
    now = unit_rms(torch.randn(1, 3, 16))
    places, then, other = (torch.rand(1, 3, 16) for _ in range(3))
    nobody = torch.zeros(1, 3, 3, dtype=torch.bool)
    unmoved = prior.logits(now, others, places)
    assert torch.allclose(prior.logits(now, others, places, then, nobody), unmoved, atol=1e-5)
    one = nobody.clone()
    one[:, 2, 0] = True
    one[:, 1, 1] = True  # itself, which does not count
    seen = prior.logits(now, others, places, then, one)
    differs = (seen - prior.logits(now, others, places, other, one)).abs().amax(-1)[0]
    assert differs[2] > 0
    assert differs[:2].max() == 0


def test_prior_is_a_mixture_over_the_action_codes() -> None:
    flam = make_flam().eval()
    mixture = flam.prior(unit_rms(torch.randn(2, 3, 16)))
    assert mixture.sample().shape == (2, 3, 4)
    assert torch.equal(mixture.component_distribution.base_dist.mean[0, 0], flam.latent_action_prior.codebook)


def test_patches_and_back() -> None:
    tokenizer = Tokenizer(TokenizerConfig(patch=4, hidden=16), (12, 8))
    frames = torch.randint(256, (2, 3, 12, 8, 3), dtype=torch.uint8)
    patches = tokenizer.patches(frames)
    assert patches.shape == (2, 3, 6, 48)
    assert torch.equal(tokenizer.unpatch(patches), frames)
    assert torch.equal(patches[0, 0, 1].view(4, 4, 3), frames[0, 0, :4, 4:])


def test_frames_must_divide_into_patches() -> None:
    with pytest.raises(ValueError, match="64x60 do not divide into patches of 8"):
        Tokenizer(TokenizerConfig(), (64, 60))


def test_positions_differ_everywhere() -> None:
    positions = sincos_positions(6, 9, 32)
    assert torch.cdist(positions, positions).fill_diagonal_(9).min() > 0.3
    with pytest.raises(ValueError, match="multiple of 4"):
        sincos_positions(2, 2, 6)


def wandering(seed: int, frames: int = 400, entities: int = 3, looks: int = 2) -> np.ndarray:
    """Codes of entities that walk over an empty 6x6 grid and change between `looks` looks of their own."""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, 6, (entities, 2))
    episode = np.zeros((frames, 6, 6), np.int64)
    for t in range(frames):
        for e in range(entities):
            places[e] = (places[e] + rng.integers(-1, 2, 2)).clip(0, 5)
            episode[t, places[e][0], places[e][1]] = 1 + e * looks + rng.integers(looks)
    return episode.reshape(frames, -1)


@pytest.mark.parametrize("seed", range(3))
def test_looks_that_turn_into_each_other_get_one_factor(seed: int) -> None:
    episodes = [wandering(seed)]
    statistics = code_statistics(episodes, (6, 6), 8)
    keys, queries = coherent_keys(statistics, factors=3, seed=seed)
    factor = (keys @ queries.T).argmax(1)
    assert factor[0] == 3  # the empty floor is the background
    assert len({factor[1], factor[3], factor[5]}) == 3
    assert factor[1] == factor[2]
    assert factor[3] == factor[4]
    assert factor[5] == factor[6]


def test_more_factors_than_moving_codes_is_explained() -> None:
    statistics = code_statistics([wandering(0)], (6, 6), 8)
    with pytest.raises(ValueError, match="9 factors asked for, but only 6 codes move"):
        coherent_keys(statistics, factors=9)


def test_code_statistics_of_a_known_video() -> None:
    codes = np.array([[0, 1], [1, 0], [1, 0]])
    found = code_statistics([codes], (1, 2), 2)
    assert found.frequency.tolist() == [0.5, 0.5]
    assert found.activity.tolist() == [0.5, 0.5]
    assert found.background[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    # Both tokens changed, and each sees both: 0 meets 0 and 1, 1 meets 0 and 1.
    assert found.becomes.tolist() == [[1, 1], [1, 1]]


@pytest.mark.parametrize("kind", ["competitive", "transformer"])
@torch.inference_mode()
def test_an_imagination_keeps_the_weights_that_it_was_made_with(kind: str) -> None:
    world = small_world(replace(SMALL, aggregator=AggregatorConfig(kind=kind, hidden=32)))
    imagination = world.imagination([0], events=True)

    def steps() -> list[torch.Tensor]:
        state = imagination.begin(start)
        state, taken = imagination.step(state, wanted, torch.Generator().manual_seed(0))
        return [*state, *taken]

    start, wanted = unit_rms(torch.randn(5, 3, 16)), torch.randn(5, 1, world.latent_action_dim)
    before = steps()
    assert before[4].any()  # rewards
    for tensor in [*world.parameters(), *world.buffers()]:
        if tensor.is_floating_point():
            tensor.mul_(-1.5).add_(0.1)
    assert all(torch.equal(one, other) for one, other in zip(before, steps(), strict=True))
    assert not torch.allclose(world.imagination([0]).begin(start).places_KBN, before[1])
