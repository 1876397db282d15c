"""flam-rl benchmark: cells in processes of their own, here and on Ray, and what is written of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import product
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from suites import make

from flam_rl.benchmark.budgets import BUDGETS, budget_of
from flam_rl.benchmark.cells import make_task, run_cell, settle
from flam_rl.benchmark.estimates import interquartile_mean, interquartile_means
from flam_rl.benchmark.report import write_report
from flam_rl.benchmark.runner import finished, run_cells
from flam_rl.benchmark.suites import RUNGS, SUITES, Cell, TaskSettings, cell_config, multigrid
from flam_rl.cli import main
from flam_rl.core.registry import TILE_MODELS
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.results import made_by, write_results
from flam_rl.types import Json, Video

CELLS = [
    Cell("entities", name, "flam", multigrid(2), 0) for name in ("good", "bad", "killed", "silent", "late")
]
WRITE = (
    "import json, sys; "
    "json.dump({'ran': sys.argv[2], 'config': {'steps': 1}}, open(sys.argv[1] + '/results.json', 'w'))"
)
PROGRAMS = {
    "good": WRITE,
    "bad": "raise ValueError('no such luck')",
    "killed": "print('I was here', flush=True); import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
    "silent": "pass",  # ends well and writes nothing
    "late": WRITE,
}


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("address", [None, pytest.param("local", marks=pytest.mark.learning)])
def test_a_failed_cell_loses_no_other(tmp_path: Path, address: str | None) -> None:
    def run(programs: dict[str, str], said: str, steps: int = 1) -> tuple[dict[str, str], int]:
        calls: list[int] = []
        failed = run_cells(
            CELLS,
            tmp_path,
            lambda cell: {"steps": steps},
            lambda cell: [sys.executable, "-c", programs[cell.name], str(tmp_path / cell.name), said],
            2,
            address,
            lambda failed: calls.append(len(failed)),
        )
        return failed, len(calls)

    failed, calls = run(PROGRAMS, "first")
    assert calls == 5
    assert failed.keys() == {"bad", "killed", "silent"}
    assert failed["bad"] == "status 1: ValueError: no such luck"
    assert failed["killed"] == "status -9: I was here"
    assert finished(tmp_path / "late") == {"ran": "first", "config": {"steps": 1}}
    assert "no such luck" in (tmp_path / "bad" / "output.txt").read_text()
    if address is None:
        # Again: what finished stays, what failed is tried again, what is asked for otherwise is done anew.
        failed, calls = run({**PROGRAMS, "bad": WRITE}, "second")
        assert (failed.keys(), calls) == ({"killed", "silent"}, 3)
        assert [finished(tmp_path / name)["ran"] for name in ("good", "bad")] == ["first", "second"]  # type: ignore[index]
        assert finished(tmp_path / "good", {"steps": 2}) is None
        run({**PROGRAMS, "bad": WRITE}, "third", steps=2)
        assert finished(tmp_path / "good")["ran"] == "third"  # type: ignore[index]


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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--suite", "speed"], "suite is 'speed'; allowed are entities, ablations, labels, motion"),
        (["--budget", "huge"], "budget is 'huge'; allowed are tiny, small, full"),
        (
            ["--models", "flam", "dreamer"],
            "model is 'dreamer'; allowed are flam, genie, genie-matched, adaworld",
        ),
        (["--suite", "labels", "--models", "flam"], "the suite labels has no models to choose"),
        (["--seeds", "0", "0"], "seeds are (0, 0); each may be given once"),
        (["--workers", "0"], "workers is 0; allowed is 1 or more"),
        (["--cell", "x", "--budget", "tiny"], "cell is 'x'; allowed are flam-entities2-seed0"),
        (["--lpips-weights", "setup.cfg"], "setup.cfg: not the state dict of torchvision's AlexNet"),
        (["--fvd-weights", "setup.cfg"], "setup.cfg: no TorchScript"),
    ],
)
def test_bad_use_says_what_is_allowed(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", *arguments])
    assert message in capsys.readouterr().err


def test_a_cluster_that_is_not_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = ["--out", str(tmp_path / "results"), "--work", str(tmp_path / "work")]
    with pytest.raises(SystemExit, match="2"):
        main(["benchmark", "--budget", "tiny", "--address", "auto", *folders])
    assert "address is 'auto', and no Ray cluster is there" in capsys.readouterr().err


def squeezed(path: Path) -> str:
    """A report without the spaces that line up its columns."""
    return re.sub(" +", " ", path.read_text())


def test_interquartile_means_of_known_values() -> None:
    assert interquartile_mean([1.0, 2.0, 3.0, 100.0])[0] == 2.5
    middle, low, high = interquartile_mean([1.0, 2.0, 3.0])
    assert low < middle == 2.0 < high
    assert interquartile_mean([4.0]) == (4.0, 4.0, 4.0)
    one, empty, two = interquartile_means([[4.0], [], [1.0, 2.0, 3.0]])
    assert (one, two) == ((4.0, 4.0, 4.0), (middle, low, high))
    assert np.isnan(empty).all()


def test_intervals_hold_what_all_draws_of_seeds_give() -> None:
    """Of 4 seeds there are 256 draws: the interval's ends are percentiles of their interquartile means."""
    seeds = [10.0, 11.0, 13.0, 17.0]
    means = [np.mean(sorted(draw)[1:3]) for draw in product(seeds, repeat=4)]
    expected = np.percentile(means, [2.5, 97.5])
    assert interquartile_mean(seeds)[1:] == pytest.approx(expected, abs=0.5)


