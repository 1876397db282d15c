"""Tables of a report."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tabulate import tabulate

from ..types import Json
from .estimates import Estimate, estimate_text, over_seeds
from .figures import Measure, at


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a table."""
    return tabulate(rows, header, tablefmt="github", disable_numparse=True).splitlines()


def by_model(
    cells: Sequence[Json], measures: Sequence[Measure], models: Sequence[str], counts: Sequence[int]
) -> list[list[str]]:
    """The table of each measure: of each model a row with the figure for each number of entities, then the floors of the
    first model. Empty where no cell has the figure."""
    named = [
        [(model, measure.read, model) for model in models]
        + [(f"floor: {name}", floor, models[0]) for name, floor in measure.floors.items()]
        for measure in measures
    ]
    asked = [
        (read, {"model": model, "entities": count})
        for rows in named
        for _, read, model in rows
        for count in counts
    ]
    found = iter(over_seeds(cells, asked))
    return [
        _table(measure, [(name, [next(found) for _ in counts]) for name, _, _ in rows], len(models), counts)
        for measure, rows in zip(measures, named, strict=True)
    ]


def by_measure(
    cells: Sequence[Json], measures: Sequence[Measure], models: Sequence[str], title: str
) -> list[str]:
    """One table: of each model a row with a column for each measure that a cell has, then the floors of the first model."""
    measures = [measure for measure in measures if any(measure.read(cell) is not None for cell in cells)]
    floors = dict.fromkeys(name for measure in measures for name in measure.floors)
    asked = [(measure.read, {"model": model}) for model in models for measure in measures]
    asked += [
        (measure.floors.get(name, at()), {"model": models[0]}) for name in floors for measure in measures
    ]
    found = iter(over_seeds(cells, asked))
    rows = [
        [name, *(estimate_text(next(found), measure.digits) for measure in measures)]
        for name in (*models, *(f"floor: {name}" for name in floors))
    ]
    rows = [row for row in rows if set(row[1:]) != {"-"}]
    return markdown([title, *(measure.title for measure in measures)], rows)


def _table(
    measure: Measure, rows: Sequence[tuple[str, Sequence[Estimate]]], models: int, counts: Sequence[int]
) -> list[str]:
    known = [not all(math.isnan(middle) for middle, _, _ in estimates) for _, estimates in rows]
    if not any(known[:models]):
        return []
    shown = [
        [name, *(estimate_text(estimate, measure.digits) for estimate in estimates)]
        for index, (name, estimates) in enumerate(rows)
        if index < models or known[index]
    ]
    header = ["model", *(f"{count} entities" for count in counts)]
    return [f"## {measure.title}", "", *markdown(header, shown), ""]
