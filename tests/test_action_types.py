"""FLAM-v0 by latent actions, action codes and the task's own actions."""

from __future__ import annotations

import json
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from analytic import CODES, JointPointsModel, PointsTask, points_labels, points_world, set_affine
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Box, Discrete, MultiDiscrete
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_checker import check_env as check_for_sb3
from stable_baselines3.common.vec_env import SubprocVecEnv

import flam_rl
from flam_rl.actions import ActionSpace
from flam_rl.core.adapters import make_adapter
from flam_rl.core.agent import Agents
from flam_rl.core.world import World
from flam_rl.envs import DecodedEnv, DecodedVectorEnv, FLAMEnv, FLAMVectorEnv, make_sb3_vec_env

TYPES = ("latent", "codes", "real")


def two_agents() -> World:
    """The world of points in which one number of each action moves point 2 and the other point 0."""
    world = points_world(labels=False)
    world.labels = points_labels((2, 0))
    return world


def worlds() -> dict[str, World]:
    return {
        "points": points_world(),
        "points, two agents": two_agents(),
        "multigrid": flam_rl.load_world("multigrid"),
        "pucks": flam_rl.load_world("pucks"),
    }


WORLDS = worlds()


@pytest.mark.parametrize(
    ("name", "control", "actions", "space"),
    [
        ("points", [1], "codes", Discrete(5)),
        ("points", "all", "codes", MultiDiscrete([5] * 3)),
        ("points", "agent", "real", Discrete(5)),
        ("points", [1, 2], "latent", Box(-3, 3, (4,))),
        ("points, two agents", "agent", "codes", MultiDiscrete([5, 5])),
        ("points, two agents", "agent", "real", MultiDiscrete([5, 5])),
        ("multigrid", "agent", "codes", Discrete(16)),
        ("multigrid", [0, 2], "codes", MultiDiscrete([16, 16])),
        ("multigrid", "agent", "real", Discrete(4)),
        ("multigrid", [3], "real", Discrete(4)),
        ("pucks", [0], "codes", Discrete(64)),
        ("pucks", "all", "codes", MultiDiscrete([64] * 4)),
    ],
)
def test_action_spaces(name: str, control: Any, actions: Any, space: gym.Space) -> None:
    assert FLAMEnv(WORLDS[name], control, actions=actions).action_space == space
    batch = FLAMVectorEnv(3, WORLDS[name], control, actions=actions)
    assert batch.single_action_space == space
    assert batch.action_space.shape == (3, *space.shape)


@pytest.mark.parametrize("actions", TYPES)
@pytest.mark.parametrize("name", WORLDS)
def test_both_env_checkers_pass(name: str, actions: Any) -> None:
    if (name, actions) == ("pucks", "real"):
        return  # it has no labels
    control = "all" if name == "pucks" else "agent"
    env = gym.make("FLAM-v0", world=WORLDS[name], control=control, horizon=8, actions=actions).unwrapped
    with warnings.catch_warnings():
        # Latent actions are in their own units, about standard normal; both checkers advise -1..1.
        warnings.filterwarnings("ignore", message=".*symmetric and normalized.*")
        check_env(env)
        check_for_sb3(env)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"actions": "keys"}, "actions is 'keys'; allowed are 'latent', 'codes', 'real'"),
        ({"actions": 3}, "actions is 3; allowed are 'latent', 'codes', 'real'"),
        (
            {"actions": "real", "world": "pucks", "control": "all"},
            "actions is 'real', but this world has no labels that tell what the task's actions do; "
            "allowed are 'latent' and 'codes'",
        ),
        ({"actions": "real", "control": "all"}, r"control is \[0, 1, 2, 3\]; allowed is 'agent'"),
        ({"actions": "real", "control": [0]}, r"control is \[0\]; allowed is 'agent': the task's actions"),
    ],
)
def test_types_that_a_world_has_not_are_refused(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FLAMEnv(**arguments)


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ("codes", "this world's model has no action codes; allowed are 'latent' and, with labels, 'real'"),
        ("real", "one latent action cannot stand for what 2 agents do; allowed is 'latent'"),
    ],
)
def test_types_that_need_more_than_one_latent_action_for_all_are_refused(actions: Any, message: str) -> None:
    points = two_agents()
    world = World(JointPointsModel(), points.stored_starts, points.info, points.labels)
    with pytest.raises(ValueError, match=message):
        FLAMEnv(world, actions=actions)


