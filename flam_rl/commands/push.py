"""`flam-rl push`: a world to the Hugging Face Hub."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ..core import hub
from ..core.checkpoint import load_world
from ..core.sources import WORLD_FILES, world_source
from .endings import ended


@dataclass(frozen=True)
class PushConfig:
    """Upload a world with its card to the Hugging Face Hub, by the login of `hf auth login`.

    Example: flam-rl push runs/mine hf://user/name

    config.json and the card say the command that trained the world, with the folders named there.
    """

    world: Annotated[str, tyro.conf.Positional]
    """A shipped world's name, a folder, or a zip."""
    address: Annotated[str, tyro.conf.Positional]
    """hf://user/name, or hf://user/name@branch; what is not there yet is made."""


def push(config: PushConfig) -> None:
    """Run the command.

    Raises:
        ValueError: there is no such world, it is damaged, or the login may not write there.
        OSError: the Hub cannot be reached.
        ImportError: the extra `hub` is not installed.
    """
    address = hub.HubAddress.parse(config.address)
    load_world(config.world)
    with world_source(config.world) as source:
        pinned = hub.push(source.folder, address, WORLD_FILES)
    ended(str(pinned), "flam-rl", "pull", str(pinned))
