"""Progress of long work: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

EVERY = 15.0
"""Seconds between lines: of work whose steps take up to 15 there is one each half minute."""


def progress(
    iterable: Iterable | None = None, *, every: float = EVERY, total: int | None = None, **arguments: Any
) -> tqdm:
    """`tqdm(iterable, total=total, **arguments)`; where stderr is no terminal, a line each `every` seconds."""
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, **arguments)
    return _Lines(iterable, every, total=total, **arguments)


@contextmanager
def shown_while_waiting(bar: tqdm, every: float = EVERY) -> Iterator[None]:
    """Shows `bar` again each `every` seconds, for work whose steps take longer than that."""
    over = threading.Event()

    def show() -> None:
        while not over.wait(every):
            bar.refresh()

    shower = threading.Thread(target=show, daemon=True)
    shower.start()
    try:
        yield
    finally:
        over.set()
        shower.join()


class _Lines(tqdm):
    latest = time.monotonic()
    """When the latest line was written, by any: of many short loops in turn some write, too."""
    monitor_interval = 0  # no thread

    def __init__(self, iterable: Iterable | None, every: float, **arguments: Any) -> None:
        self.every = every
        shape = "{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"
        # `gui` is tqdm's word for bars that draw themselves.
        super().__init__(iterable, gui=True, mininterval=0, miniters=1, bar_format=shape, **arguments)

    def display(self, *_: Any, **__: Any) -> bool:
        now = time.monotonic()
        if now - _Lines.latest >= self.every:
            _Lines.latest = now
            print(self, file=sys.stderr, flush=True)
        return True

    def set_postfix(self, *arguments: Any, **named: Any) -> None:
        super().set_postfix(*arguments, **named | {"refresh": False})

    def clear(self, *_: Any, **__: Any) -> None:
        """Nothing: a line stays."""

    def close(self) -> None:
        if not self.disable:
            self.display()
        super().close()
