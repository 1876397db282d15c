"""Adapter, imagination, cloning."""

from __future__ import annotations

import dataclasses
from itertools import product
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

import flam_rl
from flam_rl.actions import ActionSpace
from flam_rl.agents import BehaviorCloning, ImaginationConfig, train_in_imagination
from flam_rl.core.adapters import Adapter, make_adapter
from flam_rl.core.agent import AgentFinder, Agents, FollowedAgents
from flam_rl.core.checkpoint import load_world, save_world
from flam_rl.core.heads import DenseHead, EventHead, FrozenEvents, Labels
from flam_rl.core.layers import first_least
from flam_rl.envs import DecodedEnv, DecodedVectorEnv
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.policies import score_policy, several, wilson
from flam_rl.grounding import ActionAdapter
from flam_rl.grounding.adapter import fit_labels
from flam_rl.grounding.adapter_fitting import _try, fit_adapter, informative
from flam_rl.grounding.agent import agents_by_episode, fit_finder
from flam_rl.grounding.fitting import labelled_factors
from flam_rl.grounding.reward import fit_event_head, fit_reward_head
from flam_rl.types import LabelledTransitions, Video

MOVES = ActionSpace.discrete(4)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fits of fewer steps, which are enough for rows that are made up."""
    monkeypatch.setattr("flam_rl.grounding.fitting.STEPS", 250)


@pytest.fixture(scope="module")
def fitted(episodes):
    import flam_rl

    world = flam_rl.load_world("multigrid")
    labels, adapter = fit_labels(world, LabelledTransitions.from_episodes(episodes, 1000, MOVES))
    return world, labels, adapter


@pytest.mark.learning
def test_adapter_finds_the_agents_factor(fitted) -> None:
    world, labels, adapter = fitted
    (own,) = adapter.agents.factors
    others = [a for i, a in enumerate(adapter.accuracy) if i != own]
    assert adapter.accuracy[own] > 0.8
    assert max(others) < 0.6
    assert adapter.agents.factors == world.labels.agents.factors == labels.agents.factors


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
        data["known"] = torch.ones(count, 3, dtype=torch.bool)
        head = fit_event_head(world, data, factors[:0], look[:, causes] == 3, 1.0, (2,), seed)
        assert head.sees.tolist() == sees


@pytest.mark.learning
def test_adapter_is_right_on_fresh_episodes_both_ways(fitted, task: gym.Env) -> None:
    world, _, adapter = fitted
    fresh = LabelledTransitions.from_episodes(record_episodes(task, 600, seed=9), 500, MOVES)
    data = labelled_factors(world, fresh)
    (own,), (net,) = adapter.agents.factors, adapter.agents.adapters
    factor, latent = data["now"][:, own], data["latent"][:, own]
    decoded = net.real(factor, latent)
    # Staying and walking into something look the same; the labels cannot tell them apart.
    tellable = data["action"] != 3
    moved = (data["now"] - data["next"])[:, own].abs().amax(-1) > 0.1
    assert (decoded == data["action"])[tellable & moved].float().mean() > 0.95
    there_and_back = net.real(factor, net.latent(factor, data["action"]))
    assert (there_and_back == data["action"])[tellable & moved].float().mean() > 0.9


@pytest.mark.learning
def test_an_action_that_was_never_taken_is_still_one_of_the_tasks(fitted, task: gym.Env) -> None:
    world, _, _ = fitted
    labelled = LabelledTransitions.from_episodes(
        record_episodes(task, 200, seed=3, policy="expert"), 200, MOVES
    )
    assert max(actions.max() for actions in labelled.actions) < 3
    adapter = ActionAdapter.fit(world, labelled)
    assert adapter.agents.actions == MOVES
    env = DecodedEnv(task, world, adapter)
    env.reset(seed=0)
    env.step(env.action_space.sample())


@pytest.mark.learning
def test_adapter_save_and_load_is_the_identity(fitted, tmp_path: Path) -> None:
    world, _, adapter = fitted
    adapter.save(tmp_path / "adapter.safetensors")
    loaded = ActionAdapter.load(tmp_path / "adapter.safetensors", world)
    assert (loaded.agents.factors, loaded.accuracy, loaded.budget) == (
        adapter.agents.factors,
        adapter.accuracy,
        1000,
    )
    assert all(
        torch.equal(a, b)
        for a, b in zip(adapter.agents.parameters(), loaded.agents.parameters(), strict=True)
    )
    (tmp_path / "bad").write_bytes(b"x")
    with pytest.raises(ValueError, match="not an adapter for this world"):
        ActionAdapter.load(tmp_path / "bad", world)


@pytest.mark.learning
def test_adapter_never_reads_more_than_its_budget(fitted, labelled: LabelledTransitions) -> None:
    with pytest.raises(ValueError, match="1000 labelled transitions given, but the budget is 500"):
        ActionAdapter.fit(fitted[0], labelled, budget=500)


@pytest.mark.learning
def test_heads_are_right_on_fresh_episodes(fitted, task: gym.Env) -> None:
    world, labels, _ = fitted
    data = labelled_factors(
        world, LabelledTransitions.from_episodes(record_episodes(task, 1100, seed=11), 1000, MOVES)
    )
    for head, event in ((labels.reward, data["reward"] > 0), (labels.termination, data["termination"])):
        for states in (data["next"], data["imagined"]):
            found = head(states) > 0.5
            assert event.sum() > 5
            assert (found == event).float().mean() > 0.99
            assert found[event].float().mean() > 0.8


@pytest.mark.learning
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


@pytest.mark.learning
@pytest.mark.parametrize("dense", [False, True])
def test_an_interrupted_imagination_goes_on_as_if_it_had_not_been(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dense: bool
) -> None:
    """In the middle of episodes, with judgements before and after; rewards of any size are normalized."""
    world = load_world("multigrid")
    if dense:
        reward = DenseHead(world.factor_dim, world.labels.agents.factors, 1.0, 50.0)
        world.labels = Labels(world.labels.agents, reward, world.labels.termination, 1)
    config = ImaginationConfig(steps=2000, num_envs=16, rollout=20, batch=64, checks=3)
    whole, judged = train_in_imagination(world, config)

    class Killed(Exception):
        pass

    learn, updates = PPO.train, []

    def killed(model: PPO) -> None:
        updates.append(model.num_timesteps)
        if len(updates) in (2, 6, 7):
            raise Killed
        learn(model)

    monkeypatch.setattr(PPO, "train", killed)
    for _ in range(3):
        with pytest.raises(Killed):
            train_in_imagination(world, config, folder=tmp_path)
        np.random.seed(3)  # noqa: NPY002
        torch.manual_seed(3)
    model, found = train_in_imagination(world, config, folder=tmp_path)
    # Killed in the update after step 640, and twice in one that began before it was kept.
    assert updates == [320, 640, 640, 960, 1280, 1600, 1600, 1600, 1920, 2240]
    again, known = train_in_imagination(world, config, folder=tmp_path)
    assert len(updates) == 10, "what has ended is not done again"
    assert judged == found == known
    assert len(judged) >= 3
    for other in (model, again):
        state = other.policy.state_dict()
        assert all(torch.equal(value, state[name]) for name, value in whole.policy.state_dict().items())


@pytest.mark.learning
def test_a_checkpoint_of_imagination_in_another_world_is_refused(tmp_path: Path) -> None:
    config = ImaginationConfig(steps=64, num_envs=8, rollout=8, batch=64, checks=1)
    train_in_imagination(load_world("multigrid"), config, folder=tmp_path)
    with pytest.raises(ValueError, match=r"imagination\.pt: damaged, or of another run"):
        train_in_imagination(
            load_world("multigrid"), dataclasses.replace(config, num_envs=4, rollout=16), folder=tmp_path
        )


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
    tells = informative(now, now + moved[:, None], action)
    assert tells[moved].all()
    assert tells[action == 3].all()
    assert not tells[~moved & (action != 3)].any()


class Rows:
    """What fitting asks of a world: factors are rows, latent actions are taken as they are."""

    factors, factor_dim, latent_action_dim = 4, 16, 4

    def snap(self, factors_BKS: torch.Tensor, factor: int, latent_BA: torch.Tensor) -> torch.Tensor:
        return latent_BA


def rows(
    space: ActionSpace, episodes: int, steps: int, differs: bool, seed: int = 0
) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Entities that all look alike and push themselves about; actions are what one of them, the agent, chose.

    Returns:
        as `labelled_factors`, and the agent's row in each transition.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    factors, count = Rows.factors, episodes * steps
    episode = torch.arange(episodes).repeat_interleave(steps)
    agent = (
        torch.randint(factors, (episodes,), generator=generator)[episode]
        if differs
        else torch.ones_like(episode)
    )
    if space.kind == "box":
        chosen = (0.5 * normal(count, factors, space.size)).clamp(-1, 1)
        push = chosen
    else:
        chosen = torch.stack(
            [torch.randint(n, (count, factors), generator=generator) for n in space.count], -1
        )
        push = torch.cat([torch.cos(chosen * 2.0), torch.sin(chosen * 2.0)], -1)
    latent = 0.1 * normal(count, factors, 4)
    latent[..., : push.shape[-1]] += push
    states = torch.nn.functional.rms_norm(normal(2, count, factors, 16), (16,))
    mine = chosen[torch.arange(count), agent] + (torch.tensor(space.start) if space.start else 0)
    data = {
        "now": states[0],
        "next": states[1],
        "imagined": states[1],
        "latent": latent,
        "action": mine.view(count, *space.shape),
        "episode": episode,
        "known": torch.ones(count, 3, dtype=torch.bool),
    }
    return data, agent


SPACES = [
    ActionSpace.discrete(5),
    ActionSpace("discrete", (), (5,), (-2,)),
    ActionSpace("discrete", (2,), (3, 2), (0, 1)),
    ActionSpace("box", (2,), low=(-1.0, -1.0), high=(1.0, None)),
]


FAST = [(SPACES[0], True), (SPACES[3], True)]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    ("space", "differs"),
    [
        *FAST,
        *(
            pytest.param(*case, marks=pytest.mark.learning)
            for case in product(SPACES, (False, True))
            if case not in FAST
        ),
    ],
    ids=str,
)
def test_the_agents_factor_is_found_in_each_episode(space: ActionSpace, differs: bool) -> None:
    """Rows that look alike, given anew to each episode, as tracks are; one of them may be of nobody."""
    data, agent = rows(space, 25, 20, differs)
    if differs:
        data["latent"][torch.arange(len(agent)), (agent + 1) % Rows.factors] = 0.3

    def fit(factor: torch.Tensor, which: torch.Tensor) -> Adapter:
        return fit_adapter(Rows(), data, factor, space, which, 0, True)

    candidates = agents_by_episode(fit, data, 1)
    assert (candidates is not None) == differs
    found = agent if candidates is None else fit_finder(16, data, candidates, 0)[1]
    assert (found == agent).float().mean() > 0.95
    net, each = fit(found, torch.ones_like(found).bool()), torch.arange(len(found))
    now, latent = data["now"][each, found], data["latent"][each, found]
    real = net.real(now, latent)
    assert real.shape == data["action"].shape
    if space.kind == "box":
        assert real.amin() >= -1
        assert (real - data["action"]).square().mean() < 0.1 * data["action"].var()
    else:
        assert (real == data["action"]).float().mean() > 0.9
    back = net.real(now, net.latent(now, data["action"]))
    assert (back - data["action"]).abs().float().mean() < 0.15


@pytest.mark.learning
@pytest.mark.usefixtures("brief")
def test_an_agent_that_differs_is_followed_by_look_and_by_what_its_actions_do() -> None:
    space = SPACES[0]
    data, agent = rows(space, 25, 20, True)
    each = torch.arange(len(agent))
    for states in ("now", "next", "imagined"):
        data[states][each, agent, :4] += 1.0  # it looks a little different
    finder, _ = fit_finder(16, data, torch.nn.functional.one_hot(agent, 4).bool(), 0)
    by_look = first_least(-finder.looks(data["now"]), 1.0)
    assert (by_look == agent).float().mean() > 0.6
    net = fit_adapter(Rows(), data, agent, space, torch.ones_like(agent).bool(), 0, True)
    fresh, true = rows(space, 30, 6, True, seed=1)
    now = fresh["now"].view(30, 6, 4, 16)  # and here it does not: only its actions tell
    followed = FollowedAgents(Agents(space, [0], [[0]], [net], [finder]))
    followed.begin(now[:, 0], torch.ones(30, dtype=torch.bool))
    for step in range(5):
        latent, action = fresh["latent"].view(30, 6, 4, 4)[:, step], fresh["action"].view(30, 6)[:, step]
        followed.acted(now[:, step], latent, action, now[:, step + 1], torch.ones(30, dtype=torch.bool))
    assert (followed.agents_BC[:, 0] == true.view(30, 6)[:, 0]).float().mean() > 0.9
    before = followed.agents_BC.clone()
    followed.begin(now[:, 0].flip(0), torch.arange(30) < 3)
    assert torch.equal(followed.agents_BC[3:], before[3:])


@pytest.mark.learning
@pytest.mark.usefixtures("brief")
def test_looks_tell_the_agents_factor_where_its_actions_do_not() -> None:
    """In a third of the episodes it did one thing all the time; in one episode another factor rests, so that its latent actions say nothing."""
    space, each = SPACES[0], torch.arange(30 * 20)
    data, agent = rows(space, 30, 20, True)
    for states in ("now", "next", "imagined"):
        data[states][each, agent, :4] += 2.0
    data["action"] = torch.where(data["episode"] % 3 == 0, 2, data["action"])
    data["latent"][:20, (agent[0] + 1) % 4] = 0.0

    def fit(factor: torch.Tensor, which: torch.Tensor) -> Adapter:
        return fit_adapter(Rows(), data, factor, space, which, 0, True)

    candidates = agents_by_episode(fit, data, 1)
    assert candidates is not None
    assert (candidates.sum(-1) > 1).float().mean() > 0.3
    assert torch.equal(fit_finder(16, data, candidates, 0)[1], agent)


@pytest.mark.learning
@pytest.mark.usefixtures("brief")
def test_few_labels_tell_an_action_wherever_it_is_taken() -> None:
    """What a latent action does depends on nothing else: the adapter sees no factor, and is right on fresh transitions."""
    data, agent = rows(SPACES[0], 10, 10, False)
    trial = _try(
        lambda *given: fit_adapter(Rows(), data, given[0], SPACES[0], given[1], 0, given[2]),
        data,
        agent,
        data["episode"] > 7,
    )
    assert not trial.sees
    blind, sighted = (
        fit_adapter(Rows(), data, agent, SPACES[0], torch.ones_like(agent).bool(), 0, sees)
        for sees in (False, True)
    )
    fresh, same = rows(SPACES[0], 20, 20, False, seed=1)
    now, latent = (fresh[key][torch.arange(400), same] for key in ("now", "latent"))
    angle = 2.0 * torch.arange(5)
    nearest = torch.cdist(latent[:, :2], torch.stack([angle.cos(), angle.sin()], -1)).argmin(-1)
    best, few, many = (
        float((decoded == fresh["action"]).float().mean())
        for decoded in (nearest, blind.real(now, latent), sighted.real(now, latent))
    )  # two of the pushes are near each other: nobody is always right
    assert few > best - 0.06
    assert few > many + 0.05
    assert torch.equal(blind.real(now, latent), blind.real(-now, latent))


def test_labels_put_the_agent_in_its_place() -> None:
    finder = AgentFinder(8)
    agents = Agents(MOVES, [1], [[0]], [make_adapter(8, 4, MOVES)], [finder])
    factors = torch.randn(50, 6, 5, 8)
    for seen in (factors[:, 0], factors):
        placed, agent = agents.in_place(seen), agents.find(seen)[:, 0]
        assert len(set(agent.tolist())) > 1
        each = torch.arange(50)
        if seen.ndim == 3:
            assert torch.equal(placed[:, 1], seen[each, agent])
            assert torch.equal(placed[each, agent], seen[:, 1])
        else:
            assert torch.equal(placed[:, :, 1], seen[each, :, agent])
    agents = Agents(MOVES, [1], [[0]], [make_adapter(8, 4, MOVES)])
    assert agents.in_place(factors) is factors


@pytest.mark.usefixtures("brief")
def test_an_action_that_labels_never_showed_is_never_chosen() -> None:
    """18 actions as in Atari, 5 of them taken."""
    data, agent = rows(ActionSpace.discrete(5), 20, 20, False)
    data["action"] = data["action"] * 3
    net = fit_adapter(Rows(), data, agent, ActionSpace.discrete(18), torch.ones_like(agent).bool(), 0, True)
    anything = net.real(4 * torch.randn(5000, 16), 4 * torch.randn(5000, 4))
    assert set(anything.tolist()) == {0, 3, 6, 9, 12}


def entered(world, count: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """States that are entered, each factor with one of 16 looks, as `labelled_factors`; and the looks of factor 2."""
    generator = torch.Generator().manual_seed(0)
    looks = torch.randn(16, world.factor_dim, generator=generator)
    look = torch.randint(16, (count, world.factors), generator=generator)
    noise = torch.randn(count, world.factors, world.factor_dim, generator=generator)
    factors = torch.nn.functional.rms_norm(looks[look] + 0.1 * noise, (world.factor_dim,))
    data = {"next": factors, "imagined": factors, "episode": torch.arange(count) // 10}
    data["known"] = torch.arange(count)[:, None] % torch.tensor([1, 2, 3]) == 0
    data["termination"] = torch.zeros(count, dtype=torch.bool)
    return data, look[:, 2]


@pytest.mark.usefixtures("brief")
@pytest.mark.parametrize(
    "kind",
    ["signed", "event", *(pytest.param(kind, marks=pytest.mark.learning) for kind in ("dense", "costs"))],
)
def test_rewards_of_every_kind_are_predicted(world, kind: str) -> None:
    data, mine = entered(world, 1000)
    factors = data["next"]
    reward = {
        "signed": (mine == 3).float() - 5 * (mine == 4).float() + 2 * (mine == 5).float(),
        "dense": mine / 4 - 1.5,
        "event": (mine == 3).float(),
        "costs": (mine == 3).float() - 0.01,
    }[kind]
    head = fit_reward_head(world, data | {"reward": reward}, factors[:0], (2,), 0)
    assert isinstance(head, EventHead if kind == "event" else DenseHead)
    assert head.sees.tolist() == [2]
    assert (head.expected(factors) - reward).square().mean() < 0.1 * reward.var()
    assert (head.agreed(factors) <= head.expected(factors) + 1e-5).all() or kind == "event"
    if kind != "event":
        found, _ = FrozenEvents(Labels(world.labels.agents, head, world.labels.termination, 10))(factors)
        assert torch.allclose(found, head.expected(factors), atol=1e-4)


@pytest.mark.learning
@pytest.mark.usefixtures("brief")
def test_what_never_ends_is_predicted_not_to_end(world) -> None:
    data, _ = entered(world, 1000)
    factors = data["next"]
    end = fit_event_head(world, data, factors[:0], data["termination"], 1.0, (2,), 0)
    assert end(factors).max() < 0.5
    _, ended = FrozenEvents(Labels(world.labels.agents, world.labels.reward, end, 10))(factors)
    assert not ended.any()
    data["known"][:, 2] = False  # no label says whether anything ends
    assert fit_event_head(world, data, factors[:0], data["termination"], 1.0, (2,), 0)(factors).max() == 0


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_labels_of_every_kind_are_saved_and_an_adapter_is_checked(
    world, space: ActionSpace, tmp_path: Path
) -> None:
    dim, latent = world.factor_dim, world.latent_action_dim
    numbers = [[number] for number in range(space.size)]  # as many agents
    adapters = [make_adapter(dim, latent, space.part(own)) for own in numbers]
    finders = [AgentFinder(dim) for _ in numbers]
    agents = Agents(space, [2, 0][: len(numbers)], numbers, adapters, finders)
    world.labels = Labels(agents, DenseHead(dim, (0, 2), 3.0, 2.0), EventHead(dim, (1,), 1.0), 7)
    save_world(world, tmp_path / "world")
    again = load_world(tmp_path / "world").labels
    assert again.agents.actions == space
    for (name, one), (_, other) in zip(
        world.labels.state_dict().items(), again.state_dict().items(), strict=True
    ):
        assert torch.equal(one, other), name
    accuracy = () if space.kind == "box" else (0.5,) * 4
    adapter = ActionAdapter(agents, (-0.1, 0, 0.5, 0.9), accuracy, 7)
    path = tmp_path / "adapter.safetensors"
    adapter.save(path)
    loaded = ActionAdapter.load(path, world)
    assert (loaded.explained, loaded.accuracy, loaded.agents.actions) == (adapter.explained, accuracy, space)
    for wrong, message in [
        (
            {"agents": Agents(space, [9, 0][: len(numbers)], numbers, adapters, finders)},
            "factors is .9.*allowed are factors 0 to 3",
        ),
        ({"explained": (0.5,)}, "explained is of 1 factors"),
        ({"explained": (0.5, 0.5, 0.5, 1.5)}, "allowed is 1 at most"),
    ]:
        dataclasses.replace(adapter, **wrong).save(path)
        with pytest.raises(ValueError, match=f"not an adapter for this world.*{message}"):
            ActionAdapter.load(path, world)
    with torch.no_grad():
        adapters[0].to_real.bias_1[0] = torch.nan
    adapter.save(path)
    with pytest.raises(ValueError, match=r"'adapters.0.to_real.bias_1' has \d+ numbers that are NaN"):
        ActionAdapter.load(path, world)
    wider = [make_adapter(dim + 1, latent, space.part(own)) for own in numbers]
    other = Agents(space, agents.factors, numbers, wider, finders)
    dataclasses.replace(adapter, agents=other).save(path)
    with pytest.raises(ValueError, match=r"tensor 'adapters.0.to_(latent|real).weight_0' is .*; allowed is"):
        ActionAdapter.load(path, world)


class Joystick(gym.Wrapper):
    """MultiGrid whose four moves are the quarters of a circle that a stick points to."""

    def __init__(self, task: gym.Env) -> None:
        super().__init__(task)
        self.action_space = gym.spaces.Box(-1, 1, (2,), np.float32)

    @staticmethod
    def stick(move: np.ndarray) -> np.ndarray:
        return np.stack([np.cos(move * np.pi / 2), np.sin(move * np.pi / 2)], -1).astype(np.float32)

    def step(self, action: np.ndarray):
        assert action.shape == (2,)
        assert self.action_space.contains(action)
        move = round(float(np.arctan2(action[1], action[0]) / (np.pi / 2))) % 4
        return self.env.step(move)


@pytest.mark.learning
def test_a_box_of_actions_reaches_the_task(episodes, task: gym.Env) -> None:
    """The same episodes as labels of a stick: cloned latent actions come out as real numbers and succeed as often."""
    import flam_rl

    world, sticky = flam_rl.load_world("multigrid"), Joystick(task)
    sticks = [dataclasses.replace(e, actions=Joystick.stick(e.actions)) for e in episodes]
    labelled = LabelledTransitions.from_episodes(sticks, 1000, ActionSpace.from_gym(sticky.action_space))
    world.labels, adapter = fit_labels(world, labelled)
    assert adapter.agents.factors == (3,)
    assert not adapter.agents.differ
    assert adapter.explained[3] > 0.5 + max(adapter.explained[:3])
    video = Video(tuple(e.frames for e in record_episodes(task, 600, 1, "expert")))
    clone = BehaviorCloning.from_expert_video(world, video)
    env = DecodedEnv(sticky, world)
    won = 0
    for seed in range(20):
        seen, _ = env.reset(seed=seed)
        done = False
        while not done:
            seen, _, terminated, truncated, info = env.step(clone.predict(seen)[0])
            done = terminated or truncated
        won += info["success"]
    assert won >= 12
    bc = BehaviorCloning.from_labels(labelled)
    assert sticky.action_space.contains(bc.predict(labelled.episodes[0][0])[0])


@pytest.mark.learning
def test_an_event_stays_where_labels_saw_it() -> None:
    """A place that labels come to from one side only; what the film shows beyond it is no event."""
    generator = torch.Generator().manual_seed(0)
    world = flam_rl.load_world("pucks")
    goal, count = torch.tensor([0.5, 0.5]), 1000
    came = torch.cat(
        [
            torch.rand(count - 30, 2, generator=generator) * 1.4 - 1,
            goal - 0.12 * torch.rand(30, 2, generator=generator),
        ]
    )
    factors = torch.randn(count, world.factors, world.factor_dim, generator=generator)
    usual = torch.randn(count, world.factors, world.factor_dim, generator=generator)
    factors[:, 1, :2], usual[:, 1, :2] = came, torch.rand(count, 2, generator=generator) * 2 - 1
    event = (came - goal).norm(dim=-1) < 0.18
    data = {"next": factors, "imagined": factors, "episode": torch.arange(count) % 20}
    data["known"] = torch.ones(count, 3, dtype=torch.bool)
    beyond = factors.clone()
    beyond[:, 1, :2] = 0.85 + 0.15 * torch.rand(count, 2, generator=generator)
    said = {len(film): fit_event_head(world, data, film, event, 1.0, (1,), 0) for film in (usual, usual[:0])}
    assert (said[count](factors)[event] > 0.5).float().mean() > 0.8
    assert (said[count](beyond) > 0.5).float().mean() < 0.1
    assert (said[0](beyond) > 0.5).float().mean() > 0.5  # without the film it is an event everywhere beyond
