"""Who is there: a bounded number of visitors, each kept for a minute after the connection dropped."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from .visit import Visit

MOST = 16
"""Visitors at once."""
AWAY_S = 60.0
"""Seconds for which a visitor whose connection dropped is waited for."""


@dataclass(eq=False)
class Visitor:
    """A visit and its connection.

    Attributes:
        id: what the page shows to come back; nobody else knows it.
        lock: held by whoever changes the visit. stirred: something is to be looked at. connection: counts connections, of which
            the latest holds. left: when the connection dropped; None while there is one.
    """

    id: str
    visit: Visit
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stirred: asyncio.Event = field(default_factory=asyncio.Event)
    connection: int = 0
    left: float | None = None


class Visitors:
    """All of them.

    Args:
        clock: seconds, for tests to move.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._by_id: dict[str, Visitor] = {}

    def __len__(self) -> int:
        self.forget()
        return len(self._by_id)

    def find(self, id: str) -> Visitor | None:
        """Who has this id and is not away for too long."""
        self.forget()
        return self._by_id.get(id)

    def enter(self, visit: Visit) -> Visitor:
        """A new visitor."""
        visitor = Visitor(secrets.token_urlsafe(16), visit)
        self._by_id[visitor.id] = visitor
        return visitor

    @property
    def full(self) -> bool:
        """Whether another one would be one too many; who is away makes room."""
        self.forget()
        if len(self._by_id) >= MOST:
            away = [one for one in self._by_id.values() if one.left is not None]
            if away:
                self._drop(min(away, key=lambda one: one.left or 0.0))
        return len(self._by_id) >= MOST

    def leave(self, visitor: Visitor) -> None:
        """The connection dropped."""
        visitor.left = self._clock()

    def forget(self) -> None:
        """Drop who is away for too long."""
        now = self._clock()
        for visitor in list(self._by_id.values()):
            if visitor.left is not None and now - visitor.left > AWAY_S:
                self._drop(visitor)

    def _drop(self, visitor: Visitor) -> None:
        visitor.visit.close()
        del self._by_id[visitor.id]
