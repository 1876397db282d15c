"""Whether an imagined world stays valid: validity of its frames, and how often a random agent is rewarded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from gymnasium.vector import VectorEnv

from ..core.layers import first_least
from ..core.threads import one_core
from ..types import Json, Scene, Tiles, Truth
from .encoded import Encoded, left_out
from .policies import play

CHECKED = (1, 10, 40)
COUNT = 512
"""How many imagined worlds are measured."""
TOLERANCE = 2.0
"""Mean absolute difference, in grey levels of 255, up to which a decoded cell is the renderer's tile."""


@runtime_checkable
class DrawsTiles(Protocol):
    """A task that can list every tile that its renderer draws."""

    def tiles(self) -> Tiles:
        """Its tiles."""
        ...


def read_frames(frames: np.ndarray, tiles: Tiles) -> tuple[np.ndarray, np.ndarray]:
    """The nearest tile of each cell of frames uint8 `(B, H, W, 3)`.

    Returns:
        index int `(B, cells)`, row by row, and mean absolute difference in grey levels `(B, cells)`.
    """
    height, width = tiles.images.shape[1:3]
    batch, rows, columns = len(frames), frames.shape[1] // height, frames.shape[2] // width
    cells = (
        frames.reshape(batch, rows, height, columns, width, 3)
        .swapaxes(2, 3)
        .reshape(batch, rows * columns, -1)
    )
    flat = tiles.images.reshape(len(tiles.images), -1).astype(np.float32)
    difference = (
        torch.cdist(torch.as_tensor(cells, dtype=torch.float32), torch.as_tensor(flat), p=1) / flat.shape[1]
    )
    return first_least(difference).numpy(), difference.amin(-1).numpy()


def valid_frames(frames: np.ndarray, tiles: Tiles) -> np.ndarray:
    """Which frames are valid: every cell shows a tile of the renderer, and every agent appears exactly once. bool
    `(B,)`."""
    tile, difference = read_frames(frames, tiles)
    shown = tiles.owner[tile]
    once = np.stack([(shown == agent).sum(1) == 1 for agent in range(tiles.owner.max() + 1)])
    return np.logical_and((difference <= TOLERANCE).all(1), once.all(0))


@one_core()
@torch.inference_mode()
def measure(
    encoded: Encoded,
    truth: Sequence[Truth] | None = None,
    task: object = None,
    seed: int = 0,
    count: int = COUNT,
) -> Json | None:
    """Share of valid imagined frames after 1, 10 and 40 steps in which the prior acts for every factor.

    Args:
        task: the real task, which lists the tiles that its renderer draws.

    Returns:
        The shares by steps (as text); `floors`: the same with latent actions from a standard normal, whatever the
        state (`random_actions`). None where the task has no tiles.
    """
    if not isinstance(task, DrawsTiles):
        left_out("imagination_validity", "there is no task that lists the tiles of its renderer")
        return None
    world, tiles = encoded.world, task.tiles()
    generator = torch.Generator(world.device).manual_seed(seed)
    start = world.start(count, generator)

    def valid(factors: torch.Tensor) -> float:
        frames = world.draw(Scene(factors, start.context)).cpu().numpy()
        return float(valid_frames(frames, tiles).mean())

    imagination = world.imagination()
    state = imagination.begin(start.factors)
    result: Json = {}
    for step in range(1, CHECKED[-1] + 1):
        state, _ = imagination.step(state, generator=generator)
        if step in CHECKED:
            result[str(step)] = valid(state.factors_BKS)
    floor, factors = {}, start.factors
    shape = (count, world.latent_actions, world.latent_action_dim)
    for step in range(1, CHECKED[-1] + 1):
        factors = world.step(factors, torch.randn(shape, generator=generator, device=world.device))
        if step in CHECKED:
            floor[str(step)] = valid(factors)
    return result | {"floors": {"random_actions": floor}}


def random_reward_rate(tasks: VectorEnv, seed: int, episodes: int) -> float:
    """Share of episodes in which a uniformly random agent of the tasks' own action space gets a reward.

    Args:
        tasks: as `play` takes them.
    """
    tasks.action_space.seed(seed)
    played = play(tasks, lambda seen: tasks.action_space.sample(), episodes, seed, "random agent")
    return sum(episode.rewarded for episode in played) / episodes


@one_core()
def random_reward_rate_batched(env: Any, seed: int) -> float:
    """The same for a vector env of autoreset mode next-step, one episode per world."""
    env.action_space.seed(seed)
    env.reset(seed=seed)
    found, ended = np.zeros(env.num_envs, bool), np.zeros(env.num_envs, bool)
    while not ended.all():
        _, rewards, terminated, truncated, _ = env.step(env.action_space.sample())
        found |= (rewards > 0) & ~ended
        ended |= terminated | truncated
    return float(found.mean())