def test_intervals_are_the_same_each_time_and_leave_other_draws_alone() -> None:
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    first = interquartile_mean([1.0, 2.0, 4.0, 8.0, 16.0])
    np.random.seed(5)  # noqa: NPY002
    assert interquartile_mean([1.0, 2.0, 4.0, 8.0, 16.0]) == first
    assert (np.random.random(3) == expected).all()  # noqa: NPY002


@pytest.mark.learning
def test_floors_are_beside_their_figures(tmp_path: Path) -> None:
    """In the tables and in the plots, of the suites of entities and of ablations."""
    docs = Path(__file__).parent.parent / "docs" / "results"
    for suite in ("entities", "ablations"):
        results = json.loads((docs / suite / "results.json").read_text())
        for cell in results["cells"]:
            cell["psnr"]["floors"] = {"last_frame": {"1": 20.25, "5": 19.0, "15": 18.5}}
            cell["dci"] = (cell["dci"] or {}) | {"floors": {"chance": {"disentanglement": 0.0}}}
            cell |= {"fvd": 12.5, "fvd_floors": {"last_frame": 99.5}}
            cell["tracking"] = {"hota": 0.5, "floors": {"random_identities": {"hota": 0.125}}}
        (tmp_path / "results.json").write_text(json.dumps(results))
        text = squeezed(write_report(tmp_path, suite, "small", "flam-rl benchmark"))
        if suite == "entities":
            assert "| floor: last frame copied | 20.2 | 20.2 | 20.2 |" in text
            assert "## Tracking, HOTA" in text
            assert "| floor: random identities | 0.125 | 0.125 | 0.125 |" in text
            assert "| floor: chance | 0.000 | 0.000 | 0.000 |" in text
            assert "| floor: last frame copied | 99.5 | 99.5 | 99.5 |" in text
        else:
            assert "| floor: last frame copied | 20.2 | 18.5 |" in text
            assert "| 99.5 |" in text
            assert "| HOTA |" in text
        assert "floor: last frame copied" in (tmp_path / f"{suite}.svg").read_text()


