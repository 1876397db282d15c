"""The suites of flam-rl benchmark: cells, budgets and tasks."""

from __future__ import annotations

from dataclasses import replace

import pytest
from suites import make

from flam_rl.benchmark.budgets import BUDGETS, budget_of
from flam_rl.benchmark.cells import make_task, settle
from flam_rl.benchmark.suites import RUNGS, SUITES, TaskSettings, cell_config
from flam_rl.core.registry import TILE_MODELS
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.types import Video


@pytest.mark.parametrize("name", SUITES)
@pytest.mark.parametrize("budget", BUDGETS)
def test_cells_of_a_suite_have_names_of_their_own(name: str, budget: str) -> None:
    cells = SUITES[name](budget_of(name, budget), (0, 1), ())
    assert len({cell.name for cell in cells}) == len(cells) > 1
    assert {cell.seed for cell in cells} == {0, 1}


def test_cells_of_a_seed_differ_in_the_model_only() -> None:
    cells = SUITES["entities"](BUDGETS["full"], (3,), ())
    builds = [cell.build for cell in cells if cell.task.entities == 4]
    base = builds[0]
    assert base is not None
    assert len(builds) == len(TILE_MODELS)
    for build in builds:
        assert build is not None
        assert (build.tokenizer, build.tokenizer_training, build.seed) == (
            base.tokenizer,
            base.tokenizer_training,
            3,
        )
        assert build.world.steps == base.world.steps
        assert build.world.frames == base.world.frames
        assert replace(build.world, clip_lengths=base.world.clip_lengths) == base.world
        factorizer = replace(build.flam.factorizer, window=base.flam.factorizer.window)
        assert replace(build.flam, pull=base.flam.pull, factorizer=factorizer) == base.flam


def test_a_cell_depends_on_its_own_part_of_the_budget() -> None:
    budget = BUDGETS["small"]
    world = SUITES["entities"](budget, (0,), ())[0]
    labels = SUITES["labels"](budget, (0,), ())[0]
    longer = replace(budget, transitions=30_000)
    assert cell_config(labels, longer) == cell_config(labels, budget)
    assert cell_config(world, longer) != cell_config(world, budget)
    steps = replace(budget, world=replace(budget.world, steps=9))
    assert cell_config(SUITES["entities"](steps, (0,), ())[0], steps) != cell_config(world, budget)
    assert cell_config(world, budget, lpips=True) != cell_config(world, budget)


def test_ablations_change_one_thing() -> None:
    cells = SUITES["ablations"](BUDGETS["small"], (0,), ())
    base = cells[0].build
    assert base is not None
    assert cells[0].model == "flam"
    assert {"prior-off", "loss-features", "factors-3", "factors-7"} < {cell.model for cell in cells}
    for cell in cells[1:]:
        assert cell.build is not None
        assert (cell.build.flam != base.flam) + (cell.build.world != base.world) == 1


def test_the_ladder_of_motion() -> None:
    """Who is compared where, and on how many seeds, by the budgets."""
    first = ["four-looks", "one-look", "moving-camera", "multigrid"]
    small = SUITES["motion"](budget_of("motion", "small"), (), ())
    assert [cell.name for cell in small] == [
        f"{model}-{task}-seed0" for task in first for model in ("flam", "joint", "adaworld")
    ]
    full = SUITES["motion"](budget_of("motion", "full"), (), ())
    seeds: dict[str, set[int]] = {}
    for cell in full:
        seeds.setdefault(cell.task.name, set()).add(cell.seed)
    assert {name for name, found in seeds.items() if found == {0, 1, 2}} == {*first, "bigfish"}
    others = {"leaper", "starpilot", "tag", "spread", "freeway", "boxing"}
    assert {name for name, found in seeds.items() if found == {0}} == others
    assert {cell.model for cell in full} == {"flam", "joint", "playslot", "adaworld"}
    assert {budget_of("motion", name).transitions for name in ("small", "full")} == {12_800}


def test_a_task_is_part_of_what_a_cell_of_motion_ran_with() -> None:
    """Cells of MultiGrid's suites say what they did before tasks could be others: they are not run again."""
    budget = budget_of("motion", "small")
    cell = SUITES["motion"](budget, (), ())[0]
    harder = replace(cell, task=replace(cell.task, kwargs={"pucks": 9}))
    assert cell_config(cell, budget)["task"]["kwargs"] == {"pucks": 4, "looks": 4}
    assert cell_config(harder, budget) != cell_config(cell, budget)
    entities = SUITES["entities"](BUDGETS["small"], (), ())[0]
    assert cell_config(entities, BUDGETS["small"]).keys() == {
        *("transitions", "test_transitions", "probe_iterations", "build", "lpips", "fvd")
    }
    assert entities.name == "flam-entities2-seed0"


@pytest.mark.parametrize("task", RUNGS, ids=lambda task: task.name)
def test_tasks_of_motion_are_films_of_64_pixels(task: TaskSettings) -> None:
    make(task.id, **task.kwargs).close()  # skips where its sim is missing
    env, held_out = make_task(task), make_task(task, held_out=True)
    assert env.reset(seed=0)[0].shape == held_out.reset(seed=0)[0].shape == (64, 64, 3)
    if task.held_out:
        levels = [{one.reset(seed=seed)[1]["level"] for seed in range(5)} for one in (env, held_out)]
        assert max(levels[0]) < 200 <= min(levels[1])


def test_flam_and_its_control_are_those_that_suit_the_video() -> None:
    cells = {cell.name: cell for cell in SUITES["motion"](budget_of("motion", "small"), (), ())}
    for task, flam, joint in (("four-looks", "tracked", "tracked-joint"), ("multigrid", "flam", "joint")):
        record = record_episodes(make_task(cells[f"flam-{task}-seed0"].task), 200, 0)
        video = Video(tuple(episode.frames for episode in record))
        for model, chosen in (("flam", flam), ("joint", joint), ("adaworld", "adaworld")):
            assert settle(cells[f"{model}-{task}-seed0"], video).model == chosen
