"""The report of a suite's results: README.md, with a table for each measure, and plots."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from ..core.registry import MODELS, kind_of
from ..evaluation.perceptual import lacking
from ..files import written_whole
from ..results import source_text
from ..types import Json
from .estimates import estimate_text, interquartile_mean, interquartile_means, over_seeds
from .figures import ABLATIONS, ENTITIES, INFORMATIVENESS, PSNR, TRANSFER, at
from .plots import plot_by_entities, plot_correspondence, plot_labels, plot_variants
from .tables import by_model, markdown

SINGLE_LATENT = set(MODELS) - {"flam", "tracked", "copy", "oracle"}


def write_report(out: Path, suite: str, budget: str, command: str) -> Path:
    """README.md and plots from `out/results.json`; the path of the first."""
    results = json.loads((out / "results.json").read_text())
    cells = results["cells"]
    write: Callable[[Path, list[Json]], list[str]] = {
        "entities": _entities,
        "ablations": _ablations,
        "labels": _labels,
    }[suite]
    lines = [f"# {suite}, budget {budget}", "", f"Written by `{command}`; do not edit.", ""]
    lines += [
        f"{len(cells)} cells, seeds {', '.join(map(str, sorted({cell['seed'] for cell in cells})))}, "
        f"{sum(cell['wall_s'] for cell in cells) / 3600:.1f} hours of cells, {_machines(cells)}. "
        "Interquartile mean over seeds, 95% bootstrap interval in brackets.",
        "",
    ]
    lines += write(out, cells) if cells else ["No cell has finished.", ""]
    if results["failed"]:
        lines += ["## Failed", ""]
        lines += [f"- {name}: {error}" for name, error in results["failed"].items()] + [""]
    path = out / "README.md"
    with written_whole(path) as scratch:
        scratch.write_text("\n".join(lines))
    return path


def _machines(cells: list[Json]) -> str:
    made = [cell["made_by"] for cell in cells]
    found = {
        f"{by['gpu'] or by['cpu']}, threads of a cell: {by['threads']}, {source_text(by)}" for by in made
    }
    return "; ".join(sorted(found))


def _entities(out: Path, cells: list[Json]) -> list[str]:
    models = _in_order(cells)
    counts = sorted({cell["entities"] for cell in cells})
    lines = plot_by_entities(out, cells, [PSNR["1"], PSNR["15"], TRANSFER], models, counts)
    lines += [*(f"- **{model}**: {kind_of(model).about}" for model in models), ""]
    lines += _differences(cells, counts)
    for measure, table in zip(ENTITIES, by_model(cells, ENTITIES, models, counts), strict=True):
        lines += table
        if measure is INFORMATIVENESS:
            lines += [
                "Disentanglement is of what is told: where that is almost nothing, one speck of it scores 1. Chance is 0 in both.",
                "",
                *plot_correspondence(out, cells, models),
            ]
    return [*lines, *_left_out(cells)]


def _differences(cells: list[Json], counts: list[int]) -> list[str]:
    """FLAM minus every model with a single latent action, the best first, of the seeds that both have."""
    psnr = {(cell["model"], cell["entities"], cell["seed"]): cell["psnr"]["1"] for cell in cells}
    seeds = sorted({cell["seed"] for cell in cells})
    models = [model for model in _in_order(cells) if model in SINGLE_LATENT]
    lines = [
        "## FLAM minus every model with a single latent action, the best first, PSNR after 1 step in dB",
        "",
    ]
    rows = []
    for count in counts:
        pairs = {
            model: [
                (psnr["flam", count, seed], psnr[model, count, seed])
                for seed in seeds
                if ("flam", count, seed) in psnr and (model, count, seed) in psnr
            ]
            for model in models
        }
        pairs = {model: found for model, found in pairs.items() if found}
        found = iter(interquartile_means([column for pair in pairs.values() for column in _sides(pair)]))
        estimates = {model: (next(found), next(found), next(found)) for model in pairs}
        for model in sorted(pairs, key=lambda model: -estimates[model][1][0]):
            own, theirs, difference = estimates[model]
            apart = "yes" if own[1] > theirs[2] or theirs[1] > own[2] else "no"
            seldom = len(pairs[model]) < 3
            row = [str(count), model, *(estimate_text(estimate, 1) for estimate in (own, theirs, difference))]
            rows.append([*row, str(len(pairs[model])), "too few seeds" if seldom else apart])
    header = ["entities", "model", "FLAM", "model's", "difference", "seeds", "intervals apart"]
    lines += markdown(header, rows)
    lines += ["", "With 3 seeds the interquartile mean is their mean, and the interval about their range."]
    few, many = counts[0], counts[-1]
    lost = [
        psnr["flam", few, seed] - psnr["flam", many, seed]
        for seed in seeds
        if {("flam", few, seed), ("flam", many, seed)} <= psnr.keys()
    ]
    if lost and few < many:
        lines[-1] += (
            f" From {few} to {many} entities FLAM itself loses {estimate_text(interquartile_mean(lost), 1)} dB."
        )
    return [*lines, ""]


def _sides(pairs: list[tuple[float, float]]) -> list[list[float]]:
    """FLAM's, the model's, and FLAM's minus the model's."""
    return [
        [own for own, _ in pairs],
        [theirs for _, theirs in pairs],
        [own - theirs for own, theirs in pairs],
    ]


def _ablations(out: Path, cells: list[Json]) -> list[str]:
    models = _in_order(cells)
    measures = [measure for measure in ABLATIONS if any(measure.of(cell) is not None for cell in cells)]
    floors = dict.fromkeys(name for measure in measures for name in measure.floors)
    asked = [(measure.of, {"model": model}) for model in models for measure in measures]
    asked += [
        (measure.floors.get(name, at()), {"model": models[0]}) for name in floors for measure in measures
    ]
    found = iter(over_seeds(cells, asked))
    rows = [
        [name, *(estimate_text(next(found), measure.digits) for measure in measures)]
        for name in (*models, *(f"floor: {name}" for name in floors))
    ]
    rows = [row for row in rows if set(row[1:]) != {"-"}]
    shown = [
        measure
        for measure in measures
        if measure.title in ("PSNR 15, dB", "disentanglement", "valid after 10")
    ]
    return [
        *plot_variants(out, cells, shown, models),
        "## FLAM with one thing changed",
        "",
        *markdown(["variant", *(measure.title for measure in measures)], rows),
        "",
        *_left_out(cells),
    ]


LEARNED = {"bc": "BC", "latent-bc": "latent BC on expert video", "imagination": "PPO in imagination"}


def _labels(out: Path, cells: list[Json]) -> list[str]:
    budgets = sorted({cell["labels"] for cell in cells if cell["labels"]})
    success = at("success")
    asked = [(success, {"model": model, "labels": budget}) for model in LEARNED for budget in budgets]
    estimates = iter(over_seeds(cells, asked))
    found = {name: [next(estimates) for _ in budgets] for name in LEARNED.values()}
    curves = [cell["curve"] for cell in cells if cell["model"] == "real-ppo"]
    steps = [point["steps"] for point in curves[0]] if curves else []
    real = interquartile_means([[curve[i]["success"] for curve in curves] for i in range(len(steps))])
    lines = [
        *plot_labels(out, budgets, found, steps, real),
        "Worlds are the shipped one, for what needs a world; a seed draws labels, agents and fresh episodes.",
        "",
        "## Success on the real task by label budget",
        "",
        *markdown(
            ["learned", *(f"{budget} labels" for budget in budgets)],
            [[name, *(estimate_text(estimate, 2) for estimate in row)] for name, row in found.items()],
        ),
        "",
    ]
    if steps:
        lines += ["## PPO from pixels on the real task, for reference", ""]
        row = ["success", *(estimate_text(estimate, 2) for estimate in real)]
        lines += [*markdown(["", *(f"{count} steps" for count in steps)], [row]), ""]
    return lines


def _in_order(cells: list[Json]) -> list[str]:
    return list(dict.fromkeys(cell["model"] for cell in cells))


def _left_out(cells: list[Json]) -> list[str]:
    """The line that says whether LPIPS and FVD were measured."""
    return [lacking(*(any(cell[name] is not None for cell in cells) for name in ("lpips", "fvd"))), ""]
