"""Seeds of FLAM-v0: a world's own tells where it starts, all of a batch what follows."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from flam_rl.envs import FLAMEnv, FLAMVectorEnv


def make(num_envs: int, world, **arguments: Any) -> FLAMVectorEnv:
    return FLAMVectorEnv(num_envs, world, **arguments)


def rollout(env: FLAMVectorEnv, **arguments: Any) -> np.ndarray:
    """Observations of a reset and of four steps."""
    seen = [env.reset(**arguments)[0]]
    seen += [env.step(np.zeros(env.action_space.shape, np.float32))[0] for _ in range(4)]
    return np.stack(seen)


def test_an_int_stands_for_successive_seeds_as_in_gymnasiums_vector_envs(world) -> None:
    env = make(3, world)
    first = rollout(env, seed=7)
    assert np.array_equal(first, rollout(env, seed=[7, 8, 9]))
    assert np.array_equal(first, rollout(env, seed=np.int64(7)))
    assert np.array_equal(first, rollout(env, seed=np.array([7, 8, 9])))
    assert not np.array_equal(first, rollout(env, seed=8))
    assert not np.array_equal(rollout(env), rollout(env))  # without a seed it goes on


def test_a_seed_tells_the_start_in_a_batch_of_any_size(world) -> None:
    starts, _ = make(5, world).reset(seed=20)
    assert len(np.unique(starts, axis=0)) > 1
    assert np.array_equal(starts[:2], make(2, world).reset(seed=20)[0])
    assert np.array_equal(starts[[3, 0]], make(2, world).reset(seed=[23, 20])[0])
    for seed, start in zip(range(20, 25), starts, strict=True):
        assert np.array_equal(start, FLAMEnv(world).reset(seed=seed)[0])


def test_a_world_without_a_seed_starts_where_it_is_drawn(world) -> None:
    env = make(2, world)
    seen = np.stack([env.reset(seed=[1, None])[0] for _ in range(8)])
    assert (seen[:, 0] == seen[0, 0]).all()
    assert len(np.unique(seen[:, 1], axis=0)) > 1
    unseeded = np.stack([env.reset(seed=[None, None])[0] for _ in range(8)])
    assert len(np.unique(unseeded[:, 0], axis=0)) > 1


def test_masked_worlds_start_by_their_seeds_and_the_others_go_on(world) -> None:
    env = make(3, world, autoreset_mode="Disabled")
    before, _ = env.reset(seed=1)
    after, _ = env.reset(seed=[5, 6, 7], options={"reset_mask": np.array([False, True, False])})
    assert np.array_equal(after[[0, 2]], before[[0, 2]])
    assert np.array_equal(after[1], FLAMEnv(world).reset(seed=6)[0])


@pytest.mark.parametrize(
    "seed", [[1], [1, 2, 3], [], -1, [1, -1], 1.5, [1, 2.0], "ab", [True, False], True, [[1], [2]]]
)
def test_other_seeds_are_explained(world, seed: Any) -> None:
    with pytest.raises(
        ValueError, match="allowed are None, an int of 0 or more, and a list of 2, one such seed"
    ):
        make(2, world).reset(seed=seed)


@pytest.mark.parametrize("mask", [[True], [1, 0], np.zeros(2, bool), np.ones((2, 1), bool), "ab"])
def test_other_reset_masks_are_explained(world, mask: Any) -> None:
    env = make(2, world)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="allowed are 2 bools, one for each world, with a True among them"):
        env.reset(options={"reset_mask": mask})


def test_np_random_seed_is_what_the_env_was_seeded_with(world) -> None:
    single, batch = FLAMEnv(world), make(2, world)
    for env in (single, batch):
        env.reset(seed=7)
        assert env.np_random_seed == 7
        env.reset()
        assert env.np_random_seed == 7
        state = gym.utils.seeding.np_random(7)[0].bit_generator.state
        assert env.np_random.bit_generator.state == state
    batch.reset(seed=[4, 2])
    assert batch.np_random_seed == (4, 2)
    batch.reset(seed=[None, 3])
    assert batch.np_random_seed == (4, 2)


def test_a_rollout_that_nobody_seeded_can_be_had_again(world) -> None:
    env = make(2, world)
    first = rollout(env)
    assert np.array_equal(first, rollout(make(2, world), seed=env.np_random_seed))
    assert not np.array_equal(first, rollout(make(2, world)))
    single = FLAMEnv(world)
    start, _ = single.reset()
    assert np.array_equal(start, FLAMEnv(world).reset(seed=single.np_random_seed)[0])
    given = FLAMEnv(world)
    given.np_random = np.random.default_rng(0)
    given.reset()