@pytest.mark.learning
def test_an_interrupted_suite_goes_on_where_it_was(tmp_path: Path) -> None:
    """Real cells: the floor and the ceiling on the tiny budget, interrupted after the first."""
    out, work = tmp_path / "results", tmp_path / "work"
    arguments = ["--budget", "tiny", "--models", "copy", "oracle", "--out", str(out), "--work", str(work)]
    command = [sys.executable, "-m", "flam_rl.cli", "benchmark", *arguments, "--workers", "1"]
    path = out / "entities" / "results.json"
    running = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        start_new_session=True,
        # Tests that a shell runs in the background ignore SIGINT, and so would their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 400  # a cell takes 10 seconds, and several times that beside other work
    while not path.exists() and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    os.killpg(running.pid, signal.SIGINT)
    _, said = running.communicate(timeout=60)
    assert running.returncode == 130
    assert b"interrupted" in said
    before = json.loads(path.read_text())["cells"]
    assert 1 <= len(before) < 4

    subprocess.run([*command[:-1], "2", "--address", "local"], check=True, capture_output=True)  # now on Ray
    cells = json.loads(path.read_text())["cells"]
    assert [(c["model"], c["entities"]) for c in cells] == [
        ("copy", 2),
        ("oracle", 2),
        ("copy", 3),
        ("oracle", 3),
    ]
    assert cells[0] == before[0]
    assert json.loads(path.read_text())["failed"] == {}
    floor, ceiling = cells[2:]
    for key in (
        "psnr",
        "ssim",
        "dci",
        "parameters",
        "wall_s",
        "config",
        "transfer",
        "kl_per_factor",
    ):
        assert ceiling[key] is not None, key
    assert ceiling["masks"] is None  # one factor draws everything
    assert floor["parameters"] == 0
    assert (floor["transfer"]["same_heading"], floor["transfer"]["any_heading"]) == (0, 0)
    # The same video, the same tokenizer.
    assert floor["reconstruction_psnr"] == ceiling["reconstruction_psnr"]
    text = squeezed(path.parent / "README.md")
    assert "LPIPS and FVD are left out" in text
    with pytest.raises(SystemExit, match="2"):  # a report of other cells is not replaced
        main(["benchmark", "--budget", "tiny", "--out", str(out), "--work", str(work)])
    assert "| copy |" in text
    assert imageio.imread(path.parent / "entities.png").std() > 0
    assert (path.parent / "entities.svg").read_text().startswith("<?xml")
    assert f"--out {out} --workers 2`" in text  # the command that makes the same report again
    assert "![correspondence](correspondence.png)" in text
    assert imageio.imread(path.parent / "correspondence.png").std() > 0
    world = work / "entities-tiny" / "oracle-entities3-seed0" / "world"
    main(["evaluate", "--world", str(world), "--steps", "300", "--out", str(tmp_path / "evaluated")])
    evaluated = json.loads((tmp_path / "evaluated" / "results.json").read_text())
    assert evaluated["dci"] is not None


@pytest.mark.learning
def test_the_suite_of_motion_runs_and_goes_on(tmp_path: Path) -> None:
    """Real cells of both families on the tiny budget; one that is lost is run again, and no other."""
    out, work = tmp_path / "results", tmp_path / "work"
    arguments = ["--suite", "motion", "--budget", "tiny", "--out", str(out), "--work", str(work)]
    main(["benchmark", *arguments])
    results = json.loads((out / "motion" / "results.json").read_text())
    assert (results["failed"], results["missing"]) == ({}, [])
    kinds = [(cell["task"], cell["model"], cell["kind"]) for cell in results["cells"]]
    assert kinds == [
        ("four-looks", "flam", "tracked"),
        ("four-looks", "joint", "tracked-joint"),
        ("multigrid", "flam", "flam"),
        ("multigrid", "joint", "joint"),
    ]
    flam, joint = results["cells"][:2]
    assert len(flam["kl_per_factor"]) == 4
    assert len(joint["kl_per_factor"]) == 1
    # The same tracks of the same video, and so the same floors.
    assert flam["tracking"]["hota"] == joint["tracking"]["hota"] > 0.9
    floors = flam["foreground"]["15"]["floors"]
    assert floors == joint["foreground"]["15"]["floors"]
    assert flam["foreground"]["1"]["psnr"] > flam["foreground"]["1"]["floors"]["last_frame"]["psnr"]
    text = squeezed(out / "motion" / "README.md")
    for name, row in (("last frame copied", "last_frame"), ("background alone", "background")):
        shown = [f"{flam['foreground'][steps]['floors'][row]['psnr']:.1f}" for steps in ("1", "5", "15")]
        assert f"| floor: {name} | {' | '.join(shown)} |" in text
    assert imageio.imread(out / "motion" / "motion.png").std() > 0

    stamps = {path: path.stat().st_mtime_ns for path in work.glob("*/*/results.json")}
    lost = work / "motion-tiny" / "joint-multigrid-seed0" / "results.json"
    lost.unlink()
    main(["benchmark", *arguments])
    assert {path for path, stamp in stamps.items() if path.stat().st_mtime_ns != stamp} == {lost}


