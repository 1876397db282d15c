"""What is compared: suites of cells, and the budgets that they run with."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..agents.ppo import ImaginationConfig
from ..core.registry import TILE_MODELS, ModelName
from ..models.build import BuildConfig
from ..models.tiles.tokenizer import TokenizerConfig
from ..models.tiles.tokenizer_training import TokenizerTrainingConfig
from ..models.tiles.training import WorldTrainingConfig
from ..types import Json


@dataclass(frozen=True)
class Budget:
    """How much a suite may cost.

    Attributes:
        entities: agents in the room, of the entities suite.
        models: those of the entities suite.
        seeds: how many, by default.
        transitions, test_transitions: recorded to train on, and to measure on.
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


@dataclass(frozen=True)
class Cell:
    """One thing to run: it needs no other.

    Attributes:
        suite, name: the name is that of its folder.
        model: what is compared: a model, a variant of FLAM, or a way to learn a policy.
        entities: agents in the room, the caller's included.
        build: what world to train, of the suites that train one.
        labels: label budget, of the cells that have one.
    """

    suite: str
    name: str
    model: str
    entities: int
    seed: int
    build: BuildConfig | None = None
    labels: int | None = None


def cell_config(cell: Cell, budget: Budget, lpips: bool = False, fvd: bool = False) -> Json:
    """All that a cell's results depend on, as JSON has it: other parts of a budget may change without it."""
    config: Json = {}
    if cell.build is None:
        config |= {key: getattr(budget, key) for key in ("episodes", "expert_episodes", "real_steps")}
        config |= {"imagination": asdict(budget.imagination)}
    else:
        config |= {
            key: getattr(budget, key) for key in ("transitions", "test_transitions", "probe_iterations")
        }
        config |= {"build": asdict(cell.build), "lpips": lpips, "fvd": fvd}
    found: Json = json.loads(json.dumps(config))
    return found


def entities_suite(budget: Budget, seeds: Sequence[int], models: Sequence[ModelName]) -> list[Cell]:
    """Every model on rooms with more and more agents."""
    return [
        Cell(
            "entities",
            f"{model}-entities{count}-seed{seed}",
            model,
            count,
            seed,
            _build(budget, model, count, seed),
        )
        for seed in seeds
        for count in budget.entities
        for model in models or budget.models
    ]


TOKENIZER_PSNR = 66.0
"""dB at which a tokenizer is good enough: more agents are not to look worse because their tokenizer is."""
SCENE_CLIPS, SCENE_PULL, SCENE_WINDOW = (2,), 0.1, 1
"""Clip lengths, pull and window of the models without factors. Clips of 2 frames have no past to learn from, and a frame
of MultiGrid shows all that matters."""
ABLATED = 4
"""Agents in the room of the ablations and of the labels."""


def ablations_suite(budget: Budget, seeds: Sequence[int], models: Sequence[ModelName]) -> list[Cell]:
    """FLAM with one thing changed."""
    cells = []
    for seed in seeds:
        base = _build(budget, "flam", ABLATED, seed)
        for name, variant in _variants(base).items():
            cells.append(Cell("ablations", f"{name}-seed{seed}", name, ABLATED, seed, variant))
    return cells


def _variants(base: BuildConfig) -> dict[str, BuildConfig]:
    def flam(**changes: Any) -> BuildConfig:
        return replace(base, flam=replace(base.flam, **changes))

    def factorizer(**changes: Any) -> BuildConfig:
        return flam(factorizer=replace(base.flam.factorizer, **changes))

    def world(**changes: Any) -> BuildConfig:
        return replace(base, world=replace(base.world, **changes))

    def beta(times: float) -> BuildConfig:
        was = base.world
        return world(beta=times * was.beta, beta_start=times * was.beta_start, beta_end=times * was.beta_end)

    return {
        "flam": base,
        "aggregator-transformer": flam(aggregator=replace(base.flam.aggregator, kind="transformer")),
        "loss-features": flam(objective="features"),
        "temporal-attention-off": factorizer(temporal_attention=False),
        "beta-tenth": beta(0.1),
        "beta-tenfold": beta(10.0),
        **{
            f"factors-{count}": factorizer(factors=count)
            for count in range(ABLATED - 1, ABLATED + 4)
            if count != ABLATED
        },
        "prior-off": world(prior_steps=0),
        "factor-dim-32": factorizer(factor_dim=32),
        "factor-dim-128": factorizer(factor_dim=128),
    }


def labels_suite(budget: Budget, seeds: Sequence[int], models: Sequence[ModelName]) -> list[Cell]:
    """Success on the real task against the label budget, in the shipped world; and PPO on the real task."""
    cells = []
    for seed in seeds:
        for method in ("bc", "latent-bc", "imagination"):
            for labels in budget.labels:
                name = f"{method}-labels{labels}-seed{seed}"
                cells.append(Cell("labels", name, method, ABLATED, seed, labels=labels))
        cells.append(Cell("labels", f"real-ppo-seed{seed}", "real-ppo", ABLATED, seed))
    return cells


def _build(budget: Budget, model: ModelName, entities: int, seed: int) -> BuildConfig:
    base = BuildConfig(
        model=model,
        seed=seed,
        tokenizer=TokenizerConfig(codebook_size=128),
        tokenizer_training=TokenizerTrainingConfig(steps=budget.tokenizer_steps, enough=TOKENIZER_PSNR),
        world=budget.world,
    )
    base = replace(base, flam=replace(base.flam, factorizer=replace(base.flam.factorizer, factors=entities)))
    if model in ("flam", "playslot", "joint"):
        return base
    # Models without factors train better on short clips and with less pull: docs/results.md has the figures.
    alone = replace(base.flam.factorizer, window=SCENE_WINDOW)
    scene = replace(base.world, clip_lengths=SCENE_CLIPS)
    return replace(base, flam=replace(base.flam, pull=SCENE_PULL, factorizer=alone), world=scene)


SUITES: dict[str, Callable[[Budget, Sequence[int], Sequence[ModelName]], list[Cell]]] = {
    "entities": entities_suite,
    "ablations": ablations_suite,
    "labels": labels_suite,
}