@pytest.mark.parametrize(
    ("actions", "control", "given", "message"),
    [
        ("codes", [0], 5, r"actions hold 5 to 5; allowed are those of Discrete\(5\)"),
        ("codes", [0], -1, r"actions hold -1 to -1; allowed are those of Discrete\(5\)"),
        (
            "codes",
            [0],
            1.0,
            r"float64 of shape \(\); allowed are whole numbers of shape \(\), of Discrete\(5\)",
        ),
        ("codes", [0], np.nan, "actions are float64"),
        ("codes", [0], True, "actions are bool"),
        ("codes", [0], [1, 2], r"actions are int64 of shape \(2,\)"),
        (
            "codes",
            [0, 1],
            1,
            r"int64 of shape \(\); allowed are whole numbers of shape \(2,\), of MultiDiscrete",
        ),
        ("codes", [0, 1], [4, 5], "actions hold 4 to 5"),
        ("real", "agent", 5, "actions hold 5 to 5"),
        ("real", "agent", 0.5, "actions are float64"),
        ("latent", [0], [np.nan, 0], "latent actions must be finite numbers"),
        ("latent", [0], 0, r"latent actions have shape \(\); allowed is \(2,\)"),
    ],
)
def test_bad_actions_are_named(actions: Any, control: Any, given: Any, message: str) -> None:
    env = FLAMEnv(points_world(), control, actions=actions)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=message):
        env.step(given)


@pytest.mark.parametrize(
    ("name", "control"),
    [("points", [1]), ("points", "all"), ("multigrid", "agent"), ("multigrid", "all"), ("pucks", [0, 3])],
)
def test_a_code_is_its_latent_action(name: str, control: Any) -> None:
    by_code = FLAMVectorEnv(4, WORLDS[name], control, actions="codes")
    by_latent = FLAMVectorEnv(4, WORLDS[name], control)
    codes = WORLDS[name].model.action_codes.numpy()
    allowed = np.flatnonzero(np.abs(codes).max(1) <= 3)  # those that latent actions within their bounds reach
    assert np.array_equal(by_code.reset(seed=2)[0], by_latent.reset(seed=2)[0])
    rng = np.random.default_rng(0)
    for _ in range(6):
        action = rng.choice(allowed, by_code.action_space.shape)
        ours = by_code.step(action)
        theirs = by_latent.step(codes[action].reshape(4, -1))
        assert all(np.array_equal(one, other) for one, other in zip(ours[:4], theirs[:4], strict=True))


@pytest.mark.parametrize("name", ["points", "multigrid", "pucks"])
def test_the_mask_holds_the_codes_that_snapping_leaves_as_they_are(name: str) -> None:
    world = WORLDS[name]
    env = FLAMVectorEnv(3, world, "all", actions="codes", autoreset_mode=AutoresetMode.DISABLED)
    _, info = env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(2):
        assert np.array_equal(info["action_mask"], env.action_masks())
        codes = world.model.action_codes
        mask = info["action_mask"].reshape(3, world.latent_actions, len(codes))
        for factor in range(world.latent_actions):
            for number, code in enumerate(codes):
                taken = world.snap(env.factors_BKS, factor, code.expand(3, -1))
                assert np.array_equal((taken == code).all(1), mask[:, factor, number])
        assert mask.any(2).all()
        assert mask.all() == (name == "points")
        info = env.step(env.action_space.sample())[4]


