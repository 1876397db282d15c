"""Imagination: the fused step against the parts it is made of, its randomness and its gradients."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from flam_rl.actions import ActionSpace
from flam_rl.core.adapters import make_adapter
from flam_rl.core.agent import Agents
from flam_rl.core.codes import PLAUSIBLE, plausible
from flam_rl.core.heads import DenseHead, EventHead, FrozenEvents, Labels
from flam_rl.core.layers import FrozenLinear
from flam_rl.core.threads import LoneThreads, lone_threads, one_core
from flam_rl.core.world import World
from flam_rl.models.tiles.aggregator import AggregatorConfig
from flam_rl.models.tiles.code_model import CodeFacts, FLAMConfig
from flam_rl.models.tiles.factorizer import FactorizerConfig
from flam_rl.models.tiles.flam import FLAM
from flam_rl.models.tiles.stepper import Imagination, Imagined


def plain_step(
    flam: FLAM, factors_KS: torch.Tensor, wanted_CA: torch.Tensor, order: list[int], chance: list[float]
) -> tuple[torch.Tensor, torch.Tensor]:
    """One world, one factor after the other, by the public parts alone: what the fused step must equal."""
    prior = flam.latent_action_prior
    factors = factors_KS[None]
    seen = flam.forward_dynamics.look(factors)
    places = flam.aggregator.places(factors)
    following, next_places = torch.zeros_like(factors), torch.zeros_like(places)
    taken = torch.zeros(flam.factors, flam.latent_action_dim)
    moved = torch.zeros(flam.factors, dtype=torch.bool)
    for turn, factor in enumerate(order):
        others = torch.arange(flam.factors)[None] != factor
        logits = prior.logits(factors[:, factor, None], others, places, next_places, moved[None])
        probs = logits[0, 0].softmax(-1)
        allowed = [code for code in range(len(probs)) if probs[code] >= PLAUSIBLE]
        if turn < len(wanted_CA):
            code = min(
                allowed, key=lambda code: float((prior.codebook[code] - wanted_CA[turn]).square().sum())
            )
        else:
            goal = chance[turn] * float(sum(probs[code] for code in allowed))
            code = next(c for c in allowed if float(sum(probs[d] for d in allowed if d <= c)) > goal)
        taken[factor] = prior.codebook[code]
        following[:, factor] = flam.forward_dynamics.move(
            factors[:, factor], seen[:, factor], taken[factor, None]
        )
        next_places[:, factor] = flam.aggregator.places(following[:, factor, None])[:, 0]
        moved[factor] = True
    return following[0], taken


@torch.inference_mode()
def test_a_fixed_seed_rollout_equals_the_plain_reference(world: World) -> None:
    imagination, worlds = world.imagination([2]), 6
    wanted = torch.randn(worlds, 1, world.latent_action_dim)
    state = imagination.begin(world.start(worlds, torch.Generator().manual_seed(0)).factors)
    plain = state.factors_BKS.clone()
    for step in range(10):
        generator = torch.Generator().manual_seed(step)
        rest = torch.rand(world.factors - 1, generator=generator).argsort()
        order = [2, *torch.tensor([0, 1, 3])[rest].tolist()]
        chance = torch.rand(world.factors, worlds, 1, generator=generator)
        state, taken = imagination.step(state, wanted, torch.Generator().manual_seed(step))
        expected = [
            plain_step(world.model.code_model, plain[b], wanted[b], order, chance[:, b, 0].tolist())
            for b in range(worlds)
        ]
        plain = torch.stack([factors for factors, _ in expected])
        assert torch.equal(taken.latent_actions_BLA, torch.stack([actions for _, actions in expected]))
        assert torch.allclose(state.factors_BKS, plain, atol=1e-4)
    assert torch.allclose(
        state.places_KBN.transpose(0, 1), world.model.code_model.aggregator.places(plain), atol=1e-4
    )


@pytest.mark.parametrize(
    ("factors", "grid", "kind", "controlled"),
    [
        (1, (3, 5), "competitive", [0]),
        (3, (5, 2), "competitive", [2, 0]),
        (3, (2, 6), "transformer", [1]),
        (10, (3, 4), "competitive", []),
    ],
)
@torch.inference_mode()
def test_the_step_equals_the_reference_whatever_the_sizes(
    factors: int, grid: tuple[int, int], kind: str, controlled: list[int]
) -> None:
    torch.manual_seed(1)
    config = FLAMConfig(
        FactorizerConfig(factors=factors, factor_dim=16, hidden=32),
        aggregator=AggregatorConfig(kind=kind, hidden=32),
    )
    flam = FLAM(config, CodeFacts.blank(config, grid, codes=9, pixels=12, code_dim=8)).eval()
    flam.latent_action_prior.codebook.copy_(torch.randn(16, 4))
    start = torch.nn.functional.rms_norm(torch.randn(6, factors, 16), (16,))
    wanted, chance = torch.randn(6, len(controlled), 4), torch.rand(factors, 6, 1)
    order = controlled + [factor for factor in reversed(range(factors)) if factor not in controlled]
    imagination = Imagination(flam, controlled)
    state, taken = imagination._step(imagination.begin(start), wanted, torch.tensor(order), chance)
    for b in range(6):
        expected, actions = plain_step(flam, start[b], wanted[b], order, chance[:, b, 0].tolist())
        assert torch.equal(taken.latent_actions_BLA[b], actions)
        assert torch.allclose(state.factors_BKS[b], expected, atol=1e-5)


def test_the_most_likely_action_code_is_plausible_however_many_there_are() -> None:
    flat = torch.full((3, 100), 0.01)
    flat[:, 7] += 0.001
    assert plausible(flat).nonzero()[:, 1].tolist() == [7, 7, 7]
    peaked = torch.tensor([[0.9, 0.08, 0.015, 0.005]])
    assert plausible(peaked).tolist() == [[True, True, False, False]]


@torch.inference_mode()
def test_imagine_is_the_step_repeated(world: World) -> None:
    start = world.start(5, torch.Generator().manual_seed(0))
    rollout = world.imagine(lambda seen: seen[:, :4], start, 6, [1], torch.Generator().manual_seed(1))
    assert rollout.factors_BTKS.shape == (5, 7, world.factors, world.factor_dim)
    assert rollout.latent_actions_BTLA.shape == (5, 6, world.factors, world.latent_action_dim)
    assert rollout.log_prior_BTC.shape == (5, 6, 1)
    assert rollout.rewards_BT.shape == rollout.terminations_BT.shape == (5, 6)
    imagination, generator = world.imagination([1]), torch.Generator().manual_seed(1)
    state = imagination.begin(start.factors)
    for step in range(6):
        state, taken = imagination.step(state, state.factors_BKS.flatten(1)[:, None, :4], generator)
        assert torch.equal(state.factors_BKS, rollout.factors_BTKS[:, step + 1])
        assert torch.equal(taken.latent_actions_BLA, rollout.latent_actions_BTLA[:, step])
    reward, end = world.labels.judge(state.factors_BKS)
    assert torch.allclose(reward, rollout.rewards_BT[:, -1])
    assert torch.allclose(end, rollout.terminations_BT[:, -1])


def test_gradients_flow_through_imagination_to_the_policy(world: World) -> None:
    policy = torch.nn.Linear(world.factors * world.factor_dim, world.latent_action_dim)
    start = world.start(32, torch.Generator().manual_seed(0))
    rollout = world.imagine(policy, start, 4, [0], torch.Generator().manual_seed(1))
    rollout.rewards_BT.sum().backward()
    assert policy.weight.grad is not None
    assert torch.isfinite(policy.weight.grad).all()
    assert policy.weight.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in world.parameters())


@torch.inference_mode()
def test_only_plausible_actions_are_taken(world: World) -> None:
    factors = world.start(64, torch.Generator().manual_seed(0)).factors
    wanted = 6 * torch.rand(64, 1, world.latent_action_dim) - 3
    imagination = world.imagination([2])
    taken, likelihood, *_ = imagination.step(imagination.begin(factors), wanted)[1]
    codebook = world.model.code_model.latent_action_prior.codebook
    code = torch.cdist(taken[:, 2], codebook).argmin(-1)
    probability = world.model.code_model.prior_logits(factors)[:, 2].softmax(-1).gather(-1, code[:, None])
    assert probability.min() >= PLAUSIBLE
    assert likelihood.shape == (64, 1)
    assert torch.allclose(world.snap(factors, 2, wanted[:, 0]), taken[:, 2])


@pytest.mark.learning
@torch.inference_mode()
def test_uncontrolled_factors_take_what_the_prior_weighs(world: World) -> None:
    """Codes of the factor that moves first, drawn 20,000 times from one state, against the prior itself."""
    factors = world.start(1, torch.Generator().manual_seed(3)).factors
    probs = world.model.code_model.prior_logits(factors)[0, 1].softmax(-1)
    expected = torch.where(probs >= PLAUSIBLE, probs, 0)
    imagination = world.imagination()
    state = imagination.begin(factors.expand(20_000, -1, -1))
    chance = torch.rand(world.factors, 20_000, 1, generator=torch.Generator().manual_seed(0))
    taken = imagination._step(state, None, torch.tensor([1, 0, 2, 3]), chance)[1].latent_actions_BLA[:, 1]
    code = torch.cdist(taken, world.model.code_model.latent_action_prior.codebook).argmin(-1)
    found = torch.bincount(code, minlength=len(probs)) / 20_000
    assert torch.allclose(found, expected / expected.sum(), atol=0.015)


@pytest.mark.learning
@torch.inference_mode()
def test_bfloat16_products_draw_the_same_frames_after_15_steps(world: World) -> None:
    # Enough for all but the smallest products.
    start = world.start(2048, torch.Generator().manual_seed(0))
    rollout = world.imagine(lambda seen: seen, start, 15, generator=torch.Generator().manual_seed(1))
    factors = []
    for dtype in (torch.float32, torch.bfloat16):
        actions = iter(rollout.latent_actions_BTLA.unbind(1))
        again = world.imagine(
            lambda seen, a=actions: next(a).flatten(1), start, 15, range(world.factors), dtype=dtype
        )
        factors.append(again.factors_BTKS[:, -1])
    exact, rounded = (world.model.aggregate(found).log_probs_BNV.argmax(-1) for found in factors)
    assert not torch.equal(*factors)
    assert (exact == rounded).float().mean() >= 0.999


def test_a_product_is_rounded_where_that_is_faster() -> None:
    linear = torch.nn.Linear(512, 512)
    frozen = FrozenLinear(linear.weight, linear.bias, torch.bfloat16)
    few, many = torch.randn(15, 512), torch.randn(16, 512)
    assert frozen(few).dtype == torch.float32
    assert torch.allclose(frozen(few), linear(few), atol=1e-5)  # sums in another order
    assert frozen(many).dtype == torch.bfloat16
    assert torch.allclose(frozen(many).float(), linear(many), atol=0.05)
    before = frozen(few)
    with torch.no_grad():
        linear.weight.zero_()
    assert torch.equal(frozen(few), before)


def test_pickles(world: World) -> None:
    imagination = world.imagination([1])
    other = pickle.loads(pickle.dumps(imagination))
    with torch.inference_mode():
        states = [
            one.begin(world.start(3, torch.Generator().manual_seed(0)).factors)
            for one in (imagination, other)
        ]
        first, second = (
            one.step(state, torch.zeros(3, 1, 4), torch.Generator().manual_seed(0))[0]
            for one, state in zip((imagination, other), states, strict=True)
        )
    assert isinstance(first, Imagined)
    assert torch.equal(first.factors_KBS, second.factors_KBS)


@pytest.mark.parametrize("controlled", [[], [3, 1]])
def test_any_factors_can_be_controlled(world: World, controlled: list[int]) -> None:
    imagination = world.imagination(controlled)
    wanted = torch.zeros(6, len(controlled), world.latent_action_dim) if controlled else None
    with torch.inference_mode():
        state, taken = imagination.step(imagination.begin(world.start(6).factors), wanted)
    assert state.factors_BKS.shape == (6, world.factors, world.factor_dim)
    assert taken.log_prior_BC.shape == (6, len(controlled))
    assert np.allclose(state.factors_KBS.square().mean(-1).numpy(), 1, atol=1e-4)


@pytest.mark.parametrize(
    ("reward_sees", "termination_sees"), [((1,), (1,)), ((0, 1, 2, 3), (1,)), ((2,), (0, 3))]
)
def test_events_in_two_products_are_those_of_the_heads(
    reward_sees: tuple[int, ...], termination_sees: tuple[int, ...]
) -> None:
    reward, termination = EventHead(8, reward_sees, 0.7), EventHead(8, termination_sees, 1.0)
    factors = torch.randn(200, 4, 8)
    moves = ActionSpace.discrete(4)
    agents = Agents(moves, [0], [[0]], [make_adapter(8, 4, moves)])
    found = FrozenEvents(Labels(agents, reward, termination, 10))(factors)
    assert torch.allclose(found[0], (reward(factors) > 0.5) * 0.7)
    assert torch.equal(found[1], termination(factors) > 0.5)
    assert 0 < found[1].float().mean() < 1


@pytest.mark.parametrize("worth", [0.7, -0.7])
@torch.no_grad()
def test_sure_events_are_those_that_no_head_doubts(worth: float) -> None:
    reward, termination = EventHead(8, (0, 2), worth), EventHead(8, (1,), 1.0)
    factors, moves = torch.randn(400, 4, 8), ActionSpace.discrete(4)
    agents = Agents(moves, [0], [[0]], [make_adapter(8, 4, moves)])
    labels = Labels(agents, reward, termination, 10)
    found, likely = FrozenEvents(labels, sure=True)(factors), FrozenEvents(labels)(factors)
    assert torch.equal(found[0], reward.agreed(factors))
    assert torch.equal(found[1], termination.agreed(factors) > 0)
    assert 0 < found[1].sum() < likely[1].sum()
    dense = DenseHead(8, (0, 2), mean=-2.0, scale=3.0)
    value, _ = FrozenEvents(Labels(agents, dense, termination, 10), sure=True)(factors)
    assert torch.allclose(value, dense.agreed(factors), atol=1e-5)


COMPILED = """
import sys, torch, flam_rl
from unittest import mock
threads, worlds, dtype = int(sys.argv[1]), int(sys.argv[2]), getattr(torch, sys.argv[3])
torch.set_num_threads(threads)
world = flam_rl.load_world("multigrid")
generator = torch.Generator().manual_seed(0)
with torch.inference_mode():
    start = world.start(worlds, generator).factors
    wanted = 3 * torch.randn(1, worlds, world.latent_action_dim, generator=generator).transpose(0, 1)
    state, reward, ended = [], [], []
    with mock.patch("torch._inductor.compile", wraps=torch._inductor.compile) as compiled:
        for compile in (False, True):
            imagination = world.imagination(world.labels.agents.factors, dtype, compile, events=True)
            now = imagination.begin(start)
            for step in range(3):
                now, taken = imagination.step(now, wanted, torch.Generator().manual_seed(step))
            state.append(now.factors_BKS), reward.append(taken.reward_B), ended.append(taken.ended_B)
