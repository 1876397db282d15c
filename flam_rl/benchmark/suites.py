"""What is compared: suites of cells, and the tasks that they are measured on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..core.registry import ModelName
from ..models.build import BuildConfig
from ..models.tiles.tokenizer import TokenizerConfig
from ..models.tiles.tokenizer_training import TokenizerTrainingConfig
from ..types import Json
from .budgets import Budget


@dataclass(frozen=True)
class TaskSettings:
    """A task as a suite has it.

    Attributes:
        name: in names of cells and in reports.
        id: of gymnasium. kwargs: its arguments. held_out: those that differ in what is only measured on.
        entities: how many act or move at once, about; as many factors have models on tiles.
    """

    name: str
    id: str
    kwargs: Json
    entities: int
    held_out: Json = field(default_factory=dict)


def multigrid(agents: int) -> TaskSettings:
    """A room with so many agents, the caller's included."""
    return TaskSettings("multigrid", "flam_rl/MultiGrid-v0", {"agents": agents}, agents)


def _pucks(name: str, **kwargs: Any) -> TaskSettings:
    return TaskSettings(name, "flam_rl/Pucks-v0", kwargs, kwargs["pucks"])


def _procgen(game: str, entities: int) -> TaskSettings:
    levels = ({"levels": levels} for levels in ("training", "held_out"))
    return TaskSettings(game, f"flam_rl/{game.capitalize()}-v0", next(levels), entities, next(levels))


RUNGS = (
    _pucks("four-looks", pucks=4, looks=4),
    _pucks("one-look", pucks=8, looks=1, background="new_texture"),
    _pucks("moving-camera", pucks=6, background="new_texture", camera="moving", visits=True),
    multigrid(4),
    _procgen("bigfish", 8),
    _procgen("leaper", 16),
    _procgen("starpilot", 12),
    TaskSettings("tag", "flam_rl/Tag-v0", {}, 4),
    TaskSettings("spread", "flam_rl/Spread-v0", {}, 3),
    TaskSettings("freeway", "ale_py:ALE/Freeway-v5", {}, 12),
    TaskSettings("boxing", "ale_py:ALE/Boxing-v5", {}, 2),
)
"""Tasks of the motion suite, from what is easy to what is not."""


@dataclass(frozen=True)
class Cell:
    """One thing to run: it needs no other.

    Attributes:
        suite, name: the name is that of its folder.
        model: what is compared: a model, a variant of FLAM, or a way to learn a policy.
        build: what world to train, of the suites that train one.
        labels: label budget, of the cells that have one.
    """

    suite: str
    name: str
    model: str
    task: TaskSettings
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
        if cell.suite == "motion":  # the others' cells say it by their number of entities
            config["task"] = asdict(cell.task)
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
            multigrid(count),
            seed,
            _build(budget, model, count, seed),
        )
        for seed in seeds or range(budget.seeds)
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
    for seed in seeds or range(budget.seeds):
        base = _build(budget, "flam", ABLATED, seed)
        for name, variant in _variants(base).items():
            cells.append(Cell("ablations", f"{name}-seed{seed}", name, multigrid(ABLATED), seed, variant))
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
    for seed in seeds or range(budget.seeds):
        for method in ("bc", "latent-bc", "imagination"):
            for labels in budget.labels:
                name = f"{method}-labels{labels}-seed{seed}"
                cells.append(Cell("labels", name, method, multigrid(ABLATED), seed, labels=labels))
        cells.append(Cell("labels", f"real-ppo-seed{seed}", "real-ppo", multigrid(ABLATED), seed))
    return cells


def motion_suite(budget: Budget, seeds: Sequence[int], models: Sequence[ModelName]) -> list[Cell]:
    """FLAM on tiles or tracked layers, whichever suits the video, its control and rivals on things that move continuously."""
    return [
        Cell(
            "motion",
            f"{model}-{task.name}-seed{seed}",
            model,
            task,
            seed,
            _motion_build(budget, model, task, seed),
        )
        for task in RUNGS
        for seed in seeds or range(budget.rungs.get(task.name, 0))
        if task.name in budget.rungs
        for model in models or budget.models
    ]


def _motion_build(budget: Budget, model: ModelName, task: TaskSettings, seed: int) -> BuildConfig:
    """`auto` stands for the FLAM that suits the video, and of the control for the same with one latent action."""
    build = replace(_build(budget, model, task.entities, seed), tracked=budget.tracked)
    if model in ("flam", "joint"):
        return replace(build, model="auto")
    if task.name == "multigrid":
        return build
    # Where a frame does not show how things move, what suits FLAM suits models without factors too.
    return replace(_build(budget, "flam", task.entities, seed), model=model)


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
    "motion": motion_suite,
}
"""The cells of each, by budget, seeds and models; those of the budget where none are given."""
