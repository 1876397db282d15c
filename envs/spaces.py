"""What the caller of FLAM-v0 gives and sees: controlled factors, latent actions, observations."""

from __future__ import annotations

import logging
import operator
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch

from ..core.model import CONTEXT_CODE_BOUND
from ..core.threads import lone_threads
from ..core.world import World
from ..types import Scene

logger = logging.getLogger(__name__)

Control = Literal["agent", "all"] | Sequence[int]
Observation = Literal["factors", "pixels", "features"]
OBSERVATIONS: tuple[Observation, ...] = ("factors", "pixels", "features")


def controlled_factors(world: World, control: Control | None) -> list[int]:
    """Indices of the latent actions that are the caller's: of factors, where each factor has one. `agent` are all whom the
    task's actions move; None means the same where labels say who they are.

    Raises:
        ValueError: `control` is none of `agent`, `all` or a list of different factor indices, or is
            `agent` in a world without labels.
    """
    allowed = f"allowed are 'agent', 'all' and lists of different indices 0 to {world.latent_actions - 1}"
    if control is None:
        if world.labels is None:
            logger.warning("this world has no labels: control is 'all', reward is 0 and nothing terminates")
            return list(range(world.latent_actions))
        control = "agent"
    if isinstance(control, str):
        if control == "all":
            return list(range(world.latent_actions))
        if control != "agent":
            raise ValueError(f"control is {control!r}; {allowed}")
        if world.labels is None:
            raise ValueError(
                f"control is 'agent', but this world has no labels that tell which one it is; {allowed}"
            )
        return world.moved_by_agents(world.labels.agents)
    try:
        chosen = [index(one) for one in control]
    except TypeError as error:  # no list, or not of indices
        raise ValueError(f"control is {control!r}; {allowed}") from error
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(world.latent_actions)):
        raise ValueError(f"control is {control!r}; {allowed}")
    return chosen


def index(given: Any) -> int:
    """An integer of any type as an int.

    Raises:
        TypeError: it is something else; a bool is, for a mask of factors is no list of them.
    """
    if isinstance(given, bool):
        raise TypeError("a bool is no index")
    return operator.index(given)


def check_count(name: str, count: Any) -> int:
    """`count` as an int.

    Raises:
        ValueError: it is not a whole number of 1 or more; the message calls it `name`.
    """
    try:
        whole = index(count)
    except TypeError:
        whole = 0
    if whole < 1:
        raise ValueError(f"{name} is {count!r}; allowed is 1 or more, a whole number")
    return whole


def observation_space(world: World, observation: Observation) -> gym.spaces.Box:
    """Observation space of one world.

    Raises:
        ValueError: `observation` is not one of `OBSERVATIONS`, or not one that the world's model has.
    """
    if observation not in OBSERVATIONS:
        raise ValueError(f"observation is {observation!r}; allowed are {', '.join(map(repr, OBSERVATIONS))}")
    if observation == "pixels":
        return gym.spaces.Box(0, 255, (*world.frame_size, 3), np.uint8)
    if observation == "factors":
        bounds = np.full(world.observation_dim, CONTEXT_CODE_BOUND, np.float32)
        bounds[: world.factors * world.factor_dim] = world.model.factor_bound
        return gym.spaces.Box(-bounds, bounds, dtype=np.float32)
    if world.model.feature_shape is None:
        raise ValueError(
            "observation is 'features', but this world's model has none; allowed are 'factors', 'pixels'"
        )
    return gym.spaces.Box(-np.inf, np.inf, world.model.feature_shape, np.float32)


def observe(
    world: World,
    scene: Scene,
    observation: Observation,
    code_BC: torch.Tensor | None = None,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Scenes of a batch as observations, written to `out` where one is given.

    Nothing is decoded that is not asked for.

    Args:
        code_BC: the code of the scenes' contexts, where it is known already.
    """
    if observation == "factors":
        seen = scene.factors.cpu().numpy()
        out = np.empty((len(seen), world.observation_dim), np.float32) if out is None else out
        size = world.factors * world.factor_dim
        bound = world.model.factor_bound  # only rounding is beyond it
        np.clip(seen, -bound, bound, out=out[:, :size].reshape(seen.shape))
        if world.model.context_code_dim:
            if code_BC is None:
                code_BC = lone_threads().split(world.context_code, scene.context)
            out[:, size:] = code_BC.cpu().numpy()
        return out

    def decode(factors_BKS: torch.Tensor, context_BX: torch.Tensor) -> torch.Tensor:
        share = Scene(factors_BKS, context_BX)
        return world.draw(share) if observation == "pixels" else world.model.features(share)

    seen = lone_threads().split(decode, *scene).cpu().numpy()
    if out is None:
        return seen
    np.copyto(out, seen)
    return out
