"""A world's figures beside those on its card."""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite

from tabulate import tabulate

from ..types import Json

TOLERANCES = {"psnr": 2.0, "dci": 0.02, "disentanglement": 0.02, "imagination_validity": 0.03}
"""How far below the card a figure may lie on other video: in dB for PSNR, else a share. Figures that depend much on
the video have no tolerance."""
ON_CARD = (*TOLERANCES, "masks", "transfer", "reward_rate")

Figures = Mapping[str, Mapping[str, float | None] | None]


def card_figures(results: Json) -> Json:
    """The figures that a card shows, without floors: `WorldInfo.metrics`. A figure that could not be measured is NaN."""
    return {
        name: results[name]
        and {
            key: x if x is not None and isfinite(x) else None
            for key, x in results[name].items()
            if key != "floors"
        }
        for name in ON_CARD
    }


def compare(results: Json, card: Figures) -> Json:
    """What was measured beside the card.

    Returns:
        `figures`: for each figure of the card its name, `measured` (None if it was not measured), `card` and
            `tolerance` (None if it has none); `falls_short`: names of the figures that lie below the card's by more
            than the tolerance.
    """
    figures = []
    for group in ON_CARD:
        measured = results.get(group) or {}
        for key, on_card in (card.get(group) or {}).items():
            figures.append(
                {
                    "name": f"{group} {key}",
                    "measured": measured.get(key),
                    "card": on_card,
                    "tolerance": TOLERANCES.get(group),
                }
            )
    return {"figures": figures, "falls_short": [f["name"] for f in figures if _falls_short(f)]}


def _falls_short(figure: Json) -> bool:
    measured, on_card, tolerance = figure["measured"], figure["card"], figure["tolerance"]
    if measured is None or on_card is None or tolerance is None:
        return False
    return not measured >= on_card - tolerance  # NaN falls short


def comparison_text(comparison: Json) -> str:
    """A few lines for people."""
    if not comparison["figures"]:
        return "the world's card has no figures to compare with"
    rows = []
    for figure in comparison["figures"]:
        numbers = ("-" if x is None else f"{x:.3f}" for x in (figure["measured"], figure["card"]))
        short = ""
        if figure["name"] in comparison["falls_short"]:
            short = f"lower by {figure['card'] - figure['measured']:.3f}, more than {figure['tolerance']}"
        rows.append([figure["name"], *numbers, short])
    lines = [
        tabulate(
            rows,
            ["", "measured", "card", ""],
            tablefmt="plain",
            disable_numparse=True,
            colalign=("left", "right", "right", "left"),
        )
    ]
    if comparison["falls_short"]:
        lines.append(f"the world FALLS SHORT of its card: {', '.join(comparison['falls_short'])}")
    else:
        lines.append("no figure falls short of the card")
    return "\n".join(lines)
