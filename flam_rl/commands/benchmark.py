"""`flam-rl benchmark`: FLAM against its rivals."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..benchmark.budgets import BUDGETS, Budget, budget_of
from ..benchmark.cells import run_cell
from ..benchmark.report import write_report
from ..benchmark.runner import finished, python_command, run_cells
from ..benchmark.suites import SUITES, Cell, cell_config
from ..core.registry import TILE_MODELS
from ..evaluation.perceptual import FVD, LPIPS
from ..files import sole_use
from ..results import read_json, write_results
from ..types import Json
from .checks import check_out
from .endings import ended


@dataclass(frozen=True)
class BenchmarkConfig:
    """Compare FLAM with its rivals on real multi-entity video, on the same data, tokenizer, steps and size.

    Suites: entities (all models on rooms with more and more agents), ablations (FLAM with one thing changed),
    labels (success on the real task against the label budget), motion (FLAM and rivals on things that move continuously).

    Example: flam-rl benchmark --suite entities --budget small --workers 2

    Example: flam-rl benchmark --suite motion --budget small --workers 2

    Example: flam-rl benchmark --suite entities --budget full --address auto

    Finished cells are not run again when the same command is given once more; failed ones are. The report is of what has
    finished, also while others run and after an interruption.
    """

    suite: str = "entities"
    """entities, ablations, labels or motion."""
    budget: str = "small"
    """tiny (a minute or two, measures nothing), small (for 2 cores), full (for a cluster or a GPU)."""
    seeds: tuple[int, ...] = ()
    """Seeds of the cells; by default 0, 1, ... as many as the budget says, in motion of each task."""
    models: tuple[str, ...] = ()
    """Models of the suites entities and motion: flam, genie, genie-matched, adaworld, lapo, playslot, joint (FLAM with one latent action: the control), copy (copy-last-frame), oracle (given the true actions); by default those of the budget."""
    out: Path = Path("docs/results")
    """The report goes to OUT/SUITE: results.json, README.md, plots."""
    work: Path = Path("runs/benchmark")
    """Worlds, logs and results of the cells go to WORK/SUITE-BUDGET; on a cluster, a folder that all nodes see."""
    workers: int = 2
    """Cells at once on this machine, its cores shared out among them."""
    address: str | None = None
    """Address of a Ray cluster to run the cells on, `auto` for the one that this machine belongs to, `local` for one here."""
    lpips_weights: Path | None = None
    """AlexNet's weights, torchvision's alexnet-owt-7be5be79.pth, for LPIPS."""
    fvd_weights: Path | None = None
    """I3D as TorchScript, StyleGAN-V's i3d_torchscript.pt, for FVD; loading it runs its code, so trust its source."""
    cell: str | None = None
    """Run only this cell, in this process, and write no report."""


