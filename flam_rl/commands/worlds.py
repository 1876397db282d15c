"""`flam-rl worlds`: the worlds that are here."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from ..core.card import plain
from ..core.checkpoint import load_world
from ..core.hub import cached
from ..core.sources import SHIPPED, WORLD_FILES, shipped_worlds
from ..core.world import World
from ..types import Json
from .endings import ended


@dataclass(frozen=True)
class WorldsConfig:
    """List the worlds that come with flam_rl and those of the Hub that are cached, with the main figures of their cards.

    Example: flam-rl worlds --json
    """

    json: bool = False
    """A JSON list on stdout instead of a table."""


def worlds(config: WorldsConfig) -> None:
    """Run the command."""
    places = [(name, "shipped", SHIPPED / name) for name in shipped_worlds()]
    places += [(str(address), "cached", folder) for address, folder in cached()]
    rows = [row_of(*place) for place in places]
    if config.json:
        print(json.dumps(rows, indent=2))
        return
    columns = ("world", "from", "model", "task", "factors", "labels", "PSNR 1/5/15", "disentanglement", "MB")
    table = [[*_cells(row)] for row in rows]
    print(tabulate(table, columns, tablefmt="plain", disable_numparse=True))
    for row in rows:
        if row["damaged"]:
            print(f"{row['world']}: {row['damaged']}")
    ended(None, "flam-rl", "info", rows[0]["world"])


def row_of(name: str, where: str, folder: Path) -> Json:
    """Main facts and figures of a world; where it cannot be loaded, only why: `damaged`."""
    row: Json = {"world": name, "from": where, "bytes": bytes_of(folder), "damaged": None}
    try:
        return row | _facts(load_world(name if where == "shipped" else folder))
    except ValueError as error:
        return row | {"damaged": plain(str(error))}


def _facts(world: World) -> Json:
    metrics = world.info.metrics
    entangled = metrics.get("dci") or metrics.get("disentanglement") or {}
    return {
        "model": world.model.kind,
        "task": plain(world.info.task),
        "factors": world.factors,
        "labels": world.labels.budget if world.labels else 0,
        "psnr": metrics.get("psnr"),
        "disentanglement": entangled.get("disentanglement"),
    }


def _cells(row: Json) -> list[str]:
    size = f"{row['bytes'] / 1e6:.1f}"
    if row["damaged"]:
        return [row["world"], row["from"], "damaged", *["-"] * 5, size]
    psnr = [(row["psnr"] or {}).get(horizon) for horizon in ("1", "5", "15")]
    return [
        *(row["world"], row["from"], row["model"], row["task"] or "-"),
        *(str(row["factors"]), f"{row['labels']:,}" if row["labels"] else "-"),
        " / ".join("-" if value is None else f"{value:.1f}" for value in psnr),
        "-" if row["disentanglement"] is None else f"{row['disentanglement']:.2f}",
        size,
    ]


def bytes_of(folder: Path) -> int:
    """What a world's files have together."""
    return sum(path.stat().st_size for name in WORLD_FILES if (path := folder / name).is_file())
