"""Plots of a report: each saves what it draws and gives the lines that show it."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linear_sum_assignment

from ..core.registry import MODELS
from ..files import written_whole
from ..types import Json
from .estimates import Estimate, over_seeds
from .figures import Measure

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
            "tab:brown",
            "tab:pink",
        ),
        strict=True,
    )
)
DASHES = ("--", ":", "-.")
"""Lines of floors."""


def plot_by_entities(
    out: Path,
    cells: Sequence[Json],
    measures: Sequence[Measure],
    models: Sequence[str],
    counts: Sequence[int],
) -> list[str]:
    """A curve over the number of entities for each model, and for each floor of the first."""
    figure, axes = plt.subplots(1, len(measures), figsize=(13, 3.8), sharex=True, squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        lines = [(model, measure.read) for model in models] + [
            (models[0], floor) for floor in measure.floors.values()
        ]
        asked = [(read, {"model": model, "entities": count}) for model, read in lines for count in counts]
        found = np.array(over_seeds(cells, asked)).reshape(len(lines), len(counts), 3)
        for model, curve in zip(models, found, strict=False):
            _curve(axis, counts, curve, model, COLORS[model])
        for name, dash, floor in zip(measure.floors, DASHES, found[len(models) :, :, 0], strict=False):
            if not np.isnan(floor).all():
                axis.plot(counts, floor, dash, color="gray", lw=1, label=f"floor: {name}")
        axis.set_title(textwrap.fill(measure.title, 32), fontsize=10)
        axis.set_xlabel("entities")
        axis.set_xticks(counts)
    handles = {
        label: handle
        for axis in axes[0]
        for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    axes[0, -1].legend(
        handles.values(), handles.keys(), frameon=False, loc="center left", bbox_to_anchor=(1, 0.5)
    )
    return _save(figure, out, "entities")


def plot_correspondence(out: Path, cells: Sequence[Json], models: Sequence[str]) -> list[str]:
    """The correspondence matrices of one seed, factors in the order of the entities that they predict best."""
    seed = min(cell["seed"] for cell in cells)
    found = {
        (cell["entities"], cell["model"]): np.array(cell["correspondence"])
        for cell in cells
        if cell["seed"] == seed and cell["correspondence"]
    }
    if not found:
        return []
    counts = sorted({count for count, _ in found})
    models = [model for model in models if any(model == of for _, of in found)]
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
    figure.colorbar(shown, ax=axes, shrink=0.6, label="gain of a probe: 0 is chance, 1 is all")
    title = f"How much each factor (row) tells of each entity's action (column), seed {seed}"
    return [f"## {title}", "", *_save(figure, out, "correspondence")]


def plot_variants(
    out: Path, cells: Sequence[Json], measures: Sequence[Measure], models: Sequence[str]
) -> list[str]:
    """A bar for each variant, and a line for each floor of the first."""
    size = (13, 0.35 * len(models) + 1.2)
    figure, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    for axis, measure in zip(axes[0], measures, strict=True):
        asked = [(measure.read, {"model": model}) for model in models]
        asked += [(floor, {"model": models[0]}) for floor in measure.floors.values()]
        estimates = np.array(over_seeds(cells, asked))
        found, floors = np.split(estimates, [len(models)])
        error = np.maximum([found[:, 0] - found[:, 1], found[:, 2] - found[:, 0]], 0)
        colors = ["tab:blue" if model == "flam" else "silver" for model in models]
        axis.barh(range(len(models)), found[:, 0], xerr=error, color=colors, capsize=2)
        for name, dash, floor in zip(measure.floors, DASHES, floors[:, 0], strict=False):
            if not np.isnan(floor):
                axis.axvline(floor, ls=dash, color="gray", lw=1, label=f"floor: {name}")
        if axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize="small")
        axis.set_title(textwrap.fill(measure.title, 32), fontsize=10)
    axes[0, 0].set_yticks(range(len(models)), models)
    axes[0, 0].invert_yaxis()
    return _save(figure, out, "ablations")


def plot_by_task(
    out: Path,
    cells: Sequence[Json],
    measures: Sequence[Measure],
    models: Sequence[str],
    tasks: Sequence[str],
) -> list[str]:
    """A row of bars for each task: a bar for each model, and a line for each floor of the first."""
    size = (3.2 * len(measures), 0.4 * len(tasks) * (len(models) + 1) + 1.2)
    figure, axes = plt.subplots(1, len(measures), figsize=size, sharey=True, squeeze=False)
    middles = np.arange(len(tasks)) * (len(models) + 1.0)
    for axis, measure in zip(axes[0], measures, strict=True):
        lines = [(model, measure.read) for model in models] + [
            (models[0], floor) for floor in measure.floors.values()
        ]
        asked = [(read, {"model": model, "task": task}) for model, read in lines for task in tasks]
        found = np.array(over_seeds(cells, asked)).reshape(len(lines), len(tasks), 3)
        for row, (model, bars) in enumerate(zip(models, found, strict=False)):
            error = np.maximum([bars[:, 0] - bars[:, 1], bars[:, 2] - bars[:, 0]], 0)
            axis.barh(middles + row, bars[:, 0], xerr=error, color=COLORS[model], capsize=2, label=model)
        for name, dash, floor in zip(measure.floors, DASHES, found[len(models) :, :, 0], strict=False):
            low, high = middles - 0.5, middles + len(models) - 0.5
            if not np.isnan(floor).all():
                axis.vlines(floor, low, high, ls=dash, color="black", lw=1.2, label=f"floor: {name}")
        axis.set_title(textwrap.fill(measure.title, 24), fontsize=10)
        axis.legend(
            frameon=False, fontsize="x-small", loc="upper left", bbox_to_anchor=(0, 0), borderaxespad=2.5
        )
    axes[0, 0].set_yticks(middles + (len(models) - 1) / 2, tasks)
    axes[0, 0].invert_yaxis()
    return _save(figure, out, "motion")


def plot_labels(
    out: Path,
    budgets: Sequence[int],
    learned: Mapping[str, Sequence[Estimate]],
    steps: Sequence[int],
    real: Sequence[Estimate],
) -> list[str]:
    """Success by label budget of each way to learn, and of PPO on the real task by its environment steps."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), sharey=True)
    for (name, found), color in zip(learned.items(), ("tab:gray", "tab:orange", "tab:blue"), strict=True):
        _curve(left, budgets, found, name, color)
    left.set_xscale("log")
    left.set_xlabel("labelled transitions")
    left.set_ylabel("success on the real task")
    left.set_ylim(0, 1.05)
    left.legend(frameon=False)
    if steps:
        _curve(right, steps, real, "PPO on the real task", "black")
        right.set_xscale("log")
        right.set_xlabel("environment steps, each with its reward")
        right.legend(frameon=False)
    return _save(figure, out, "labels")


def _curve(
    axis: plt.Axes, x: Sequence[float], found: Sequence[Estimate] | np.ndarray, name: str, color: str
) -> None:
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