def benchmark(config: BenchmarkConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such cell, or the cells in `out` are of other settings.
    """
    cells = make_cells(config)
    budget = budget_of(config.suite, config.budget)
    root = (config.work / f"{config.suite}-{config.budget}").resolve()
    if config.cell is not None:
        named = [cell for cell in cells if cell.name == config.cell]
        if not named:
            raise ValueError(f"cell is {config.cell!r}; allowed are {', '.join(cell.name for cell in cells)}")
        path = _run_cell(config, named[0], budget, root / config.cell)
        ended(str(path), *shlex.split(_given(config)))
        return
    if config.lpips_weights:
        LPIPS(config.lpips_weights)  # a wrong file is said now, not by every cell
    if config.fvd_weights:
        FVD(config.fvd_weights)
    out = config.out / config.suite
    check_out(out)
    check_out(root)
    seeds = sorted({cell.seed for cell in cells})

    chosen = {"suite": config.suite, "budget": config.budget, "seeds": config.seeds, "models": config.models}
    chosen = json.loads(json.dumps(chosen))
    _spare_another(out, chosen)

    def wanted(cell: Cell) -> Json:
        return _wanted(config, cell, budget)

    def report(failed: dict[str, str]) -> Path:
        done = {cell.name: finished(root / cell.name, wanted(cell)) for cell in cells}
        results = [found for found in done.values() if found is not None]
        missing = [name for name, found in done.items() if found is None and name not in failed]
        written = {"chosen": chosen, "cells": results, "failed": failed, "missing": missing}
        write_results(out, written, seeds)
        return write_report(out, config.suite, config.budget, _given(config))

    try:
        failed = run_cells(
            cells, root, wanted, lambda cell: _command(config, cell), config.workers, config.address, report
        )
    except KeyboardInterrupt:
        report({})
        raise
    path = report(failed)
    wrote = f"{path} and {out / 'results.json'}" + (f"; {len(failed)} cells failed" if failed else "")
    ended(wrote, *(shlex.split(_given(config)) if failed else ("flam-rl", "worlds")))


def _spare_another(out: Path, chosen: Json) -> None:
    path = out / "results.json"
    held = read_json(path).get("chosen") if path.is_file() else chosen
    if held != chosen:
        raise ValueError(
            f"{out} holds the report of other cells, {held}; asked for are {chosen}; give another --out"
        )


def make_cells(config: BenchmarkConfig) -> list[Cell]:
    """The cells that `config` asks for.

    Raises:
        ValueError: a suite, budget or model that does not exist, models where the suite has none to choose, or
            fewer than one worker.
    """
    for what, given, allowed in (
        ("suite", [config.suite], SUITES),
        ("budget", [config.budget], BUDGETS),
        ("model", config.models, TILE_MODELS),
    ):
        unknown = [name for name in given if name not in allowed]
        if unknown:
            raise ValueError(f"{what} is {unknown[0]!r}; allowed are {', '.join(allowed)}")
    if config.models and config.suite not in ("entities", "motion"):
        raise ValueError(
            f"the suite {config.suite} has no models to choose; --models is of the suites entities and motion"
        )
    if len(set(config.seeds)) < len(config.seeds):
        raise ValueError(f"seeds are {config.seeds}; each may be given once")
    if config.workers < 1:
        raise ValueError(f"workers is {config.workers}; allowed is 1 or more")
    models = tuple(name for name in TILE_MODELS if name in config.models)
    return SUITES[config.suite](budget_of(config.suite, config.budget), config.seeds, models)


def _wanted(config: BenchmarkConfig, cell: Cell, budget: Budget) -> Json:
    """What the cell says in its results that it ran with."""
    return cell_config(cell, budget, bool(config.lpips_weights), bool(config.fvd_weights))


def _run_cell(config: BenchmarkConfig, cell: Cell, budget: Budget, folder: Path) -> Path:
    """Its results, by whom ever: where the command was killed and given again, the cell's process of then may still be at work."""
    with sole_use(folder, wait=True):
        if finished(folder, _wanted(config, cell, budget)) is not None:
            return folder / "results.json"
        found = run_cell(cell, budget, folder, config.lpips_weights, config.fvd_weights)
        return write_results(folder, found, cell.seed)


def _command(config: BenchmarkConfig, cell: Cell) -> list[str]:
    work = config.work.resolve() if config.address else config.work  # nodes may start elsewhere
    arguments = ["benchmark", "--suite", config.suite, "--budget", config.budget]
    arguments += ["--seeds", str(cell.seed), "--work", str(work), "--cell", cell.name]
    if config.models:
        arguments += ["--models", *config.models]
    for flag, path in (("--lpips-weights", config.lpips_weights), ("--fvd-weights", config.fvd_weights)):
        arguments += [flag, str(path.resolve())] if path else []
    return python_command(arguments)


def _given(config: BenchmarkConfig) -> str:
    """The command that makes the same report again."""
    words = ["flam-rl benchmark", f"--suite {config.suite}", f"--budget {config.budget}"]
    if config.seeds:
        words.append("--seeds " + " ".join(map(str, config.seeds)))
    if config.models:
        words.append("--models " + " ".join(config.models))
    if config.lpips_weights:
        words.append("--lpips-weights ALEXNET")
    if config.fvd_weights:
        words.append("--fvd-weights I3D")
    if config.out != BenchmarkConfig.out:
        words.append(f"--out {shlex.quote(str(config.out))}")
    return " ".join([*words, f"--workers {config.workers}"])
