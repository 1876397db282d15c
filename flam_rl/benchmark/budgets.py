"""How much suites may cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ..agents.ppo import ImaginationConfig
from ..core.registry import TILE_MODELS, ModelName
from ..models.tiles.training import WorldTrainingConfig
from ..models.tracked.build import TrackedBuildConfig
from ..models.tracked.training import DynamicsTrainingConfig, LookTrainingConfig, PriorTrainingConfig


@dataclass(frozen=True)
class Budget:
    """How much a suite may cost.

    Attributes:
        entities: agents in the room, of the entities suite.
        models: those of the suites of entities and of motion.
        seeds: how many, by default.
        rungs: tasks of the motion suite by name, and how many seeds each has by default.
        transitions, test_transitions: recorded to train on, and to measure on.
        world, tracked: training of models on tiles, and on tracked layers.
        labels: label budgets.
        real_steps: environment steps after which PPO on the real task is scored.
        imagination: PPO in imagination.
        episodes: on the real task, for each score.
        expert_episodes: unlabelled expert video of latent BC.
        probe_iterations: boosting rounds of the probes behind DCI.
    """

    entities: tuple[int, ...]
    models: tuple[ModelName, ...]
    seeds: int
    transitions: int
    test_transitions: int
    tokenizer_steps: int
    world: WorldTrainingConfig
    tracked: TrackedBuildConfig = field(default_factory=TrackedBuildConfig)
    rungs: Mapping[str, int] = field(default_factory=dict)
    labels: tuple[int, ...] = (100, 300, 1000, 3000, 10_000)
    real_steps: tuple[int, ...] = (1000, 3000, 10_000, 30_000, 100_000)
    imagination: ImaginationConfig = field(default_factory=ImaginationConfig)
    episodes: int = 100
    expert_episodes: int = 100
    probe_iterations: int = 20


BUDGETS: dict[str, Budget] = {
    "tiny": Budget(
        entities=(2, 3),
        models=("flam", "adaworld", "copy"),
        seeds=1,
        transitions=1500,
        test_transitions=800,
        tokenizer_steps=200,
        world=WorldTrainingConfig(steps=12, frames=64, prior_steps=10),
        labels=(100, 300),
        real_steps=(256, 512),
        imagination=ImaginationConfig(steps=2048, num_envs=32, rollout=16, batch=128, checks=1),
        episodes=5,
        expert_episodes=5,
        probe_iterations=5,
    ),
    "small": Budget(
        entities=(2, 4, 8),
        models=("flam", "playslot", "joint", "genie-matched", "adaworld", "copy"),
        seeds=3,
        transitions=20_000,
        test_transitions=5000,
        tokenizer_steps=6000,
        world=WorldTrainingConfig(steps=2500, frames=128, prior_steps=1500),
    ),
    "full": Budget(
        entities=(2, 4, 6, 8),
        models=TILE_MODELS,
        seeds=5,
        transitions=60_000,
        test_transitions=12_000,
        tokenizer_steps=6000,
        world=WorldTrainingConfig(),
        probe_iterations=40,
    ),
}
"""`tiny` shows in a minute or two that everything works and measures nothing."""

FIRST_RUNGS = ("four-looks", "one-look", "moving-camera", "multigrid")
MOTION_BUDGETS: dict[str, Budget] = {
    "tiny": replace(
        BUDGETS["tiny"],
        models=("flam", "joint"),
        transitions=400,
        test_transitions=200,
        tokenizer_steps=60,
        tracked=TrackedBuildConfig(
            looks=LookTrainingConfig(patch_steps=40, steps=40),
            dynamics_training=DynamicsTrainingConfig(steps=60),
            prior_training=PriorTrainingConfig(steps=20),
        ),
        rungs={"four-looks": 1, "multigrid": 1},
    ),
    "small": replace(
        BUDGETS["small"],
        models=("flam", "joint", "adaworld"),
        transitions=12_800,
        world=WorldTrainingConfig(),
        rungs=dict.fromkeys(FIRST_RUNGS, 1),
    ),
    "full": replace(
        BUDGETS["full"],
        models=("flam", "joint", "playslot", "adaworld"),
        transitions=12_800,
        test_transitions=10_000,
        rungs=dict.fromkeys([*FIRST_RUNGS, "bigfish"], 3)
        | dict.fromkeys(["leaper", "starpilot", "tag", "spread", "freeway", "boxing"], 1),
    ),
}
"""Of the motion suite: 12,800 frames to train on."""


def budget_of(suite: str, name: str) -> Budget:
    """The budget of that name, as the suite has it."""
    return (MOTION_BUDGETS if suite == "motion" else BUDGETS)[name]
