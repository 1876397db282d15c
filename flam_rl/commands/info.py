"""`flam-rl info`: what a world is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import tyro
from tabulate import tabulate

from ..core.card import HEADINGS, facts, figures, limits, plain, rebuild
from ..core.checkpoint import load_world
from ..core.sources import Source, world_source
from ..results import read_json
from .endings import ended
from .worlds import bytes_of


@dataclass(frozen=True)
class InfoConfig:
    """Show what a world is: what it was trained on, its figures with their machine and commit, labels, how to rebuild it.

    Example: flam-rl info pucks

    Example: flam-rl info hf://user/name --json
    """

    named: Annotated[str | None, tyro.conf.Positional, tyro.conf.arg(metavar="WORLD")] = None
    """As --world."""
    world: str = "multigrid"
    """A shipped world's name, a folder, a zip, or hf://user/name, also with @revision."""
    json: bool = False
    """A JSON object on stdout, for programs."""


def info(config: InfoConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such world, or it is damaged.
        OSError: it is on the Hub, which cannot be reached.
    """
    name = config.named or config.world
    with world_source(name) as source:
        size, pulled = bytes_of(source.folder), pulled_from(source)
    world = load_world(source.name)
    said = facts(world) | {"size": f"{size / 1e6:.1f} MB", "found at": source.name}
    if pulled:
        said["pulled from"] = plain(pulled)
    if config.json:
        print(json.dumps({"facts": said, "bytes": size, "info": asdict(world.info)}, indent=2))
        return
    print(tabulate(list(said.items()), tablefmt="plain", disable_numparse=True))
    print(f"\n{HEADINGS['figures']}:\n{figures(world)}")
    for heading, lines in (("limits", limits(world)), ("rebuild", rebuild(world))):
        print("\n".join([f"\n{HEADINGS[heading]}:", *(f"- {line}" for line in lines)]))
    print()
    ended(None, "flam-rl", "play", "--world", name)


def pulled_from(source: Source) -> str | None:
    """The address on the Hub that `flam-rl pull` brought a world from."""
    path = Path(source.folder).parent / "results.json"
    if source.folder.name != "world" or not path.is_file():
        return None
    found = read_json(path).get("pulled_from")
    return found if isinstance(found, str) else None
