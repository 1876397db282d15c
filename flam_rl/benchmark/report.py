"""Tables and plots of a suite's results."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from ..core.registry import MODELS, kind_of
from ..evaluation.perceptual import left_out
from ..files import written_whole
from ..results import source_text
from ..types import Json
from .estimates import Estimate, estimate_text, interquartile_mean, over_seeds

SINGLE_LATENT = set(MODELS) - {"flam", "copy", "oracle"}
COLORS: dict[str, str] = dict(
    zip(
        MODELS,
        (
            "tab:blue",
            "tab:olive",
            "tab:orange",
            "tab:red",
            "tab:green",
            "tab:purple",
            "tab:cyan",
            "tab:gray",
            "black",
        ),
        strict=True,
    )
)


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
    models = _in_order(cells, "model")
    counts = sorted({cell["entities"] for cell in cells})
    lines = [*(f"- **{model}**: {kind_of(model).about}" for model in models), ""]

    def table(title: str, of: Callable[[Json], float | None], digits: int) -> None:
        lines.extend([f"## {title}", "", *_header(["model", *(f"{count} entities" for count in counts)])])
        for model in models:
            row = [estimate_text(over_seeds(cells, of, model=model, entities=n), digits) for n in counts]
            lines.append(_row([model, *row]))
        lines.append("")

    lines += _bars(cells, counts)
    for horizon in ("1", "5", "15"):
        table(f"PSNR after {_steps(horizon)}, dB", _at_horizon("psnr", horizon), 1)
    table(
        "PSNR after 1 step by the nearest action codes, dB; as many bits for all that have codes",
        _at_horizon("psnr_by_code", "1"),
        1,
    )
    for horizon in ("1", "5", "15"):
        table(f"SSIM after {_steps(horizon)}", _at_horizon("ssim", horizon), 4)
    for horizon in ("1", "5", "15"):
        table(
            f"Changed tokens predicted right after {_steps(horizon)}",
            _at_horizon("token_accuracy_changed", horizon),
            3,
        )
    table("Disentanglement (DCI)", lambda c: c["dci"]["disentanglement"], 3)
    table("Informativeness (DCI)", lambda c: c["dci"]["informativeness"], 3)
    lines += [
        "Disentanglement is of what is told: where that is almost nothing, one speck of it scores 1.",
        "",
        *_matrices(out, cells),
    ]
    table("Latent-action transfer, entities that head the same way in both videos", _same_heading, 3)
    table("Latent-action transfer, all entities", lambda c: _at(c["transfer"], "any_heading"), 3)
    table("Foreground ARI of masks", lambda c: c["masks"] and c["masks"]["foreground_ari"], 3)
    table("IoU of masks and entities", lambda c: c["masks"] and c["masks"]["mask_iou"], 3)
    table(
        "Imagined frames valid after 10 steps of the prior, which in the rivals does not see the state",
        lambda c: _at(c["imagination_validity"], "10"),
        3,
    )
    lpips, fvd = _perceptual(cells)
    if lpips:
        for horizon in ("1", "5", "15"):
            table(f"LPIPS after {_steps(horizon)}", _at_horizon("lpips", horizon), 4)
    if fvd:
        table("FVD", lambda c: c["fvd"], 1)
    lines += [left_out(lpips, fvd), ""]
    table("Tokenizer alone, PSNR in dB", lambda c: c["reconstruction_psnr"], 1)
    table(
        "What latent actions tell at most, nats: KL, or entropy of codes",
        lambda c: sum(c["kl_per_factor"]),
        1,
    )
    table("Parameters, thousands", lambda c: c["parameters"] / 1000, 0)
    table("Seconds of training", lambda c: c["training_s"], 0)
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), sharex=True)
    for axis, (title, of) in zip(
        axes,
        {
            "PSNR after 1 step, dB": lambda c: c["psnr"]["1"],
            "PSNR after 15 steps, dB": lambda c: c["psnr"]["15"],
            "latent-action transfer, same heading": _same_heading,
        }.items(),
        strict=True,
    ):
        for model in models:
            found = [over_seeds(cells, of, model=model, entities=n) for n in counts]
            _curve(axis, counts, found, model, COLORS[model])
        axis.set_title(title)
        axis.set_xlabel("entities")
        axis.set_xticks(counts)
    axes[-1].legend(frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))
    return [*_save(figure, out, "entities"), *lines]


def _matrices(out: Path, cells: list[Json]) -> list[str]:
    """The correspondence matrices of one seed, factors in the order of the entities that they tell most of."""
    seed = min(cell["seed"] for cell in cells)
    found = {
        (cell["entities"], cell["model"]): np.array(cell["correspondence"])
        for cell in cells
        if cell["seed"] == seed and cell["correspondence"]
    }
    if not found:
        return []
    counts = sorted({count for count, _ in found})
    models = [model for model in _in_order(cells, "model") if any(model == of for _, of in found)]
    size = (2 * len(models) + 1, 2 * len(counts))
    figure, axes = plt.subplots(len(counts), len(models), figsize=size, squeeze=False, layout="constrained")
    for axis, (count, model) in zip(axes.flat, product(counts, models), strict=True):
        axis.set_xticks([])
        axis.set_yticks([])
        if count == counts[0]:
            axis.set_title(model)
        if model == models[0]:
            axis.set_ylabel(f"{count} entities")
        if (count, model) in found:
            matrix = found[count, model]
            factors, entities = linear_sum_assignment(matrix, maximize=True)
            order = factors[np.argsort(entities)]
            others = np.setdiff1d(np.arange(len(matrix)), order)
            shown = axis.imshow(matrix[np.concatenate([order, others])], vmin=0, vmax=1, cmap="viridis")
    figure.colorbar(shown, ax=axes, shrink=0.6)
    title = f"How much each factor (row) tells of each entity's action (column), seed {seed}"
    return [f"## {title}", "", *_save(figure, out, "correspondence")]


def _bars(cells: list[Json], counts: list[int]) -> list[str]:
    """FLAM minus every model with a single latent action, the best first, of the seeds that both have."""
    psnr = {(cell["model"], cell["entities"], cell["seed"]): cell["psnr"]["1"] for cell in cells}
    seeds = sorted({cell["seed"] for cell in cells})
    models = [model for model in _in_order(cells, "model") if model in SINGLE_LATENT]
    lines = [
        "## FLAM minus every model with a single latent action, the best first, PSNR after 1 step in dB",
        "",
    ]
    lines += _header(["entities", "model", "FLAM", "model's", "difference", "seeds", "intervals apart"])
    for count in counts:
        pairs = {
            model: np.array(
                [
                    (psnr["flam", count, seed], psnr[model, count, seed])
                    for seed in seeds
                    if ("flam", count, seed) in psnr and (model, count, seed) in psnr
                ]
            )
            for model in models
        }
        pairs = {model: found for model, found in pairs.items() if len(found)}
        for model in sorted(pairs, key=lambda model: -interquartile_mean(pairs[model][:, 1])[0]):
            own, theirs = (interquartile_mean(found) for found in pairs[model].T)
            difference = interquartile_mean(pairs[model][:, 0] - pairs[model][:, 1])
            apart = "yes" if own[1] > theirs[2] or theirs[1] > own[2] else "no"
            seldom = len(pairs[model]) < 3
            row = [str(count), model, *(estimate_text(estimate, 1) for estimate in (own, theirs, difference))]
            lines.append(_row([*row, str(len(pairs[model])), "too few seeds" if seldom else apart]))
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


def _ablations(out: Path, cells: list[Json]) -> list[str]:
    models = _in_order(cells, "model")
    measures: dict[str, tuple[Callable[[Json], float | None], int]] = {
        "PSNR 1, dB": (lambda c: c["psnr"]["1"], 1),
        "PSNR 15, dB": (lambda c: c["psnr"]["15"], 1),
        "disentanglement": (lambda c: c["dci"]["disentanglement"], 3),
        "informativeness": (lambda c: c["dci"]["informativeness"], 3),
        "transfer": (_same_heading, 3),
        "valid after 10": (lambda c: _at(c["imagination_validity"], "10"), 3),
        "foreground ARI": (lambda c: c["masks"] and c["masks"]["foreground_ari"], 3),
        "KL, nats": (lambda c: sum(c["kl_per_factor"]), 1),
        "parameters, thousands": (lambda c: c["parameters"] / 1000, 0),
        "training, s": (lambda c: c["training_s"], 0),
    }
    lpips, fvd = _perceptual(cells)
    if lpips:
        measures["LPIPS 1"] = _at_horizon("lpips", "1"), 4
    if fvd:
        measures["FVD"] = (lambda c: c["fvd"]), 1
    lines = ["## FLAM with one thing changed", "", *_header(["variant", *measures])]
    for model in models:
        row = [estimate_text(over_seeds(cells, of, model=model), digits) for of, digits in measures.values()]
        lines.append(_row([model, *row]))
    lines += ["", left_out(lpips, fvd)]
    figure, axes = plt.subplots(1, 3, figsize=(13, 0.35 * len(models) + 1.2), sharey=True)
    for axis, name in zip(axes, ("PSNR 15, dB", "disentanglement", "valid after 10"), strict=True):
        found = np.array([over_seeds(cells, measures[name][0], model=m) for m in models])
        error = np.maximum([found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]], 0)
        colors = ["tab:blue" if model == "flam" else "silver" for model in models]
        axis.barh(range(len(models)), found[:, 0], xerr=error, color=colors, capsize=2)
        axis.set_title(name)
    axes[0].set_yticks(range(len(models)), models)
    axes[0].invert_yaxis()
    return [*_save(figure, out, "ablations"), *lines, ""]


def _labels(out: Path, cells: list[Json]) -> list[str]:
    names = {"bc": "BC", "latent-bc": "latent BC on expert video", "imagination": "PPO in imagination"}
    budgets = sorted({cell["labels"] for cell in cells if cell["labels"]})
    lines = [
        "Worlds are the shipped one, for what needs a world; a seed draws labels, agents and fresh episodes.",
        "",
    ]
    lines += ["## Success on the real task by label budget", ""]
    lines += _header(["learned", *(f"{budget} labels" for budget in budgets)])
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
    for (model, name), color in zip(names.items(), ("tab:gray", "tab:orange", "tab:blue"), strict=True):
        found = [over_seeds(cells, lambda c: c["success"], model=model, labels=budget) for budget in budgets]
        lines.append(_row([name, *(estimate_text(estimate, 2) for estimate in found)]))
        _curve(left, budgets, found, name, color)
    left.set_xscale("log")
    left.set_xlabel("labelled transitions")
    left.set_ylabel("success on the real task")
    left.set_ylim(0, 1.05)
    left.legend(frameon=False)
    curves = [cell["curve"] for cell in cells if cell["model"] == "real-ppo"]
    if curves:
        steps = [point["steps"] for point in curves[0]]
        found = [interquartile_mean([curve[i]["success"] for curve in curves]) for i in range(len(steps))]
        lines += ["", "## PPO from pixels on the real task, for reference", ""]
        lines += _header(["", *(f"{count} steps" for count in steps)])
        lines.append(_row(["success", *(estimate_text(estimate, 2) for estimate in found)]))
        _curve(right, steps, found, "PPO on the real task", "black")
        right.set_xscale("log")
        right.set_xlabel("environment steps, each with its reward")
        right.legend(frameon=False)
    return [*_save(figure, out, "labels"), *lines, ""]


def _curve(axis: plt.Axes, x: Sequence[float], found: list[Estimate], name: str, color: str) -> None:
    middle, low, high = np.array(found).T
    axis.plot(x, middle, "o-", label=name, color=color, ms=4)
    axis.fill_between(x, low, high, alpha=0.2, color=color, lw=0)


def _save(figure: Figure, out: Path, name: str) -> list[str]:
    """The lines that show the figure, saved as png and svg."""
    for kind in ("png", "svg"):
        with written_whole(out / f"{name}.{kind}") as scratch:
            figure.savefig(scratch, format=kind, dpi=110, bbox_inches="tight")
    plt.close(figure)
    return [f"![{name}]({name}.png)", ""]


def _in_order(cells: list[Json], key: str) -> list[str]:
    return list(dict.fromkeys(cell[key] for cell in cells))


def _perceptual(cells: list[Json]) -> tuple[bool, bool]:
    """Whether LPIPS and FVD were measured."""
    return any(cell["lpips"] is not None for cell in cells), any(cell["fvd"] is not None for cell in cells)


def _at(values: dict[str, float] | None, key: str) -> float | None:
    return values[key] if values else None


def _same_heading(cell: Json) -> float | None:
    return _at(cell["transfer"], "same_heading")


def _at_horizon(measure: str, horizon: str) -> Callable[[Json], float | None]:
    return lambda cell: _at(cell[measure], horizon)


def _steps(horizon: str) -> str:
    return "1 step" if horizon == "1" else f"{horizon} steps"


def _header(names: list[str]) -> list[str]:
    return [_row(names), _row(["---"] * len(names))]


def _row(entries: list[str]) -> str:
    return "| " + " | ".join(entries) + " |"
