"""`flam-rl play`: a world in the browser."""

from __future__ import annotations

import logging
import secrets
import socket
from collections.abc import Callable
from dataclasses import dataclass

import gymnasium as gym

from ..actions import ActionSpace
from ..core.checkpoint import load_world
from ..core.world import World
from ..types import check_ranges
from .endings import ended
from .tasks import find_task, fitted, misfit

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class PlayConfig:
    """Play in a world, in the browser: control its entities, undo, record, and see the real task beside it.

    Example: flam-rl play --world pucks

    The page is for this machine only, unless --host says otherwise; then its address holds a token that lets in.
    """

    world: str = "multigrid"
    """A shipped world's name, a folder, a zip, or hf://user/name, also with @revision."""
    task: str | None = None
    """Gymnasium id of the real task; for a world whose own is not one of flam_rl's."""
    host: str = "127.0.0.1"
    """Address to listen at."""
    port: int = 8000
    """Port to listen at; 0 takes any that is free."""

    def __post_init__(self) -> None:
        check_ranges(self, port=(0, 65535))


def play(config: PlayConfig) -> None:
    """Run the command.

    Raises:
        ImportError: the extra `play` is not installed.
    """
    try:
        from ..player.gate import LOOPBACK
        from ..player.server import make_app, make_server
        from ..player.stage import Stage
    except ImportError as error:
        raise ImportError(f"playing needs the package {error.name}: pip install 'flam_rl[play]'") from error
    world = load_world(config.world)
    with _listen(config) as listening:
        logger.info("measuring what the world's action codes do")
        stage = Stage(world, config.world, _real_task(world, config))
        token = None if config.host in LOOPBACK else secrets.token_urlsafe(16)
        host = f"[{config.host}]" if ":" in config.host else config.host
        address = f"http://{host}:{listening.getsockname()[1]}/" + (f"?token={token}" if token else "")
        print(f"{config.world} is at {address} (end with Ctrl+C)", flush=True)
        try:
            make_server(make_app(stage, token)).run(sockets=[listening])
        finally:
            ended(None, "flam-rl", "info", "--world", config.world)


def _listen(config: PlayConfig) -> socket.socket:
    """
    Raises:
        ValueError: the port is taken, or the address is none of this machine.
    """
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    try:
        return socket.create_server((config.host, config.port), family=family)
    except OSError as error:
        raise ValueError(
            f"cannot listen at {config.host} port {config.port}: {error.strerror}; --port 0 takes one that is free"
        ) from error


def _real_task(world: World, config: PlayConfig) -> Callable[[], gym.Env] | None:
    """What makes the real task for a visitor, or None with a warning, for the imagined world needs none."""
    if world.labels is None:
        if config.task:
            raise ValueError(f"--task is {config.task}, but {config.world} has no labels to act in a task by")
        return None

    def make() -> gym.Env | None:
        task = find_task(world.info.task, world.info.task_kwargs, config.task, f"the world {config.world}")
        return None if task is None else fitted(task, (*world.frame_size, 3))

    try:
        task = make()
    except ValueError as error:
        if config.task:
            raise
        logger.warning("%s; going on without it", error)
        return None
    if task is None:
        return None
    reason = misfit(task, (*world.frame_size, 3))
    if reason is None and ActionSpace.from_gym(task.action_space) != world.labels.agents.actions:
        reason = f"its actions are {task.action_space}; the adapter knows {world.labels.agents.actions}"
    task.close()
    if reason is not None:
        logger.warning("the real task is not shown beside: %s", reason)
        return None
    return make  # type: ignore[return-value]
