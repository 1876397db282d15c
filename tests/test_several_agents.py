"""Tasks with several controlled agents, and the road from their labels to many running tasks."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from suites import need

import flam_rl
from flam_rl.agents.behavior_cloning import BehaviorCloning
from flam_rl.cli import main
from flam_rl.core.checkpoint import save_world
from flam_rl.envs import DecodedEnv, DecodedVectorEnv
from flam_rl.envs.tasks.record import record_episodes, record_labels
from flam_rl.evaluation.policies import play, several
from flam_rl.grounding.adapter import fit_labels
from flam_rl.types import Video

TASKS = ["flam_rl/MultiGrid-v0", "flam_rl/Spread-v0", "flam_rl/Tag-v0"]


def make(id: str, **arguments) -> gym.Env:
    if id != TASKS[0]:
        need("mpe2", "mpe")
    return gym.make(id, **arguments)


@pytest.mark.parametrize("controlled", [2, 3])
@pytest.mark.parametrize("id", TASKS)
def test_spaces_and_checker(id: str, controlled: int) -> None:
    task = make(id, controlled=controlled).unwrapped
    actions = make(id).action_space.n
    assert task.action_space == gym.spaces.MultiDiscrete([actions] * controlled)
    check_env(task, skip_render_check=False)


@pytest.mark.parametrize("policy", ["random", "mixed", "goal", "expert"])
@pytest.mark.parametrize("id", TASKS)
def test_each_number_of_an_action_is_what_its_agent_does(id: str, policy: str) -> None:
    first, second = (list(record_episodes(make(id, controlled=2), 150, 4, policy)) for _ in range(2))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a.frames, b.frames)
        assert np.array_equal(a.actions, b.actions)
        done = a.entities["action"][1:, :2]
        assert np.array_equal(done[done >= 0], a.actions[done >= 0])
    actions = np.concatenate([episode.actions for episode in first])
    assert (actions[:, 0] != actions[:, 1]).any()


@pytest.mark.parametrize("controlled", [2, 3, 4])
def test_a_team_meets_at_the_goal(controlled: int) -> None:
    task = make(TASKS[0], controlled=controlled)
    episodes = list(record_episodes(task, 250, 0, "expert"))
    assert np.mean([episode.terminations[-1] for episode in episodes]) > 0.8
    random = [episode.terminations[-1] for episode in record_episodes(task, 400, 0, "random")]
    assert np.mean(random) < 0.3
    for episode in episodes:
        away = np.abs(episode.entities["position"][:, :controlled] - task.unwrapped.goal).max(2)
        met = (away == 0).any(1) & (away <= 1).all(1)
        assert not met[:-1].any()
        assert met[-1] == episode.terminations[-1]
        assert (episode.rewards[:-1] == 0).all()
        steps = len(episode.actions)
        assert episode.rewards[-1] == pytest.approx((1 - 0.9 * steps / 64) if met[-1] else 0)


@pytest.mark.parametrize(("id", "better"), [(TASKS[1], 10), (TASKS[2], 10)])
def test_the_experts_of_mpe_work_together(id: str, better: float) -> None:
    totals = {
        policy: np.mean([e.rewards.sum() for e in record_episodes(make(id, controlled=2), 500, 1, policy)])
        for policy in ("expert", "random")
    }
    assert totals["expert"] > totals["random"] + better


def test_in_tag_several_are_the_red_ones() -> None:
    task = make(TASKS[2], controlled=2).unwrapped
    assert [agent.adversary for agent in task._agents] == [True, True, True, False]
    caught = False
    for seed in range(4):
        _, info = task.reset(seed=seed)
        touched, ended = info["success"], False
        while not ended:
            _, reward, _, ended, info = task.step(task.expert_action())
            touched |= reward >= 10
            assert info["success"] == touched
        caught |= touched
    assert caught


@pytest.mark.parametrize(
    ("id", "arguments", "message"),
    [
        (TASKS[0], {"controlled": 0}, "controlled is 0; allowed is 1 to 4 of 4 agents"),
        (TASKS[0], {"controlled": 5, "agents": 8}, "controlled is 5; allowed is 1 to 4 of 8 agents"),
        (TASKS[0], {"controlled": 3, "agents": 2}, "controlled is 3; allowed is 1 to 2 of 2 agents"),
        (TASKS[1], {"controlled": 9}, "controlled is 9; allowed is 1 to 8"),
        (TASKS[1], {"controlled": 4, "others": 6}, "others is 6; allowed is 0 to 5"),
        (TASKS[2], {"controlled": 3, "others": 0}, "others is 0; allowed is 1 to 6"),
    ],
)
def test_bad_arguments_are_explained(id: str, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make(id, **arguments)


@pytest.mark.parametrize("action", [1, [1, 4], np.array([0, 1, 2]), np.array([0.5, 1])])
def test_an_action_of_no_team_is_explained(action) -> None:
    task = make(TASKS[0], controlled=2).unwrapped
    task.reset(seed=0)
    with pytest.raises(ValueError, match="allowed are 2 integers 0 to 3"):
        task.step(action)


@pytest.fixture(scope="module")
def grounded():
    """The shipped world with labels of two agents, and the adapter."""
    world, task = flam_rl.load_world("multigrid"), make(TASKS[0], controlled=2)
    labelled = record_labels(task, 400, 0)
    world.labels, adapter = fit_labels(world, labelled, 400)
    return world, adapter, task


@pytest.mark.learning
def test_labels_find_each_controlled_agent(grounded) -> None:
    world, adapter, task = grounded
    assert adapter.agents.numbers == ((0,), (1,))
    fresh = list(record_episodes(task, 200, 9, "random"))
    missed = np.zeros((2, world.factors))
    for episode in fresh:
        box = world.entities(episode.frames).box
        centre = (box[..., :2] + box[..., 2:]) / 2
        true = episode.entities["centre"][:, :2]
        missed += np.nanmean(np.abs(centre[:, None] - true[:, :, None]).sum(-1), 0)
    assert adapter.agents.factors == tuple(missed.argmin(1))
    right = []
    for episode in fresh:
        factors = world.see(torch.as_tensor(episode.frames)[None]).factors
        latent = world.infer_actions(factors).mean[0, :, list(adapter.agents.factors)]
        real = adapter.agents.real(factors[0, :-1], latent).numpy()
        before, after = (episode.entities["position"][part, :2] for part in (slice(-1), slice(1, None)))
        turned = np.diff(episode.entities["direction"][:, :2], axis=0) != 0
        acted = (before != after).any(-1) | turned
        right.append((real == episode.actions)[acted])
    assert np.concatenate(right).mean() > 0.95


@pytest.mark.learning
def test_the_expert_of_several_acts_through_their_latent_actions(grounded) -> None:
    world, adapter, task = grounded
    one = DecodedEnv(task, world)
    many = DecodedVectorEnv(several(task), world)
    imagined = gym.make("FLAM-v0", world=world, control="agent")
    assert one.action_space == imagined.action_space == many.single_action_space
    assert one.observation_space == imagined.observation_space == many.single_observation_space
    assert one.action_space.shape == (2 * world.latent_action_dim,)

    def expert(seen: np.ndarray) -> np.ndarray:
        real = torch.as_tensor(np.stack(many.env.call("expert_action")))
        return adapter.agents.latent(many.scene.factors, real).flatten(1).numpy()

    assert np.mean([played.success for played in play(many, expert, 24, 0)]) > 0.9
    ended = False
    one.reset(seed=3)
    while not ended:
        real = torch.as_tensor(task.unwrapped.expert_action())[None]
        latent = adapter.agents.latent(one.scene.factors, real).flatten().numpy()
        _, reward, terminated, truncated, info = one.step(latent)
        ended = terminated or truncated
    assert info["success"]
    assert reward > 0


@pytest.mark.learning
def test_the_latent_actions_of_several_experts_are_cloned(grounded) -> None:
    world, _, task = grounded
    video = Video(tuple(episode.frames for episode in record_episodes(task, 500, 5, "expert")))
    clone = BehaviorCloning.from_expert_video(world, video)
    many = DecodedVectorEnv(several(task), world)
    found = play(many, lambda seen: clone.predict(seen)[0], 24, 0)
    many.action_space.seed(0)
    chance = play(many, lambda seen: many.action_space.sample(), 24, 0)
    assert np.mean([one.success for one in found]) > np.mean([one.success for one in chance]) + 0.2
    single, _ = clone.predict(many.reset(seed=0)[0][0], deterministic=True)
    assert single.shape == (2 * world.latent_action_dim,)


@pytest.mark.learning
def test_a_task_of_other_agents_is_refused(grounded) -> None:
    world, _, _ = grounded
    with pytest.raises(ValueError, match=r"actions are Discrete\(4\); the adapter knows MultiDiscrete"):
        DecodedEnv(make(TASKS[0]), world)


@pytest.mark.learning
def test_the_commands_and_the_player_take_several_agents(grounded, tmp_path: Path) -> None:
    world, adapter, _ = grounded
    world.info = dataclasses.replace(world.info, task_kwargs={"agents": 4, "controlled": 2})
    save_world(world, tmp_path / "world")
    arguments = ["--world", str(tmp_path / "world"), "--out", str(tmp_path / "agent"), "--episodes", "3"]
    few = {"steps": 128, "num-envs": 8, "rollout": 8, "batch": 32, "checks": 1}
    main(["agent", *arguments, *(f"--imagination.{name}={value}" for name, value in few.items())])
    results = json.loads((tmp_path / "agent" / "results.json").read_text())
    assert results["task"]["floors"]["random_actions"]["ci95"]
    pytest.importorskip("fastapi", reason="the extra play is not installed")
    from flam_rl.player.messages import Hold, Step, Task
    from flam_rl.player.stage import Stage
    from flam_rl.player.visit import Visit

    stage = Stage(world, "two", lambda: make(TASKS[0], controlled=2))
    assert stage.agents == adapter.agents.factors
    names = ["turn left", "turn right", "forward", "stay"]
    for factor in stage.agents:
        assert [key.name for key in stage.keys.by_action[factor]] == names
    visit = Visit(stage)
    visit.obey(Task(kind="task", on=True))
    visit.obey(Hold(kind="hold", keys=[(stage.agents[0], 0), (stage.agents[1], 1)]))
    before = visit._beside._decoded.unwrapped._room.agent_states.dir[:2].copy()
    visit.obey(Step(kind="step"))
    after = visit._beside._decoded.unwrapped._room.agent_states.dir[:2]
    assert ((after - before) % 4).tolist() == [3, 1]
    assert visit._moments[-1].actions == ("turn left", "turn right")
