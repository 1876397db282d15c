"""The player's server as tests run it: the real one, on a port of this machine, in a thread."""

from __future__ import annotations

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
from websockets.sync.client import ClientConnection, connect

from flam_rl.player.server import make_app, make_server
from flam_rl.player.stage import Stage
from flam_rl.player.visit import Visit
from flam_rl.player.visitors import Visitors

PATIENCE_S = 60


@dataclass(frozen=True)
class View:
    """What a page shows, read from bytes."""

    facts: dict[str, Any]
    frame: np.ndarray
    owner: np.ndarray
    real: np.ndarray | None


def read_view(data: bytes, size: tuple[int, int]) -> View:
    (length,) = struct.unpack_from("<I", data)
    facts, pixels = json.loads(data[4 : 4 + length]), np.frombuffer(data, np.uint8, offset=4 + length)
    count = size[0] * size[1]
    rest = pixels[4 * count :]
    real = rest.reshape(*size, 3) if len(rest) else None
    return View(
        facts, pixels[: 3 * count].reshape(*size, 3), pixels[3 * count : 4 * count].reshape(size), real
    )


@dataclass
class Served:
    """A running server."""

    port: int
    stage: Stage
    visitors: Visitors

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, visit: str = "", **more: Any) -> ClientConnection:
        address = f"ws://127.0.0.1:{self.port}/play?visit={visit}"
        more.setdefault("origin", self.origin)
        return connect(
            address, max_size=2**22, compression=None, max_queue=None, close_timeout=1, **more
        ).__enter__()


class Page:
    """A page's side of a connection."""

    def __init__(self, served: Served, visit: str = "") -> None:
        self.socket, self.size = served.connect(visit), served.stage.world.frame_size
        self.hello = json.loads(self.socket.recv(PATIENCE_S))
        self.answers: list[dict[str, Any]] = []
        self.view = self.next()

    def say(self, kind: str, **more: Any) -> None:
        self.socket.send(json.dumps({"kind": kind} | more))

    def next(self) -> View:
        """The next view; other answers are kept."""
        while True:
            data = self.socket.recv(PATIENCE_S)
            if isinstance(data, bytes):
                self.view = read_view(data, self.size)
                return self.view
            self.answers.append(json.loads(data))

    def until(self, done: Any) -> View:
        """The first view that is as wanted."""
        began = time.monotonic()
        while not done(self.next().facts):
            assert time.monotonic() - began < PATIENCE_S, self.view.facts
        return self.view

    def close(self) -> None:
        self.socket.close()


@contextmanager
def serve(stage: Stage, token: str | None = None, visitors: Visitors | None = None) -> Iterator[Served]:
    everybody = Visitors() if visitors is None else visitors
    server = make_server(make_app(stage, token, everybody))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=lambda: server.run(sockets=[listening]))
        thread.start()
        try:
            while not server.started:
                time.sleep(0.01)
                assert thread.is_alive()
            yield Served(listening.getsockname()[1], stage, everybody)
        finally:
            server.should_exit = True
            thread.join(PATIENCE_S)
            assert not thread.is_alive()


def make_task() -> gym.Env:
    """The task beside the shipped MultiGrid world."""
    return gym.make("flam_rl/MultiGrid-v0", agents=4)


def view(visit: Visit) -> View:
    """What a visitor's page shows now."""
    return read_view(visit.view(), visit.stage.world.frame_size)


def play(visit: Visit, steps: int, *held: tuple[int, int]) -> None:
    """Step while keys are held: pairs of a latent action's index and a key's."""
    visit.held = held
    for _ in range(steps):
        visit.step()