@pytest.mark.learning
@pytest.mark.parametrize("model", ["bc", "latent-bc", "imagination", "real-ppo"])
def test_cells_of_the_labels_suite_run(model: str, tmp_path: Path) -> None:
    budget = BUDGETS["tiny"]
    cell = next(cell for cell in SUITES["labels"](budget, (0,), ()) if cell.model == model)
    found = run_cell(cell, budget, tmp_path)
    scores = [point["success"] for point in found["curve"]] if model == "real-ppo" else [found["success"]]
    assert all(0 <= score <= 1 for score in scores)
    assert found["wall_s"] > 0
    json.dumps(found)


@pytest.mark.learning
def test_a_cell_of_the_ablations_runs_and_is_reported(tmp_path: Path) -> None:
    budget = BUDGETS["tiny"]
    cell = next(cell for cell in SUITES["ablations"](budget, (0,), ()) if cell.model == "prior-off")
    found = run_cell(cell, budget, tmp_path)
    assert found["imagination_validity"] is not None
    found["made_by"] = made_by(0)
    write_results(tmp_path, {"cells": [found], "failed": {}}, 0)
    text = squeezed(write_report(tmp_path, "ablations", "tiny", "flam-rl benchmark"))
    assert "| prior-off |" in text
    assert "LPIPS and FVD are left out" in text
    assert f"| {found['parameters'] / 1000:.0f} |" in text
    measured = {"lpips": {"1": 0.125, "5": 0.25, "15": 0.5}, "fvd": 77.0}
    write_results(tmp_path, {"cells": [found | measured | {"model": "flam"}], "failed": {}}, 0)
    text = squeezed(write_report(tmp_path, "ablations", "tiny", "flam-rl benchmark"))
    assert "| LPIPS 1 | FVD |" in text
    assert "| 0.1250 | 77.0 |" in text
    assert "left out" not in text
    text = squeezed(write_report(tmp_path, "entities", "tiny", "flam-rl benchmark"))
    assert "## LPIPS after 15 steps" in text
    assert "## FVD" in text
    assert "left out" not in text


def test_a_report_of_motion_has_floors_intervals_and_what_is_missing(tmp_path: Path) -> None:
    """Three seeds of what the docs have one of."""
    docs = Path(__file__).parent.parent / "docs" / "results" / "motion"
    results = json.loads((docs / "results.json").read_text())
    cell = results["cells"][0]
    fifteen, after_15 = cell["foreground"]["15"], {"flam": 30.0, "joint": 20.0}
    results |= {"cells": [], "missing": ["flam-one-look-seed0"]}
    for (model, psnr), seed in product(after_15.items(), range(3)):
        foreground = cell["foreground"] | {"15": fifteen | {"psnr": psnr + seed}}
        results["cells"].append(cell | {"model": model, "seed": seed, "foreground": foreground})
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = squeezed(write_report(tmp_path, "motion", "full", "flam-rl benchmark --suite motion"))
    assert "| four-looks | joint | 31.0 [30.0, 32.0] | 21.0 [20.0, 22.0] | 10.0 | 3 | yes |" in text
    assert "## Not run yet flam-one-look-seed0" in " ".join(text.split())
    for name, row in (("last frame copied", "last_frame"), ("background alone", "background")):
        shown = [f"{cell['foreground'][steps]['floors'][row]['psnr']:.1f}" for steps in ("1", "5", "15")]
        assert f"| floor: {name} | {' | '.join(shown)} |" in text
        assert f"floor: {name}" in (tmp_path / "motion.svg").read_text()


