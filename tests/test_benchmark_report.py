"""What flam-rl benchmark writes of its cells: estimates over seeds, tables and plots."""

from __future__ import annotations

import json
import re
import shutil
from itertools import product
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest
from reports import squeezed

from flam_rl.benchmark.budgets import budget_of
from flam_rl.benchmark.estimates import interquartile_mean, interquartile_means
from flam_rl.benchmark.report import write_report
from flam_rl.benchmark.suites import SUITES
from flam_rl.results import made_by
from flam_rl.types import Json


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
