"""The folder of a run: what it is a run of, and what becomes of it when a command is given again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..data.fingerprints import differences
from ..files import folder_written_whole, put_back, remove_whole, sole_use
from ..results import read_json, write_json
from ..types import Json

UNFINISHED = "unfinished"
"""Folder in a run's that it goes on from until it has finished."""
CONFIG = "config.json"
PLACES = ("data", "world", "out", "overwrite")
"""Settings that name places: what is there is compared by its bytes."""


@dataclass(frozen=True)
class Run:
    """A run and its folder, which holds at most one: `config.json` says of what, `unfinished` is there until it has finished.

    Attributes:
        out: the folder.
        settings: resolved, as `config.json` holds them.
        made_from: the SHA-256 of the files that it is made from, by their names.
        product: what it makes, a name in the folder.
        later: names of settings that concern only what is done with the product: it is kept when they change.
        overwrite: whether another run in the folder gives way.
    """

    out: Path
    settings: Json
    made_from: Mapping[str, str]
    product: str
    later: tuple[str, ...] = ()
    overwrite: bool = False

    @property
    def unfinished(self) -> Path:
        """What an interrupted run goes on from."""
        return self.out / UNFINISHED

    def state(self) -> Literal["new", "unfinished", "kept", "finished"]:
        """What is in the folder: nothing that counts; this run, interrupted; its product, to be used in another way; this run.

        Raises:
            ValueError: it is another run, and may not be overwritten.
        """
        begun = self.unfinished.exists()
        if not begun and not (self.out / self.product).exists():
            return "new"
        try:
            found = self._found()
        except ValueError:
            if not self.overwrite:
                raise
            return "new"
        if begun:
            return "unfinished"
        if self.overwrite:
            return "new"
        return "finished" if self._compared(found) == self._compared(self._written) else "kept"

    def _found(self) -> Json:
        """What `config.json` says.

        Raises:
            ValueError: it is not of this run.
        """
        what = "an interrupted run" if self.unfinished.exists() else f"a finished run, {self.product}"
        advice = "give another --out, or --overwrite to start anew"
        path = self.out / CONFIG
        if not path.exists():
            raise ValueError(f"{self.out} holds {what}, but no {CONFIG} that says of what; {advice}")
        found = read_json(path)
        files = differences(found.get("made_from", {}), self.made_from)
        if files:
            raise ValueError(
                f"{self.out} holds {what} made from other data ({files}); restore it, or {advice}"
            )
        before, now = (_flat(self._compared(one, self.later)) for one in (found, self._written))
        other = [
            f"{name} was {before.get(name)!r} and is {now.get(name)!r}"
            for name in sorted(before.keys() | now.keys())
            if before.get(name) != now.get(name)
        ]
        if other:
            raise ValueError(
                f"{self.out} holds {what} with other settings ({'; '.join(other[:3])}); {advice}"
            )
        return found

    @property
    def _written(self) -> Json:
        return self.settings | {"made_from": dict(self.made_from)}

    def _compared(self, config: Json, but: tuple[str, ...] = ()) -> Json:
        return {name: value for name, value in config.items() if name not in (*PLACES, "made_from", *but)}

    @contextmanager
    def locked(self) -> Iterator[None]:
        """The folder is made, is this process's alone, and holds nothing that a process which was killed was writing.

        Raises:
            ValueError: as `state`; another process is at work there.
        """
        with sole_use(self.out):
            for folder in (self.out / self.product, self.unfinished):
                put_back(folder)
            self.state()
            self._clear()
            yield

    def begin(self) -> None:
        """From here on the folder is of this run, and of no other."""
        state = self.state()
        if state != "unfinished":
            with folder_written_whole(self.unfinished) as scratch:
                if state == "kept":
                    product = self.out / self.product
                    copy = shutil.copytree if product.is_dir() else shutil.copyfile
                    copy(product, scratch / self.product)
        write_json(self.out / CONFIG, self._written)

    def _clear(self) -> None:
        """Delete what a process that was killed was writing."""
        for path in self.out.iterdir():
            if path.name.startswith((f".{self.product}-", f".{UNFINISHED}-")) or (
                path.name.startswith(".") and ".part" in path.name
            ):
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def finish(self) -> None:
        """All that it makes is in place."""
        remove_whole(self.unfinished)


def resolved(config: Any) -> Json:
    """A config as JSON holds it."""
    return json.loads(json.dumps(asdict(config), default=str))


def _flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Nested settings by their names as they are given on the command line."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
    return found
