"""flam_rl/MultiGrid-v0: the real sim."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from flam_rl.envs.tasks.behaviors import FORWARD, LEFT, RIGHT, STAY, shortest_path_action
from flam_rl.envs.tasks.multigrid import MultiGridTask
from flam_rl.envs.tasks.record import record_episode, record_episodes
from flam_rl.evaluation.truth import LEFT as TURNED_LEFT
from flam_rl.evaluation.truth import effective_actions
from flam_rl.evaluation.validity import valid_frames


def test_passes_the_env_checker(task: gym.Env) -> None:
    check_env(task.unwrapped, skip_render_check=False)


def test_same_seed_same_episode() -> None:
    first, second = (list(record_episodes(gym.make("flam_rl/MultiGrid-v0"), 200, seed=5)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.entities["position"], b.entities["position"])


def test_another_seed_another_placement(task: gym.Env) -> None:
    frames = [task.reset(seed=seed)[0] for seed in range(5)]
    assert len({frame.tobytes() for frame in frames}) == 5


def test_several_agents_act_in_one_step(episodes) -> None:
    moved = [
        (effective_actions(e.entities["position"], e.entities["direction"]) > 0).sum(1) for e in episodes
    ]
    assert np.concatenate(moved).max() == 4
    assert np.concatenate(moved).mean() > 2


def test_agents_never_share_a_cell(episodes) -> None:
    for episode in episodes:
        for positions in episode.entities["position"]:
            assert len({tuple(p) for p in positions}) == len(positions)


def test_expert_reaches_the_goal_and_random_seldom_does(task: gym.Env) -> None:
    expert = [e.terminations[-1] for e in record_episodes(task, 250, 0, "expert")]
    random = [e.terminations[-1] for e in record_episodes(task, 1000, 0, "random")]
    assert np.mean(expert) == 1.0
    assert np.mean(random) < 0.6


def test_reward_only_at_the_goal(task: gym.Env) -> None:
    episode = record_episode(task, 3, lambda frame: task.unwrapped.expert_action())
    assert (episode.rewards[:-1] == 0).all()
    assert episode.rewards[-1] == pytest.approx(1 - 0.9 * len(episode.actions) / 64)
    assert np.array_equal(episode.entities["position"][-1, 0], task.unwrapped.goal)


def test_rendered_frames_are_made_of_the_listed_tiles(task: gym.Env, episodes) -> None:
    frames = np.concatenate([e.frames for e in episodes[:10]])
    assert valid_frames(frames, task.unwrapped.tiles()).all()
    broken = frames.copy()
    broken[:, 8:16, 8:16] += 40
    assert not valid_frames(broken, task.unwrapped.tiles()).any()


def test_shortest_path_turns_and_walks() -> None:
    free = np.zeros((8, 8), bool)
    here = np.array([3, 3])
    assert shortest_path_action(here, 0, np.array([5, 3]), free) == FORWARD
    assert shortest_path_action(here, 0, np.array([3, 5]), free) == RIGHT
    assert shortest_path_action(here, 0, np.array([3, 1]), free) == LEFT
    assert shortest_path_action(here, 0, here, free) == STAY


def test_effective_actions_of_a_known_walk() -> None:
    position = np.array([[[1, 1]], [[2, 1]], [[2, 1]], [[2, 1]]])
    direction = np.array([[0], [0], [3], [3]])
    assert effective_actions(position, direction)[:, 0].tolist() == [3, TURNED_LEFT, 0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"agents": 0}, "agents is 0; allowed is 1 to 35"),
        ({"size": 9}, "size is 9; allowed are 8, 16 and 32"),
        ({"max_steps": 0}, "max_steps is 0"),
        ({"behaviors": ("dance",)}, "allowed are some of"),
        ({"render_mode": "ansi"}, "render_mode is 'ansi'"),
    ],
)
def test_bad_arguments_are_explained(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MultiGridTask(**arguments)


def test_bad_action_is_explained(task: gym.Env) -> None:
    task.reset(seed=0)
    with pytest.raises(ValueError, match="allowed are the integers 0 to 3"):
        task.unwrapped.step(7)
