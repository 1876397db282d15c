"""Write the card of a shipped world anew, from the results.json of its training.

    python scripts/write_card.py --world pucks --results docs/results/pucks/results.json --license mit

Training writes the card of every world; this is for those that were trained before a card said as much.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from flam_rl.core.checkpoint import load_world, save_world
from flam_rl.core.info import Origin
from flam_rl.core.sources import SHIPPED
from flam_rl.evaluation.summary import GROUPS, summary
from flam_rl.results import read_json
from flam_rl.types import Json


@dataclass(frozen=True)
class CardConfig:
    """Whose card to write, and from what."""

    results: Path
    """results.json that `flam-rl train` wrote when it trained the world."""
    world: str
    """Name of a shipped world."""
    license: str


def main(config: CardConfig) -> None:
    """Save the world with its origin, after it is known that the results are its own.

    Raises:
        ValueError: they are another world's.
    """
    world = load_world(config.world)
    results: Json = dict.fromkeys([*GROUPS, "codes", "fvd"]) | read_json(config.results)
    for group, on_card in world.info.metrics.items():
        found = results[group] or {}
        if any(found.get(name) != value for name, value in (on_card or {}).items()):
            raise ValueError(
                f"{config.results} are of another world: {group} is {found}, on the card {on_card}"
            )
    origin = Origin.from_made_by(
        results["made_by"], results["training_frames"], results["wall_s"], summary(results)
    )
    world.info = replace(world.info, origin=origin, license=config.license)
    save_world(world, SHIPPED / config.world)
    print(f"wrote {SHIPPED / config.world / 'README.md'}")


if __name__ == "__main__":
    main(tyro.cli(CardConfig))
