"""Adapter, imagination, cloning."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch

from flam_rl.agents import BehaviorCloning, ImaginationConfig, train_in_imagination
from flam_rl.envs import DecodedEnv, DecodedVectorEnv
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.policies import score_policy, several, wilson
from flam_rl.grounding import ActionAdapter
from flam_rl.grounding.adapter import fit_labels, told
from flam_rl.grounding.fitting import fit_event_head, labelled_factors
from flam_rl.types import LabelledTransitions, Video


@pytest.fixture(scope="module")
def fitted(episodes):
    import flam_rl

    world = flam_rl.load_world("multigrid")
    labels, adapter = fit_labels(world, LabelledTransitions.of(episodes, 1000, 4))
    return world, labels, adapter


def test_adapter_finds_the_agents_factor(fitted) -> None:
    world, labels, adapter = fitted
    others = [a for i, a in enumerate(adapter.accuracy) if i != adapter.agent_factor]
    assert adapter.accuracy[adapter.agent_factor] > 0.8
    assert max(others) < 0.6
    assert adapter.agent_factor == world.labels.agent_factor == labels.agent_factor


@pytest.mark.learning
@pytest.mark.parametrize(
    ("causes", "count", "sees"), [(2, 100, [2]), (2, 1000, [2]), (0, 1000, [0, 1, 2, 3])]
)
def test_an_event_head_sees_all_factors_only_where_enough_events_ask_for_it(
    world, causes: int, count: int, sees: list[int]
) -> None:
    """An event where factor `causes` looks like one of 16; the agent's factor is 2."""
    for seed in range(3):
        generator = torch.Generator().manual_seed(seed)
        looks = torch.randn(16, world.factor_dim, generator=generator)
        look = torch.randint(16, (count, world.factors), generator=generator)
        noise = torch.randn(count, world.factors, world.factor_dim, generator=generator)
        factors = torch.nn.functional.rms_norm(looks[look] + 0.2 * noise, (world.factor_dim,))
        data = {"next": factors, "imagined": factors, "episode": torch.arange(count) // 10}
        head = fit_event_head(world, data, look[:, causes] == 3, 1.0, 2, seed)
        assert head.sees.tolist() == sees


def test_adapter_is_right_on_fresh_episodes_both_ways(fitted, task: gym.Env) -> None:
    world, _, adapter = fitted
    fresh = LabelledTransitions.of(record_episodes(task, 600, seed=9), 500, 4)
    data = labelled_factors(world, fresh)
    factor, latent = data["now"][:, adapter.agent_factor], data["latent"][:, adapter.agent_factor]
    decoded = adapter.net.real(factor, latent)
    # Staying and walking into something look the same; the labels cannot tell them apart.
    told = data["action"] != 3
    moved = (data["now"] - data["next"])[:, adapter.agent_factor].abs().amax(-1) > 0.1
    assert (decoded == data["action"])[told & moved].float().mean() > 0.95
    there_and_back = adapter.net.real(factor, adapter.net.latent(factor, data["action"]))
    assert (there_and_back == data["action"])[told & moved].float().mean() > 0.9


def test_an_action_that_was_never_taken_is_still_one_of_the_tasks(fitted, task: gym.Env) -> None:
    world, _, _ = fitted
    labelled = LabelledTransitions.of(record_episodes(task, 200, seed=3, policy="expert"), 200, 4)
    assert max(actions.max() for actions in labelled.actions) < 3
    adapter = ActionAdapter.fit(world, labelled)
    assert adapter.net.actions == 4
    env = DecodedEnv(task, world, adapter)
    env.reset(seed=0)
    env.step(env.action_space.sample())


def test_adapter_save_and_load_is_the_identity(fitted, tmp_path: Path) -> None:
    world, _, adapter = fitted
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = ActionAdapter.load(tmp_path / "adapter.safetensors", world)
    assert (loaded.agent_factor, loaded.accuracy, loaded.budget) == (
        adapter.agent_factor,
        adapter.accuracy,
        1000,
    )
    assert all(
        torch.equal(a, b) for a, b in zip(adapter.net.parameters(), loaded.net.parameters(), strict=True)
    )
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(ValueError, match="not an adapter for this world"):
        ActionAdapter.load(tmp_path / "bad", world)


def test_adapter_never_reads_more_than_its_budget(fitted, labelled: LabelledTransitions) -> None:
    with pytest.raises(ValueError, match="1000 labelled transitions given, but the budget is 500"):
        ActionAdapter.fit(fitted[0], labelled, budget=500)


def test_heads_are_right_on_fresh_episodes(fitted, task: gym.Env) -> None:
    world, labels, _ = fitted
    data = labelled_factors(world, LabelledTransitions.of(record_episodes(task, 1100, seed=11), 1000, 4))
    for head, event in ((labels.reward, data["reward"] > 0), (labels.termination, data["termination"])):
        for states in (data["next"], data["imagined"]):
            found = head(states) > 0.5
            assert event.sum() > 5
            assert (found == event).float().mean() > 0.99
            assert found[event].float().mean() > 0.8


def test_imagination_runs_and_keeps_the_best(fitted, tmp_path: Path) -> None:
    world, labels, _ = fitted
    world.labels = labels
    config = ImaginationConfig(steps=2048, num_envs=16, rollout=16, batch=128, checks=2)
    model, history = train_in_imagination(world, config, seed=0, log_dir=tmp_path)
    assert len(history) >= 2
    assert all(0 <= found.success <= 1 and 0 <= found.plausible <= 1 for found in history)
    assert list(tmp_path.rglob("events*"))
    action, _ = model.predict(gym.make("FLAM-v0", world=world).reset(seed=0)[0])
    assert action.shape == (world.latent_action_dim,)


def test_imagination_needs_labels(world) -> None:
    world.labels = None
    with pytest.raises(ValueError, match="no labels"):
        train_in_imagination(world)


@pytest.mark.learning
def test_latent_cloning_of_expert_video_beats_cloning_the_labels(fitted, task: gym.Env, labelled) -> None:
    world, labels, _ = fitted
    world.labels = labels
    video = Video(tuple(e.frames for e in record_episodes(task, 600, 1, "expert")))
    latent_bc = BehaviorCloning.from_expert_video(world, video)
    bc = BehaviorCloning.from_labels(labelled)
    tasks = several(task)
    decoded = DecodedVectorEnv(tasks, world)
    cloned = score_policy(decoded, lambda seen: latent_bc.predict(seen)[0], 30, seed=2)
    plain = score_policy(tasks, lambda seen: bc.predict(seen)[0], 30, seed=2)
    assert cloned.success_rate > 0.7
    assert cloned.success_rate > plain.success_rate


@pytest.mark.learning
def test_cloned_policies_predict_one_or_many(fitted, labelled: LabelledTransitions) -> None:
    small = tuple(frames[:, :36, :36] for frames in labelled.episodes)
    never_stayed = tuple(actions.clip(0, 2) for actions in labelled.actions)
    bc = BehaviorCloning.from_labels(dataclasses.replace(labelled, episodes=small, actions=never_stayed))
    assert bc.choices.tolist() == [0, 1, 2, 3]
    frames = small[0][:3]
    assert bc.predict(frames)[0].shape == (3,)
    assert bc.predict(frames[0], deterministic=True)[0] in range(4)
    fitted[0].labels = None
    with pytest.raises(ValueError, match="which factor is the expert's"):
        BehaviorCloning.from_expert_video(fitted[0], labelled.video)


def test_wilson_interval_of_a_known_case() -> None:
    low, high = wilson(90, 100)
    assert (round(low, 3), round(high, 3)) == (0.826, 0.945)
    assert wilson(100, 100)[1] == 1.0
    assert np.isclose(wilson(0, 10)[0], 0.0)


def test_what_changed_nothing_tells_only_of_the_action_that_does_nothing() -> None:
    now = torch.randn(40, 8)
    action = torch.arange(4).repeat(10)
    moved = (action != 3) & (
        torch.arange(40) >= 8
    )  # the first two of each action change nothing, as in a corner
    tells = told(now, now + moved[:, None], action, actions=4)
    assert tells[moved].all()
    assert tells[action == 3].all()
    assert not tells[~moved & (action != 3)].any()
