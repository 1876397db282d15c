"""ActionSpace: what actions a task takes, as labels keep it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np

MOST_ACTIONS = 2**16
"""Values of a task's discrete actions, or numbers of one action, that a network may be made for."""


@dataclass(frozen=True)
class ActionSpace:
    """What actions a task takes, in numbers that JSON can hold: gymnasium's Discrete, MultiDiscrete or Box.

    Attributes:
        kind: `discrete`, whole numbers, or `box`, real ones.
        shape: of one action; `()` for gymnasium's Discrete.
        count, start: of each number of a discrete action how many values it has and the least of them.
        low, high: of each number of a box its bounds, None where it has none. Numbers are in C order.
    """

    kind: Literal["discrete", "box"]
    shape: tuple[int, ...] = ()
    count: tuple[int, ...] = ()
    start: tuple[int, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: bounds that are none, as many as the shape does not need, or too many numbers for a network.
        """
        if len(self.shape) > 8 or not all(1 <= side <= MOST_ACTIONS for side in self.shape):
            raise ValueError(f"shape is {self.shape}; allowed are 8 sides at most, of 1 to {MOST_ACTIONS}")
        discrete = self.kind == "discrete"
        size, found = math.prod(self.shape), tuple(map(len, (self.count, self.start, self.low, self.high)))
        if found != ((size, size, 0, 0) if discrete else (0, 0, size, size)):
            raise ValueError(
                f"{self.kind} actions of shape {self.shape} have {size} numbers; count, start, low and high are of "
                f"{found[0]}, {found[1]}, {found[2]} and {found[3]}"
            )
        if min(self.count, default=1) < 1 or max(map(abs, self.start), default=0) > 2**53:
            raise ValueError(
                f"count is {self.count}, start {self.start}; allowed are 1 or more, and -2^53 to 2^53"
            )
        bounds = zip(self.low, self.high, strict=True)
        if any(low is not None and high is not None and low > high for low, high in bounds):
            raise ValueError(f"low {self.low} is above high {self.high}")
        if not 1 <= self.width <= MOST_ACTIONS:
            raise ValueError(f"actions need {self.width} inputs of a network; allowed is 1 to {MOST_ACTIONS}")

    @classmethod
    def discrete(cls, count: int) -> ActionSpace:
        """Gymnasium's Discrete of `count` actions from 0 on."""
        return cls("discrete", (), (count,), (0,))

    @classmethod
    def from_gym(cls, space: gym.Space) -> ActionSpace:
        """
        Raises:
            ValueError: `space` is no Discrete, MultiDiscrete or Box, or too large for a network.
        """
        if isinstance(space, gym.spaces.Discrete):
            return cls("discrete", (), (int(space.n),), (int(space.start),))
        if isinstance(space, gym.spaces.MultiDiscrete):
            return cls(
                "discrete",
                space.shape,
                tuple(space.nvec.ravel().tolist()),
                tuple(space.start.ravel().tolist()),
            )
        if isinstance(space, gym.spaces.Box):
            low, high = (
                tuple(float(bound) if np.isfinite(bound) else None for bound in bounds.ravel())
                for bounds in (space.low, space.high)
            )
            return cls("box", space.shape, low=low, high=high)
        raise ValueError(f"actions are {space!s:.200}; allowed are Discrete, MultiDiscrete and Box")

    @property
    def size(self) -> int:
        """How many numbers an action has."""
        return math.prod(self.shape)

    @property
    def width(self) -> int:
        """How many inputs a network needs for an action: one for each value of a whole number, or each real number."""
        return sum(self.widths)

    @property
    def widths(self) -> tuple[int, ...]:
        """The same of each number."""
        return self.count if self.kind == "discrete" else (1,) * self.size

    def part(self, numbers: Sequence[int]) -> ActionSpace:
        """What only these numbers of an action, in C order, may be; of all of them the same space."""
        if len(numbers) == self.size:
            return self

        def picked(values: tuple) -> tuple:
            return tuple(values[number] for number in numbers) if values else ()

        return ActionSpace(
            self.kind,
            (len(numbers),),
            picked(self.count),
            picked(self.start),
            picked(self.low),
            picked(self.high),
        )

    @property
    def space(self) -> gym.Space:
        """As gymnasium has it."""
        if self.kind == "box":
            low = np.reshape([-np.inf if bound is None else bound for bound in self.low], self.shape)
            high = np.reshape([np.inf if bound is None else bound for bound in self.high], self.shape)
            return gym.spaces.Box(low.astype(np.float32), high.astype(np.float32), dtype=np.float32)
        if not self.shape:
            return gym.spaces.Discrete(self.count[0], start=self.start[0])
        count, start = (np.reshape(numbers, self.shape) for numbers in (self.count, self.start))
        return gym.spaces.MultiDiscrete(count, start=start)

    def __str__(self) -> str:
        return str(self.space)

    def checked(self, actions: Any) -> np.ndarray:
        """Actions `(T, *shape)` of any type as int64, or of a box as float32.

        Raises:
            ValueError: one is none of the task's; numbers beyond a box's bounds by rounding alone are.
        """
        given = np.asarray(actions)
        if given.dtype.kind not in "biuf" or given.shape[1:] != self.shape:
            raise ValueError(
                f"labelled actions are {given.dtype} of shape {given.shape[1:]}; allowed are {self}"
            )
        flat = given.reshape(len(given), self.size).astype(np.float64)
        if self.kind == "discrete":
            least = np.array(self.start)
            known = (flat >= least) & (flat < least + np.array(self.count)) & (flat == flat.round())
        else:
            low = np.array([-np.inf if bound is None else bound for bound in self.low])
            high = np.array([np.inf if bound is None else bound for bound in self.high])
            room = 1e-6 * np.maximum(1, np.abs(flat))
            known = np.isfinite(flat) & (flat >= low - room) & (flat <= high + room)
        if not known.all():
            wrong = given[np.flatnonzero(~known.all(1))[0]]
            raise ValueError(f"labelled actions hold {wrong}; allowed are those of the task, {self}")
        return given.astype(np.int64 if self.kind == "discrete" else np.float32)
