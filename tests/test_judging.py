"""What a policy reads of factors, and how imagination judges it."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from analytic import CODES, GOAL, POINTS, factors_of, points_world

from flam_rl.agents.factors_extractor import FactorsExtractor
from flam_rl.agents.ppo import Judgement, judge
from flam_rl.core.heads import Head
from flam_rl.core.world import World

RIGHT = 1
"""Index of the action code."""


class Always:
    """A policy that takes one action code."""

    def __init__(self, code: int) -> None:
        self.latent = CODES[code]

    def predict(self, seen: np.ndarray, deterministic: bool = False) -> tuple[np.ndarray, None]:
        return np.tile(self.latent, (len(seen), 1)), None


@pytest.fixture
def world() -> World:
    return points_world()


@torch.no_grad()
def put_off(head: Head, columns: float) -> None:
    """The last member's event is so many columns further on."""
    head.net.bias_1[-1] -= 200 * (factors_of(torch.tensor(columns)) - factors_of(torch.tensor(0.0)))


def judged(world: World, code: int = RIGHT) -> Judgement:
    policy: Any = Always(code)
    return judge(policy, world, 0.9, seed=0, episodes=64)


def test_a_policy_is_judged_by_what_it_reaches(world: World) -> None:
    found = judged(world)
    assert found.success == found.plausible == 1
    assert 0.9**GOAL < found.score < 0.9 ** (GOAL // 2 - 2)
    assert judged(world, code=0).success == 0


def test_an_episode_goes_on_until_all_heads_call_it_over(world: World) -> None:
    """Where most heads see the border of a goal, and one sees it two columns later."""
    for head in (world.labels.reward, world.labels.termination):
        put_off(head, 2)
    assert judged(world).success == 1


def test_a_reward_that_one_head_doubts_counts_for_nothing(world: World) -> None:
    put_off(world.labels.reward, 100)
    assert judged(world).success == 0


def test_an_end_without_a_reward_is_an_end(world: World) -> None:
    put_off(world.labels.reward, 2)
    assert judged(world).success == 0


@pytest.fixture
def extractor() -> FactorsExtractor:
    torch.manual_seed(0)
    space = gym.spaces.Box(-1, 1, (POINTS * 2 + 1,), np.float32)
    return FactorsExtractor(space, (1,), (POINTS, 2))


def test_a_policy_reads_its_own_factor_alone_before_it_learns(extractor: FactorsExtractor) -> None:
    seen = torch.rand(5, POINTS * 2 + 1)
    features = extractor(seen)
    assert features.shape == (5, extractor.features_dim)
    assert torch.equal(features[:, :2], seen[:, 2:4])
    assert torch.equal(features[:, -1], seen[:, -1])
    assert (features[:, 2:-1] == 0).all()


def test_others_count_in_any_order_once_it_learns(extractor: FactorsExtractor) -> None:
    seen = torch.rand(5, POINTS * 2 + 1)
    extractor(seen).sum().backward()
    assert extractor.gain.grad is not None
    assert extractor.gain.grad.abs() > 0
    extractor.gain.data.fill_(1)
    exchanged = seen[:, [4, 5, 2, 3, 0, 1, 6]]
    assert torch.allclose(extractor(seen), extractor(exchanged), atol=1e-6)
    assert not torch.allclose(extractor(seen), extractor(seen[:, [4, 5, 2, 3, 4, 5, 6]]), atol=1e-3)


def test_a_lone_factor_has_no_others() -> None:
    extractor = FactorsExtractor(gym.spaces.Box(-1, 1, (2,), np.float32), (0,), (1, 2))
    assert (extractor(torch.rand(3, 2))[:, 2:] == 0).all()
