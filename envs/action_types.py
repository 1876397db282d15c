"""How the caller of FLAM-v0 says what the controlled factors do: latent actions, action codes, or the task's own actions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch

from ..core.agent import Agents
from ..core.world import World

ActionType = Literal["latent", "codes", "real"]
ACTION_TYPES: tuple[ActionType, ...] = ("latent", "codes", "real")
WholeNumbers = gym.spaces.Discrete | gym.spaces.MultiDiscrete
ACTION_BOUND = 3.0
"""Latent actions are kept near a standard normal: three standard deviations."""


class Actions(ABC):
    """Actions of one type for the C controlled latent actions of a world.

    Attributes:
        space: of one world's action.
    """

    space: gym.Space

    @abstractmethod
    def check(self, actions: Any, worlds: tuple[int, ...] = ()) -> np.ndarray:
        """`actions` as an array `(*worlds, ...)`: of one world, or of `(B,)`.

        Raises:
            ValueError: they are none.
        """

    @abstractmethod
    def wanted(self, actions: np.ndarray, factors_BKS: torch.Tensor) -> torch.Tensor:
        """Latent actions float `(B, C, A)` that checked actions stand for, in states `(B, K, S)`."""

    def mask(self, factors_BKS: torch.Tensor) -> np.ndarray | None:
        """Which actions are plausible in states `(B, K, S)`: bool `(B, C * M)` of action codes; None of others."""
        return None


class LatentActions(Actions):
    """Latent actions themselves, one after the other."""

    space: gym.spaces.Box

    def __init__(self, world: World, controlled: Sequence[int]) -> None:
        self.count = len(controlled)
        self.space = gym.spaces.Box(
            -ACTION_BOUND, ACTION_BOUND, (self.count * world.latent_action_dim,), np.float32
        )

    def check(self, actions: Any, worlds: tuple[int, ...] = ()) -> np.ndarray:
        """Float32, clipped to the bounds."""
        return _checked_latent(actions, (*worlds, *self.space.shape))

    def wanted(self, actions: np.ndarray, factors_BKS: torch.Tensor) -> torch.Tensor:
        """The actions as they are."""
        return torch.from_numpy(actions).to(factors_BKS.device).unflatten(1, (self.count, -1))


class CodeActions(Actions):
    """Numbers of action codes, which mean the same in every state.

    Raises:
        ValueError: the world's prior chooses from no codes.
    """

    space: WholeNumbers

    def __init__(self, world: World, controlled: Sequence[int]) -> None:
        codes = world.model.action_codes
        if codes is None:
            raise ValueError(
                "actions is 'codes', but this world's model has no action codes; allowed are 'latent' and, with labels, 'real'"
            )
        self.world, self.controlled, self.codes_MA = world, list(controlled), codes
        self.space = _whole_numbers([len(codes)] * len(controlled))

    def check(self, actions: Any, worlds: tuple[int, ...] = ()) -> np.ndarray:
        """Whole numbers, int64."""
        return _checked_numbers(actions, worlds, self.space)

    def wanted(self, actions: np.ndarray, factors_BKS: torch.Tensor) -> torch.Tensor:
        """The codes of these numbers."""
        numbers = torch.from_numpy(actions.reshape(len(actions), -1)).to(factors_BKS.device)
        return self.codes_MA[numbers]

    def mask(self, factors_BKS: torch.Tensor) -> np.ndarray | None:
        """The codes that the prior finds plausible for each controlled factor if it moves first."""
        found = self.world.model.plausible_codes(factors_BKS)
        return found[:, self.controlled].flatten(1).cpu().numpy()


class RealActions(Actions):
    """The actions of the world's task, which its adapter turns into latent ones.

    Raises:
        ValueError: the world has no labels, others than the task's agents are controlled, or one latent action moves several
            agents.
    """

    def __init__(self, world: World, controlled: Sequence[int], agents: Agents | None) -> None:
        if agents is None:
            raise ValueError(
                "actions is 'real', but this world has no labels that tell what the task's actions do; "
                "allowed are 'latent' and 'codes'"
            )
        self.agents = agents
        if list(controlled) != world.moved_by_agents(self.agents):
            raise ValueError(
                f"actions is 'real', but control is {list(controlled)}; allowed is 'agent': the task's actions move nobody else"
            )
        if len(controlled) < len(self.agents):
            raise ValueError(
                f"actions is 'real', but this world's one latent action cannot stand for what {len(self.agents)} agents do; "
                "allowed is 'latent'"
            )
        self.space = self.agents.actions.space

    def check(self, actions: Any, worlds: tuple[int, ...] = ()) -> np.ndarray:
        """Actions of the task: whole numbers, or finite ones clipped to its bounds."""
        if isinstance(self.space, gym.spaces.Box):
            given = np.asarray(actions, self.space.dtype)
            if given.shape != (*worlds, *self.space.shape):
                raise ValueError(
                    f"actions have shape {given.shape}; allowed is {(*worlds, *self.space.shape)}"
                )
            if not np.isfinite(given).all():
                raise ValueError(f"actions hold {given[~np.isfinite(given)][0]}; allowed are finite numbers")
            return given.clip(self.space.low, self.space.high)
        assert isinstance(self.space, WholeNumbers)  # an `ActionSpace` is nothing else
        return _checked_numbers(actions, worlds, self.space)

    def wanted(self, actions: np.ndarray, factors_BKS: torch.Tensor) -> torch.Tensor:
        """What the adapter says that real actions are in these states."""
        return self.agents.latent(factors_BKS, torch.from_numpy(actions).to(factors_BKS.device))


def make_actions(
    kind: ActionType, world: World, controlled: Sequence[int], agents: Agents | None = None
) -> Actions:
    """Actions of a type for the latent actions `controlled`.

    Args:
        agents: whom the task's own actions move; by default those whom the world's labels tell.

    Raises:
        ValueError: there is no such type, or the world has not what it needs.
    """
    if kind == "latent":
        return LatentActions(world, controlled)
    if kind == "codes":
        return CodeActions(world, controlled)
    if kind == "real":
        if agents is None and world.labels is not None:
            agents = world.labels.agents
        return RealActions(world, controlled, agents)
    raise ValueError(f"actions is {kind!r}; allowed are {', '.join(map(repr, ACTION_TYPES))}")


def _whole_numbers(counts: list[int]) -> WholeNumbers:
    return gym.spaces.Discrete(counts[0]) if len(counts) == 1 else gym.spaces.MultiDiscrete(counts)


def _checked_numbers(actions: Any, worlds: tuple[int, ...], space: WholeNumbers) -> np.ndarray:
    """Actions of a space for one world or for so many, int64.

    Raises:
        ValueError: they are none.
    """
    given = np.asarray(actions)
    start = np.asarray(space.start)
    count = np.asarray(space.n if isinstance(space, gym.spaces.Discrete) else space.nvec)
    if given.dtype.kind not in "iu" or given.shape != (*worlds, *start.shape):
        raise ValueError(
            f"actions are {given.dtype} of shape {given.shape}; allowed are whole numbers of shape "
            f"{(*worlds, *start.shape)}, of {space}"
        )
    if ((given < start) | (given >= start + count)).any():
        raise ValueError(f"actions hold {given.min()} to {given.max()}; allowed are those of {space}")
    return given.astype(np.int64)


def _checked_latent(actions: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Latent actions as float32, clipped to the bounds.

    Raises:
        ValueError: another shape, or an entry that is not a finite number.
    """
    actions = np.asarray(actions, np.float32)
    if actions.shape != shape:
        raise ValueError(f"latent actions have shape {actions.shape}; allowed is {shape}")
    if not np.isfinite(actions).all():
        raise ValueError(
            f"latent actions must be finite numbers in -3..3; given {actions[~np.isfinite(actions)][:3]}"
        )
    return actions.clip(-ACTION_BOUND, ACTION_BOUND)
