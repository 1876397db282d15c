"""The figures of a world as lines for people, each group with its floors beneath."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

from ..types import Json

FLOORS = {
    "last_frame": "last frame copied",
    "background": "background alone",
    "random_identities": "random identities",
    "nothing": "nothing found",
    "one_factor": "one factor draws all",
    "factors_alone": "factors without latent actions",
    "random_matching": "factors matched at random",
    "random_actions": "random latent actions",
    "chance": "chance",
}
"""Descriptions of the floors, by their names in results."""
GROUPS: dict[str, tuple[str, tuple[str, ...]]] = {
    "psnr": ("PSNR (dB)", ("1", "5", "15")),
    "foreground": ("foreground PSNR (dB)", ("1", "5", "15")),
    "token_accuracy_changed": ("changed tokens", ("1", "5", "15")),
    "dci": ("DCI", ("disentanglement", "completeness", "informativeness")),
    "disentanglement": ("DCI, matched", ("disentanglement", "informativeness", "own", "other")),
    "intervention": ("intervention", ("on_entity", "without_change")),
    "masks": ("masks", ("foreground_ari", "mask_iou")),
    "tracking": (
        "tracking",
        ("hota", "deta", "assa", "idf1", "switches_per_1000_apart", "switches_per_1000_in_contact"),
    ),
    "transfer": ("transfer", ("same_heading", "any_heading")),
    "lpips": ("LPIPS", ("1", "5", "15")),
    "imagination_validity": ("valid imagination", ("1", "10", "40")),
    "reward_rate": ("random reward rate", ("imagined", "real")),
}
"""Title and figures of each group of results, in their order."""


def summary(results: Json) -> str:
    """A line for each figure that was measured.

    Args:
        results: of `measure_world`, with `reward_rate`.
    """
    rows: list[tuple[str, str]] = []
    if results["codes"]:
        patches = f"{results['ambiguous_patches']:.4f} of the training patches between two"
        rows.append(("tokens", f"{results['codes']} codes, {patches}"))
    for group, (title, keys) in GROUPS.items():
        if group == "dci":
            rows.append(("KL per factor", "  ".join(f"{kl:.2f}" for kl in results["kl_per_factor"])))
        if not results[group]:
            continue
        found = _by_horizon(results[group]) if group == "foreground" else results[group]
        rows.append((title, _figures(found, keys)))
        rows += [
            (f"floor: {FLOORS[name]}", text)
            for name, floor in found.get("floors", {}).items()
            if (text := _figures(floor, keys))
        ]
    if results["fvd"] is not None:
        rows.append(("FVD", f"{results['fvd']:.1f}"))
        rows.append((f"floor: {FLOORS['last_frame']}", f"{results['fvd_floors']['last_frame']:.1f}"))
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def _by_horizon(foreground: Json) -> Json:
    """`foreground_psnr` by horizon, of the world and of its floors."""
    known = {horizon: found for horizon, found in foreground.items() if found is not None}
    floors: dict[str, dict[str, Any]] = {}
    for horizon, found in known.items():
        for name, floor in found["floors"].items():
            floors.setdefault(name, {})[horizon] = floor["foreground_psnr"]
    return {horizon: found["foreground_psnr"] for horizon, found in known.items()} | {"floors": floors}


def _figures(found: Mapping[str, float | None], keys: tuple[str, ...]) -> str:
    return "  ".join(f"{_name(key)} {value:.3f}" for key in keys if (value := found.get(key)) is not None)


def _name(key: str) -> str:
    """`1:` for a horizon, else a name for people."""
    return f"{key}:" if key.isdigit() else key.replace("_per_1000", " for 1,000").replace("_", " ")