def test_only_codes_have_a_mask() -> None:
    env = FLAMEnv(points_world())
    assert "action_mask" not in env.reset(seed=0)[1]
    assert env.action_masks() is None
    batch = make_sb3_vec_env(num_envs=2, world=points_world())
    batch.reset()
    with pytest.raises(
        ValueError, match=r"action_masks is for action codes; make the env with actions=.codes."
    ):
        batch.env_method("action_masks")


def test_in_imagination_four_turns_to_the_left_bring_the_agent_back() -> None:
    world = WORLDS["multigrid"]
    env = FLAMVectorEnv(16, world, actions="real")
    env.reset(seed=0)
    place = world.labels.agents.factors[0]

    def looks() -> torch.Tensor:
        """Where the agent's factor is drawn, and as what."""
        return world.shares(env.scene)[:, place, None].movedim(1, -1) * torch.as_tensor(
            np.stack(env.render())
        )

    seen = [looks()]
    for _ in range(4):
        _, _, terminated, _, _ = env.step(np.zeros(16, np.int64))
        assert not terminated.any()
        seen.append(looks())
    changed = [(now - seen[0]).abs().amax((1, 2, 3)) for now in seen[1:]]
    assert all((change > 60).all() for change in changed[:3])
    assert (changed[3] < 30).all()


def test_a_script_of_real_actions_runs_on_the_task_as_it_is() -> None:
    world, script = WORLDS["multigrid"], [2, 0, 2, 1, 2, 2, 3, 0, 2, 1]
    real = DecodedEnv(gym.make("flam_rl/MultiGrid-v0"), world, actions="real")
    plain = gym.make("flam_rl/MultiGrid-v0")
    assert real.action_space == plain.action_space == FLAMEnv(world, actions="real").action_space
    assert real.observation_space == FLAMEnv(world).observation_space
    real.reset(seed=3)
    plain.reset(seed=3)
    for action in script:
        ours, theirs = real.step(action), plain.step(action)
        assert np.array_equal(real.render(), theirs[0])
        assert ours[1:4] == theirs[1:4]
        if ours[2]:
            break


@pytest.mark.parametrize("agents", [(0,), (2, 0)])
def test_real_actions_do_the_same_imagined_and_on_the_task(agents: tuple[int, ...]) -> None:
    world = points_world() if agents == (0,) else two_agents()
    tasks = SyncVectorEnv([lambda: PointsTask(agents=agents)] * 4, autoreset_mode="Disabled")
    real = DecodedVectorEnv(tasks, world, actions="real")
    imagined = FLAMVectorEnv(4, world, actions="real")
    assert real.action_space == imagined.action_space == tasks.action_space
    rng = np.random.default_rng(0)
    for seed in range(3):
        seen = real.reset(seed=seed)[0], imagined.reset(seed=seed)[0]
        action = rng.integers(5, size=tasks.action_space.shape)
        before = [one.reshape(4, 3, 2)[:, agents] for one in seen]
        seen = real.step(action)[0], imagined.step(action)[0]
        wanted = CODES[action].reshape(4, len(agents), 2) * 2 / 15
        for was, now in zip(before, seen, strict=True):
            now = now.reshape(4, 3, 2)[:, agents]
            assert np.allclose(now, (was + wanted).clip(-1, 1), atol=1e-5)


def test_real_actions_of_a_box_are_clipped_to_it() -> None:
    world = points_world()
    stick = ActionSpace.from_gym(Box(-1, 1, (2,)))
    adapter = make_adapter(2, 2, stick)
    set_affine(adapter.to_latent, np.eye(4)[:, 2:], np.zeros(2))  # the latent action is the real one
    world.labels.agents = Agents(stick, [0], [[0, 1]], [adapter])
    env = FLAMEnv(world, actions="real")
    assert env.action_space == Box(-1, 1, (2,))
    for given in ([1, 0], [7, 0]):
        before, _ = env.reset(seed=0)
        assert np.allclose(env.step(np.array(given))[0][:2], before[:2] + [2 / 15, 0], atol=1e-5)
    with pytest.raises(ValueError, match="actions hold nan; allowed are finite numbers"):
        env.step(np.array([np.nan, 0]))
    with pytest.raises(ValueError, match=r"actions have shape \(3,\); allowed is \(2,\)"):
        env.step(np.zeros(3))


