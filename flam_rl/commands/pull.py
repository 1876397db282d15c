"""`flam-rl pull`: a world from the Hugging Face Hub."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from ..core.checkpoint import check_replaceable, load_world
from ..core.hub import HubAddress
from ..core.sources import WORLD_FILES, world_source
from ..files import folder_written_whole
from ..results import write_results
from .checks import check_out
from .endings import ended


@dataclass(frozen=True)
class PullConfig:
    """Fetch a world from the Hugging Face Hub: safetensors, JSON and card, no code. From then on it is there without a network.

    Example: flam-rl pull hf://user/name

    Example: flam-rl pull hf://user/name@v1 --out runs/theirs
    """

    address: Annotated[str, tyro.conf.Positional]
    """hf://user/name, or hf://user/name@revision for a branch, a tag or a commit."""
    out: Path | None = None
    """Folder for a copy, OUT/world, and results.json, which says the commit; without it the world is only cached."""


def pull(config: PullConfig) -> None:
    """Run the command.

    Raises:
        ValueError: `address` is none, there is no world, or it is damaged; or `out` cannot be written.
        OSError: the Hub cannot be reached.
        ImportError: the extra `hub` is not installed.
    """
    address = HubAddress.parse(config.address)
    if config.out:
        check_out(config.out)
        check_replaceable(config.out / "world")
    with world_source(str(address)) as source:
        load_world(source.name)
        print(f"{address} is {source.name}, in {source.folder}")
        if config.out is None:
            ended(None, "flam-rl", "info", source.name)
            return
        with folder_written_whole(config.out / "world") as scratch:
            for name in WORLD_FILES:
                if (source.folder / name).is_file():
                    shutil.copyfile(source.folder / name, scratch / name)
    path = write_results(config.out, {"pulled_from": source.name}, None)
    ended(f"{config.out / 'world'} and {path}", "flam-rl", "info", config.out)
