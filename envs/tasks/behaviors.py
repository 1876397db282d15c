"""Seeded behaviour policies for the entities of a grid task, and the shortest-path expert."""

from __future__ import annotations

from collections import deque
from typing import Literal

import numpy as np

LEFT, RIGHT, FORWARD, STAY = range(4)
STEPS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])
"""Cell offset `(dx, dy)` of one step forward for each heading: east, south, west, north."""

BehaviorName = Literal["random", "goal", "patrol"]
BEHAVIORS: tuple[BehaviorName, ...] = ("random", "goal", "patrol")


def shortest_path_action(position: np.ndarray, heading: int, target: np.ndarray, blocked: np.ndarray) -> int:
    """First action of a path with the fewest actions, turns included, to `target`.

    Args:
        position, target: cells `(x, y)`.
        heading: 0 east, 1 south, 2 west, 3 north.
        blocked: bool `(size, size)`, indexed `[x, y]`: cells that cannot be entered.

    Returns:
        LEFT, RIGHT or FORWARD; STAY when already there or when there is no path.
    """
    start = (int(position[0]), int(position[1]), int(heading))
    goal = (int(target[0]), int(target[1]))
    if start[:2] == goal:
        return STAY
    first: dict[tuple[int, int, int], int] = {start: STAY}
    queue = deque([start])
    while queue:
        x, y, h = node = queue.popleft()
        dx, dy = STEPS[h]
        options = [(FORWARD, (x + int(dx), y + int(dy), h))]
        options += [(LEFT, (x, y, (h - 1) % 4)), (RIGHT, (x, y, (h + 1) % 4))]
        for action, reached in options:
            if reached in first or (action == FORWARD and blocked[reached[:2]]):
                continue
            first[reached] = action if node == start else first[node]
            if reached[:2] == goal:
                return first[reached]
            queue.append(reached)
    return STAY


class Behavior:
    """One entity's behaviour: `random`, `goal` (goal, then a random cell, and again) or `patrol`
    (to and fro between two random cells). A tenth of the actions of the last two are random.

    Args:
        name: one of `BEHAVIORS`.
        goal: the goal's cell.
        free: int `(cells, 2)`, the cells that can be walked on.
        rng: where every random choice comes from.
    """

    NOISE = 0.1

    def __init__(
        self, name: BehaviorName, goal: np.ndarray, free: np.ndarray, rng: np.random.Generator
    ) -> None:
        self.name, self.rng, self.free = name, rng, free
        first = goal if name == "goal" else self._random_cell()
        self.targets = [np.asarray(first), self._random_cell()]

    def _random_cell(self) -> np.ndarray:
        return self.free[self.rng.integers(len(self.free))]

    def act(self, position: np.ndarray, heading: int, blocked: np.ndarray) -> int:
        """Action for an entity at `position` with `heading`; `blocked` as in the path search."""
        if self.name == "random" or self.rng.random() < self.NOISE:
            return int(self.rng.integers(4))
        if np.array_equal(position, self.targets[0]):
            self.targets.reverse()
            if self.name == "goal" and self.rng.random() < 0.5:
                self.targets[0] = self._random_cell()
        target = self.targets[0]
        action = shortest_path_action(position, heading, target, blocked)
        return int(self.rng.integers(4)) if action == STAY else action
