"""The report of a suite's results: README.md, with a table for each measure, and plots."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

from ..core.registry import MODELS, kind_of
from ..evaluation.perceptual import lacking
from ..files import written_whole
from ..results import source_text
from ..types import Json
from .estimates import estimate_text, interquartile_mean, interquartile_means, over_seeds
from .figures import (
    ABLATIONS,
    ENTITIES,
    INFORMATIVENESS,
    MOTION,
    MOTION_SHOWN,
    PSNR,
    TRANSFER,
    Measure,
    at,
)
from .plots import plot_by_entities, plot_by_task, plot_correspondence, plot_labels, plot_variants
from .tables import by_measure, by_model, markdown

SINGLE_LATENT = set(MODELS) - {"flam", "tracked", "copy", "oracle"}


def write_report(out: Path, suite: str, budget: str, command: str) -> Path:
    """README.md and plots from `out/results.json`; the path of the first."""
    results = json.loads((out / "results.json").read_text())
    cells = results["cells"]
    write: Callable[[Path, list[Json]], list[str]] = {
        "entities": _entities,
        "ablations": _ablations,
        "labels": _labels,
        "motion": _motion,
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
    if results.get("missing"):
        lines += ["## Not run yet", "", ", ".join(results["missing"]), ""]
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
    what = "PSNR after 1 step in dB"
    lines += _differences(cells, "entities", counts, PSNR["1"], what, _lost(cells, counts))
    for measure, table in zip(ENTITIES, by_model(cells, ENTITIES, models, counts), strict=True):
        lines += table
        if measure is INFORMATIVENESS:
            lines += [
                "Disentanglement counts only what latent actions predict: where that is almost nothing, one speck of it scores 1. Chance is 0 in both.",
                "",
                *plot_correspondence(out, cells, models),
            ]
    return [*lines, *_left_out(cells)]


def _differences(
    cells: list[Json], key: str, places: Sequence[int | str], measure: Measure, what: str, note: str = ""
) -> list[str]:
    """FLAM minus every model with a single latent action, the best first, of the seeds that both have.

    Args:
        key: by which entry of cells: `places` are its values, in their order.
        note: what else there is to say.
    """
    figures = {(cell["model"], cell[key], cell["seed"]): measure.read(cell) for cell in cells}
    known = {where: value for where, value in figures.items() if value is not None}
    seeds = sorted({cell["seed"] for cell in cells})
    models = [model for model in _in_order(cells) if model in SINGLE_LATENT]
    lines = [f"## FLAM minus every model with a single latent action, the best first, {what}", ""]
    rows = []
    for place in places:
        pairs = {
            model: [
                (known["flam", place, seed], known[model, place, seed])
                for seed in seeds
                if ("flam", place, seed) in known and (model, place, seed) in known
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
            row = [str(place), model, *(estimate_text(estimate, 1) for estimate in (own, theirs, difference))]
            rows.append([*row, str(len(pairs[model])), "too few seeds" if seldom else apart])
    header = [key, "model", "FLAM", "model's", "difference", "seeds", "intervals apart"]
    lines += markdown(header, rows)
    about = "With 3 seeds the interquartile mean is their mean, and the interval about their range."
    return [*lines, "", about + note, ""]


def _lost(cells: list[Json], counts: list[int]) -> str:
    """By how much FLAM itself is worse with many entities than with few, as a sentence."""
    psnr = {(cell["model"], cell["entities"], cell["seed"]): cell["psnr"]["1"] for cell in cells}
    few, many = counts[0], counts[-1]
    lost = [
        psnr["flam", few, seed] - psnr["flam", many, seed]
        for seed in sorted({cell["seed"] for cell in cells})
        if {("flam", few, seed), ("flam", many, seed)} <= psnr.keys()
    ]
    if not lost or few == many:
        return ""
    return (
        f" From {few} to {many} entities FLAM itself loses {estimate_text(interquartile_mean(lost), 1)} dB."
    )


def _sides(pairs: list[tuple[float, float]]) -> list[list[float]]:
    """FLAM's, the model's, and FLAM's minus the model's."""
    return [
        [own for own, _ in pairs],
        [theirs for _, theirs in pairs],
        [own - theirs for own, theirs in pairs],
    ]


def _ablations(out: Path, cells: list[Json]) -> list[str]:
    models = _in_order(cells)
    shown = [
        measure
        for measure in ABLATIONS
        if measure.title in ("PSNR 15, dB", "disentanglement", "valid after 10")
    ]
    return [
        *plot_variants(out, cells, shown, models),
        "## FLAM with one thing changed",
        "",
        *by_measure(cells, ABLATIONS, models, "variant"),
        "",
        *_left_out(cells),
    ]


def _motion(out: Path, cells: list[Json]) -> list[str]:
    models, tasks = _in_order(cells), list(dict.fromkeys(cell["task"] for cell in cells))
    lines = plot_by_task(out, cells, MOTION_SHOWN, models, tasks)
    kinds = {(cell["model"], cell["kind"]): kind_of(cell["kind"]).about for cell in cells}
    lines += [f"- **{model}**, {kind}: {about}" for (model, kind), about in kinds.items()]
    lines += [
        "",
        "FLAM is on tiles or on tracked layers, whichever `flam-rl train` picks for the video, and joint is the same with one latent "
        "action for all factors. What models on tiles predict is never better than what their tokenizer keeps of a frame "
        "(`tokenizer alone`), which is little of things that move continuously: there joint is the fair rival, and the others show what "
        "tiles cost. Predictions are open loop from frame 8 of held-out episodes, with latent actions inferred from the true frames; "
        "those before show what the background is. Disentanglement counts only what latent actions predict: where that is almost nothing, one speck of it "
        "scores 1.",
        "",
    ]
    lines += _differences(
        cells, "task", tasks, MOTION_SHOWN[1], "PSNR after 15 steps in dB, latent actions inferred"
    )
    for task in tasks:
        own = [cell for cell in cells if cell["task"] == task]
        lines += [f"## {task}", "", *by_measure(own, MOTION, _in_order(own), "model"), ""]
    return [*lines, *_left_out(cells)]


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