def test_codes_act_on_the_task_as_their_latent_actions() -> None:
    world = WORLDS["multigrid"]
    by_code = DecodedEnv(gym.make("flam_rl/MultiGrid-v0"), world, actions="codes")
    by_latent = DecodedEnv(gym.make("flam_rl/MultiGrid-v0"), world)
    by_code.reset(seed=1)
    by_latent.reset(seed=1)
    assert by_code.action_space == Discrete(16)
    assert by_latent.action_masks() is None
    codes = world.model.action_codes
    for _ in range(8):
        mask = by_code.action_masks()
        assert mask.shape == (16,)
        action = int(np.flatnonzero(mask)[-1])
        ours, theirs = by_code.step(action), by_latent.step(codes[action].numpy())
        assert np.array_equal(ours[0], theirs[0])
        if ours[2] or ours[3]:
            break


@pytest.mark.parametrize("actions", TYPES)
def test_a_spec_holds_the_type_of_actions(actions: str) -> None:
    env = gym.make("FLAM-v0", actions=actions)
    text = env.spec.to_json()
    assert json.loads(text)["kwargs"] == {"actions": actions}
    assert gym.make(EnvSpec.from_json(text)).action_space == env.action_space


@pytest.mark.parametrize("actions", ["codes", "real"])
def test_in_processes_of_their_own(actions: Any) -> None:
    env = gym.make_vec("FLAM-v0", num_envs=2, vectorization_mode="async", actions=actions)
    one = gym.make("FLAM-v0", actions=actions)
    observations, infos = env.reset(seed=4)
    assert np.array_equal(observations[0], one.reset(seed=4)[0])
    following, _, _, _, infos = env.step(np.array([1, 2]))
    assert np.array_equal(following[0], one.step(1)[0])
    if actions == "codes":
        assert infos["action_mask"].shape == (2, 16)
    env.close()


class Taken(BaseCallback):
    """The masks that an agent was given, and what it did."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[np.ndarray, np.ndarray]] = []

    def _on_step(self) -> bool:
        self.steps.append((self.locals["action_masks"], self.locals["actions"]))
        return True


def test_maskable_ppo_learns_by_codes() -> None:
    env = make_sb3_vec_env(num_envs=8, world=WORLDS["multigrid"], control=[3, 0], actions="codes", horizon=6)
    env.seed(0)
    env.reset()
    masks = env.env_method("action_masks")
    assert np.array_equal(np.stack(masks), env.get_attr("action_masks")[0]())
    assert np.array_equal(env.env_method("action_masks", indices=[5])[0], masks[5])
    taken = Taken()
    model = MaskablePPO("MlpPolicy", env, n_steps=8, batch_size=32, n_epochs=1, seed=0)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    model.learn(128, callback=taken)
    assert len(taken.steps) == 16
    for mask, actions in taken.steps:  # none but plausible codes are tried
        assert np.take_along_axis(mask.reshape(8, 2, 16), actions[..., None], 2).all()
    after = list(model.policy.parameters())
    assert any(not torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_maskable_ppo_takes_single_envs_in_processes() -> None:
    env = SubprocVecEnv([lambda: FLAMEnv(actions="codes", horizon=4)] * 2, start_method="fork")
    MaskablePPO("MlpPolicy", env, n_steps=4, batch_size=8, n_epochs=1, seed=0).learn(8)
    env.close()