def test_the_labels_report(tmp_path: Path) -> None:
    abacus = made_by(0) | {
        "gpu": None,
        "cpu": "an abacus",
        "threads": 1,
        "commit": "0123456789abcdef",
        "dirty": True,
    }
    cells: list[Json] = [
        {
            "model": model,
            "labels": labels,
            "seed": seed,
            "success": 0.1 * seed + (0.5 if model == "imagination" else 0),
        }
        for model in ("bc", "latent-bc", "imagination")
        for labels in (100, 1000)
        for seed in (0, 1, 2)
    ]
    curve = [{"steps": 256, "success": 0.1}, {"steps": 512, "success": 0.2}]
    cells.append({"model": "real-ppo", "labels": None, "seed": 0, "curve": curve})
    cells = [{"wall_s": 60.0, "made_by": abacus, **cell} for cell in cells]
    results = {"cells": cells, "failed": {"x": "lost"}}
    (tmp_path / "results.json").write_text(json.dumps(results))
    text = squeezed(write_report(tmp_path, "labels", "small", "flam-rl benchmark"))
    assert "| PPO in imagination | 0.60 [0.50, 0.70] |" in text
    assert "| success | 0.10 | 0.20 |" in text
    assert "an abacus, threads of a cell: 1, flam_rl 0.1.0, commit 0123456789ab with changes" in text
    assert "- x: lost" in text
    assert imageio.imread(tmp_path / "labels.png").std() > 0


@pytest.mark.parametrize(
    "suite",
    [
        *SUITES,
        *(
            pytest.param(f"{part}/entities", marks=pytest.mark.learning)
            for part in ("lapo", "fresh", "before-mend")
        ),
    ],
)
def test_a_report_in_the_docs_is_what_its_results_say(suite: str, tmp_path: Path) -> None:
    docs = Path(__file__).parent.parent / "docs" / "results" / suite
    text = (docs / "README.md").read_text()
    command = text.split("`")[1]
    shutil.copy(docs / "results.json", tmp_path)
    assert write_report(tmp_path, Path(suite).name, "small", command).read_text() == text
    if suite == "entities":
        assert "From 2 to 8 entities FLAM itself loses 0.3 [-1.3, 1.7] dB." in text
        rows = [re.sub(" +", " ", line).split(" | ") for line in text.splitlines() if line.startswith("| 4 ")]
        assert [row[1] for row in rows] == [
            "joint",
            "adaworld",
            "playslot",
            "genie-matched",
        ]  # the best first
        theirs = [float(row[3].split()[0]) for row in rows]
        assert theirs == sorted(theirs, reverse=True)


def test_the_report_of_the_docs_can_be_run_again() -> None:
    """A report of other cells is not replaced, so what README tells to run must ask for those that are there."""
    docs = Path(__file__).parent.parent / "docs" / "results"
    for suite in SUITES:
        results = json.loads((docs / suite / "results.json").read_text())
        assert results["chosen"] == {"suite": suite, "budget": "small", "seeds": [], "models": []}
        names = {
            (cell["model"], cell.get("task", "multigrid"), cell["entities"], cell["seed"], cell["labels"])
            for cell in results["cells"]
        }
        cells = {
            (cell.model, cell.task.name, cell.task.entities, cell.seed, cell.labels): cell.name
            for cell in SUITES[suite](budget_of(suite, "small"), (), ())
        }
        assert names <= cells.keys()
        assert {cells[of] for of in cells.keys() - names} == set(results.get("missing", ()))