differs = (state[0] - state[1]).abs().amax((1, 2)) > (1e-4 if dtype == torch.float32 else 0.05)
differs |= (reward[0] != reward[1]) | (ended[0] != ended[1])
print(differs.float().mean().item(), compiled.call_count, torch.get_num_threads())
settings = torch._inductor.config
assert settings.pattern_matcher and not settings.cpp_wrapper, "options of one compilation changed the process"
assert not torch._dynamo.utils.counters["stats"], "its cache misses now and then when threads look at once"
"""


@pytest.mark.learning
@pytest.mark.parametrize(
    ("threads", "worlds", "dtype", "compilations", "tolerated"),
    # Compiled for 33 and for 34 worlds; for 256. Rounding changes a code that is drawn, and then all that follows.
    [(3, 100, "float32", 2, 0.0), (1, 256, "bfloat16", 1, 0.1)],
)
def test_a_compiled_step_is_the_same_step_however_many_threads_share_it(
    threads: int, worlds: int, dtype: str, compilations: int, tolerated: float
) -> None:
    """In a process of its own, for its number of threads and what torch.compile counts."""
    command = [sys.executable, "-c", COMPILED, str(threads), str(worlds), dtype]
    ran = subprocess.run(command, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    differs, compiled, left = map(float, ran.stdout.split())
    assert differs <= tolerated
    assert (compiled, left) == (compilations, threads)


def test_lone_threads_use_one_core_each_and_leave_the_others_as_they_were() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    threads = LoneThreads(2)
    try:
        assert threads.map(lambda item: (item, torch.get_num_threads()), range(5)) == [
            (item, 1) for item in range(5)
        ]
        assert torch.get_num_threads() == 3
        with torch.inference_mode():
            assert all(threads.map(lambda _: torch.is_inference_mode_enabled(), range(2)))
        weight = torch.ones(2, requires_grad=True)
        sum(threads.map(lambda item: (item * weight).sum(), [1.0, 2.0])).backward()
        assert weight.grad.tolist() == [3.0, 3.0]
    finally:
        torch.set_num_threads(before)


def test_one_core_is_of_the_calling_thread_and_for_a_while() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with one_core():
            meanwhile = [torch.get_num_threads()]
            other = threading.Thread(target=lambda: meanwhile.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert meanwhile == [1, 3]
            assert lone_threads().run(threading.current_thread) is threading.current_thread()
        assert torch.get_num_threads() == 3
        with torch.no_grad():
            assert lone_threads().run(torch.get_num_threads) == 1
    finally:
        torch.set_num_threads(before)


FORKED = """
import os, sys, torch, flam_rl
torch.set_num_threads(2)
world = flam_rl.load_world("multigrid")
with torch.inference_mode():
    imagination = world.imagination()
    start = imagination.begin(world.start(4, torch.Generator().manual_seed(0)).factors)
    step = lambda: imagination.step(start, generator=torch.Generator().manual_seed(0))[0].factors_KBS
    here = step()
    child = os.fork()
    if child == 0:
        os._exit(0 if torch.equal(step(), here) else 1)
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.learning
def test_a_forked_process_has_threads_of_its_own() -> None:
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=120)


def test_a_missing_compiler_is_explained(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(ValueError, match=r"compile needs a C\+\+ compiler; none of .*g\+\+"):
        world.imagination(compile=True)
