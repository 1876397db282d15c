"""Motions of the discs of `flam_rl/Pucks-v0`: the possible pushes, and the behaviours that choose among them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .pucks_table import Puck

PUSHES = ((0, 0), (-1, 0), (1, 0), (0, -1), (0, 1))
"""Direction `(x, y)` of each push, y down: none, left, right, up, down."""
PUSH, DRAG = 0.3, 0.12
"""In a step velocity becomes `(1 - DRAG) * velocity + PUSH * push`, pixels a step: 2.5 at most by pushes alone."""
MOTIONS = ("drift", "wander", "chase", "flee", "rest")
CHASE_SPEED = 0.6
"""Pixels a step of a chaser: who rests, bumps into others or lets itself be cornered is caught."""
PLAN = 12
"""Steps for which `escape` holds each of the two pushes that it looks ahead by."""


def steer(puck: Puck, x: float, y: float, speed: float = 2.0) -> int:
    """The push that brings a puck's velocity nearest to one that leads to `(x, y)` and stops there."""
    way_x, way_y = x - puck.x, y - puck.y
    pace = min(0.15, speed / max(math.hypot(way_x, way_y), 1e-6))
    lack_x, lack_y = pace * way_x - (1 - DRAG) * puck.vx, pace * way_y - (1 - DRAG) * puck.vy
    if max(abs(lack_x), abs(lack_y)) < PUSH / 2:
        return 0
    if abs(lack_x) >= abs(lack_y):
        return 2 if lack_x > 0 else 1
    return 4 if lack_y > 0 else 3


class Motion:
    """A puck's behaviour: one of `MOTIONS` for 20 to 60 steps, then another.

    drift: pushes only where it became slow, along its way. wander: pushes in a direction for 2 to 6 steps, pauses as long, again.
    chase: goes after another puck until they touch. flee: goes away from the nearest one when it is within 12 pixels.
    rest: never pushes.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.steps_left = rng, 0

    def push(self, me: Puck, others: Sequence[Puck]) -> int:
        """The push that puck `me` chooses among `others`."""
        if self.steps_left == 0:
            self.kind = MOTIONS[int(self.rng.integers(len(MOTIONS)))]
            self.steps_left = int(self.rng.integers(20, 61))
            self.direction = self.hold = 0
            self.prey = others[int(self.rng.integers(len(others)))] if others else me
        self.steps_left -= 1
        if self.kind == "drift" and max(abs(me.vx), abs(me.vy)) < 0.8:
            if max(abs(me.vx), abs(me.vy)) < 0.05:
                return int(self.rng.integers(1, 5))
            return steer(me, me.x + 99 * me.vx, me.y + 99 * me.vy)
        if self.kind == "wander":
            if self.hold == 0:
                self.direction = 0 if self.direction else int(self.rng.integers(1, 5))
                self.hold = int(self.rng.integers(2, 7))
            self.hold -= 1
            return self.direction
        if self.kind == "chase":
            if self.prey.stage != "in" or me.gap(self.prey) < 1:
                self.steps_left = 0
            return steer(me, self.prey.x, self.prey.y)
        if self.kind == "flee" and others:
            nearest = min(others, key=me.gap)
            if me.gap(nearest) < 12:
                return steer(me, me.x + 5 * (me.x - nearest.x), me.y + 5 * (me.y - nearest.y))
        return 0


def escape(me: Puck, chasers: Sequence[Puck], size: tuple[int, int]) -> int:
    """The first of the two pushes that, each held for a while, keep chasers farthest from `me` on a table of `size`."""
    plans = np.array([(first, then) for first in PUSHES for then in PUSHES], float)
    place, velocity = np.full((len(plans), 2), (me.x, me.y)), np.full((len(plans), 2), (me.vx, me.vy))
    places = np.array([[(puck.x, puck.y) for puck in chasers]])
    touch = np.array([puck.radius + me.radius for puck in chasers])
    nearest = np.full(len(plans), np.inf)
    for ahead in range(2 * PLAN):
        velocity = (1 - DRAG) * velocity + PUSH * plans[:, ahead // PLAN]
        place = np.clip(place + velocity, me.radius, np.array(size) - me.radius)
        way = place[:, None] - places
        distance = np.sqrt((way * way).sum(-1))
        places = places + way * (CHASE_SPEED / np.maximum(distance, CHASE_SPEED))[..., None]
        gap = (distance - touch).min(1)
        nearest = np.minimum(nearest, gap)
    return int((nearest + 0.5 * gap).argmax()) // len(PUSHES)
