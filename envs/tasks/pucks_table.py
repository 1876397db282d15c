"""The table of `flam_rl/Pucks-v0`: the physics of discs that push and bounce (pymunk)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ...types import Truth
from .drawing import disc_boxes
from .pucks_motions import DRAG, PUSH, Motion, steer

if TYPE_CHECKING:
    import pymunk

SUBSTEPS = 4
"""Physics steps in a step: a puck moves about half a pixel at most in one, so that overlaps stay below a pixel."""
BOUNCE = 0.9
"""Elasticity of a puck; two that meet part with 0.81 (its square) of their speed of approach."""
_WALL = 1
"""Category of the walls; pucks that come or leave collide with all others."""


@dataclass(eq=False)
class Puck:
    """One entity. Places and radius in pixels on the table, velocities in pixels a step.

    Attributes:
        row: of the truth; after it left, another entity may take it.
        stage: `coming` and `leaving` pucks pass through walls.
        steps_left: of a visitor's stay.
    """

    row: int
    identity: int
    radius: float
    x: float
    y: float
    vx: float
    vy: float
    motion: Motion
    body: pymunk.Body
    shape: pymunk.Circle
    stage: Literal["in", "coming", "leaving", "gone"] = "in"
    steps_left: int = 0

    def gap(self, other: Puck) -> float:
        """Pixels between the two."""
        return math.hypot(self.x - other.x, self.y - other.y) - self.radius - other.radius


class Table:
    """Pucks within four walls. Its arithmetic is IEEE 754's additions, multiplications, divisions and square roots: the unit of
    time of pymunk's own is one substep, for its powers of it to be exact.

    Args:
        width, height: pixels. rows: the most pucks at once. sizes: smallest and largest radius.
        rng: where every random choice comes from.
    """

    def __init__(
        self, width: int, height: int, rows: int, sizes: tuple[float, float], rng: np.random.Generator
    ) -> None:
        import pymunk

        self.width, self.height, self.sizes, self.rng = width, height, sizes, rng
        self.pucks: list[Puck | None] = [None] * rows
        self.away = [0] * rows
        """Steps until a visitor comes to a row."""
        self.touched: set[int] = set()
        """Rows that touched something in the last step, and `met`, pairs that touched each other."""
        self.met: set[tuple[int, int]] = set()
        self._identities = 0
        self._among_walls = pymunk.ShapeFilter()
        self._through_walls = pymunk.ShapeFilter(mask=pymunk.ShapeFilter.ALL_MASKS() ^ _WALL)
        self._space, thick = pymunk.Space(), 20.0
        self._space.collision_bias = 0.25  # of an overlap is left after a substep
        self._space.on_collision(post_solve=self._note_contact)
        for start, end in (
            ((0, -thick), (width, -thick)),
            ((0, height + thick), (width, height + thick)),
            ((-thick, 0), (-thick, height)),
            ((width + thick, 0), (width + thick, height)),
        ):
            wall = pymunk.Segment(self._space.static_body, start, end, thick)
            wall.elasticity, wall.filter = 1.0, pymunk.ShapeFilter(categories=_WALL)
            self._space.add(wall)

    @property
    def present(self) -> list[Puck]:
        """The pucks that are on the table or at its border, by row."""
        return [puck for puck in self.pucks if puck is not None]

    def room(self, x: float, y: float) -> float:
        """Pixels from `(x, y)` to the nearest puck."""
        return min((math.hypot(p.x - x, p.y - y) - p.radius for p in self.present), default=math.inf)

    def add(self, row: int, radius: float, x: float, y: float, vx: float, vy: float) -> Puck:
        """A new entity in an empty row. Pushes move all alike, but heavy (large) ones give more when they bounce."""
        import pymunk

        body = pymunk.Body(radius * radius, math.inf)  # does not turn
        body.position = x, y
        body.velocity = vx / SUBSTEPS, vy / SUBSTEPS
        shape = pymunk.Circle(body, radius)
        shape.elasticity, shape.row = BOUNCE, row
        self._space.add(body, shape)
        puck = Puck(row, self._identities, radius, x, y, vx, vy, Motion(self.rng), body, shape)
        puck.steps_left = int(self.rng.integers(30, 90))
        self._identities += 1
        self.pucks[row] = puck
        return puck

    def choose(self, puck: Puck) -> int:
        """The push that a puck gives itself."""
        if puck.stage == "coming":
            return steer(puck, self.width / 2, self.height / 2, 1.5)
        if puck.stage == "leaving":
            ways = (puck.x, self.width - puck.x, puck.y, self.height - puck.y)
            return 1 + ways.index(min(ways))
        return puck.motion.push(puck, [p for p in self.present if p is not puck and p.stage == "in"])

    def step(self, forces: dict[int, tuple[float, float]]) -> None:
        """One step, in which the puck of each row is pushed by its force, in units of `PUSH`."""
        self.touched.clear()
        self.met.clear()
        present = self.present
        for puck in present:
            x, y = forces[puck.row]
            puck.body.velocity = (
                ((1 - DRAG) * puck.vx + PUSH * x) / SUBSTEPS,
                ((1 - DRAG) * puck.vy + PUSH * y) / SUBSTEPS,
            )
        for _ in range(SUBSTEPS):
            self._space.step(1.0)
        for puck in present:
            (puck.x, puck.y), (vx, vy) = puck.body.position, puck.body.velocity
            puck.vx, puck.vy = SUBSTEPS * vx, SUBSTEPS * vy

    def visit(self, row: int) -> None:
        """Let visitors of a row come in, stay, leave, and others follow them."""
        puck = self.pucks[row]
        if puck is None:
            self.away[row] -= 1
            if self.away[row] <= 0:
                self._enter(row)
            return
        depth = min(puck.x, self.width - puck.x, puck.y, self.height - puck.y)
        puck.steps_left -= 1
        if puck.stage == "coming" and depth >= puck.radius:
            puck.stage, puck.steps_left = "in", int(self.rng.integers(30, 90))
            puck.shape.filter = self._among_walls
        elif puck.stage == "in" and puck.steps_left <= 0:
            self._pass_walls(puck, "leaving")
        elif puck.stage == "leaving" and depth <= -puck.radius:
            self._space.remove(puck.body, puck.shape)
            puck.stage, self.pucks[row] = "gone", None
            self.away[row] = int(self.rng.integers(10, 40))

    def discs(self, camera: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Centres `(n, 2)` in a frame whose corner is at `camera`, and radii `(n,)`, of the pucks on the table."""
        discs = np.array([(puck.x, puck.y, puck.radius) for puck in self.present])
        return discs[:, :2] - camera, discs[:, 2]

    def truth(self, camera: np.ndarray, height: int, width: int, pushes: dict[int, int]) -> Truth:
        """The truth of a frame of this size whose corner is at `camera` `(2,)`; `pushes` of the rows led to it."""
        present = self.present
        rows = [puck.row for puck in present]
        centre, radius = self.discs(camera)
        box, seen = disc_boxes(centre, radius, height, width)
        velocity = np.array([(puck.vx, puck.vy) for puck in present])
        numbers = np.full((len(self.pucks), 9), np.nan, np.float32)
        numbers[rows] = np.concatenate([box, centre, velocity, radius[:, None]], 1)
        presence = np.zeros(len(self.pucks), bool)
        presence[rows] = seen
        numbers[~presence] = np.nan
        whole = np.full((len(self.pucks), 3), (-1, -1, 0))
        whole[rows] = [(p.identity, pushes.get(p.row, -1), p.row in self.touched) for p in present]
        whole[~presence] = -1, -1, 0
        return Truth(
            identity=whole[:, 0].copy(),
            presence=presence,
            box=numbers[:, :4].copy(),
            centre=numbers[:, 4:6].copy(),
            radius=numbers[:, 8].copy(),
            velocity=numbers[:, 6:8].copy(),
            action=whole[:, 1].copy(),
            contact=whole[:, 2].astype(bool),
            camera=camera.astype(np.float32),
        )

    def _enter(self, row: int) -> None:
        """Put a new puck just outside of a random side, if there is room."""
        radius = float(self.rng.uniform(*self.sizes))
        side, end = (int(number) for number in self.rng.integers(2, size=2))
        length, depth = (self.width, self.height) if side else (self.height, self.width)
        along = float(self.rng.uniform(2 * radius, length - 2 * radius))
        across, speed = (depth + radius, -1.5) if end else (-radius, 1.5)
        x, y, vx, vy = (along, across, 0.0, speed) if side else (across, along, speed, 0.0)
        if self.room(x, y) > radius + 1:
            self._pass_walls(self.add(row, radius, x, y, vx, vy), "coming")

    def _pass_walls(self, puck: Puck, stage: Literal["coming", "leaving"]) -> None:
        puck.stage = stage
        puck.shape.filter = self._through_walls

    def _note_contact(self, arbiter: pymunk.Arbiter, space: pymunk.Space, data: Any) -> None:
        rows = sorted(shape.row for shape in arbiter.shapes if hasattr(shape, "row"))
        self.touched.update(rows)
        if len(rows) == 2:
            self.met.add((rows[0], rows[1]))
