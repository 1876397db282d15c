"""flam-rl benchmark runs cells in processes of their own, here and on Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v3 as imageio
import pytest
from reports import squeezed

from flam_rl.benchmark.budgets import BUDGETS
from flam_rl.benchmark.cells import run_cell
from flam_rl.benchmark.report import write_report
from flam_rl.benchmark.runner import finished, run_cells
from flam_rl.benchmark.suites import SUITES, Cell, multigrid
from flam_rl.cli import main
from flam_rl.results import made_by, write_results

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
