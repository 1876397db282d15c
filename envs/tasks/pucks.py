"""`flam_rl/Pucks-v0`: discs that move continuously, push and bounce, with exact truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from .behaviors import BEHAVIORS, BehaviorName
from .drawing import Texture, coverage, draw_discs
from .pucks_motions import CHASE_SPEED, PUSHES, Motion, escape, steer
from .pucks_table import Puck, Table
from .registry import Task

TASKS = (
    Task(
        id="flam_rl/Pucks-v0",
        entry_point="flam_rl.envs.tasks.pucks:PucksTask",
        install="flam_rl[pucks]",
        behaviors=BEHAVIORS,
        expert=True,
        actions=("none", "left", "right", "up", "down"),
        keys={"ArrowLeft": 1, "ArrowRight": 2, "ArrowUp": 3, "ArrowDown": 4},
        variants={
            "four looks": {"pucks": 4},
            "eight alike": {"pucks": 8, "looks": 1, "background": "new_texture"},
            "come and go": {"pucks": 8, "background": "new_texture", "visits": True},
            "moving camera": {"pucks": 6, "background": "new_texture", "camera": "moving", "visits": True},
        },
    ),
)
LOOKS = np.array(
    [(230, 50, 50), (60, 120, 250), (250, 210, 40), (50, 200, 80)]
    + [(190, 70, 220), (40, 210, 220), (250, 140, 30), (240, 240, 240)],
    np.float32,
)
"""Colours in the order in which pucks get them."""
PLAIN, WHITE = np.array([[45, 48, 54], [235, 235, 235]], np.float32)
RING = 6.0
"""Outer radius of the goal, pixels."""
CHOICES: dict[str, tuple[str | None, ...]] = {
    "action": ("discrete", "box"),
    "goal": ("reach", "flee"),
    "background": ("plain", "texture", "new_texture"),
    "camera": ("still", "moving"),
    "render_mode": (None, "rgb_array"),
}


class PucksTask(gym.Env):
    """Steer one of several discs that push and bounce, to a goal or away from chasers.

    ## Description
    Pucks slide over a table seen from above and bounce off each other and off the walls (pymunk's physics). The caller
    pushes puck 0. Each of the others chooses one of the same five pushes in every step, by a behaviour that changes now and
    then: drifting, wandering, chasing another, fleeing, resting. A step without contact makes velocity
    `0.88 * velocity + 0.3 * push`, pixels a step.

    `goal="reach"`: bring puck 0's centre into the white ring, whose place is the same in each episode. `goal="flee"`: stay
    clear of the chasers, rows 1 to `pucks // 4` (one at least) of the truth, which follow puck 0 at a quarter of its top speed.
    Looks go by row until visitors come, so that puck 0 has the first and the chasers the next, if there are enough.

    ## Action space
    `action="discrete"`: `Discrete(5)`, pushes 0 none, 1 left, 2 right, 3 up, 4 down.
    `action="box"`: `Box(-1, 1, (2,), float32)`, the push's x (to the right) and y (down).

    ## Observation space
    `Box(0, 255, (H, W, 3), uint8)`: the table from above, antialiased at sub-pixel places.

    ## Rewards
    reach: 1 on the step that reaches the goal, else 0. flee: -1 on the step in which a chaser touches puck 0, else 0; like
    the goal it is an event that ends the episode, so that few labels tell what it is.

    ## Starting state
    Pucks at random places apart from each other, with up to 1 pixel a step along x and y; puck 0 at least a third of the frame's
    shorter side from the goal or the chasers. `seed` determines this and all that follows, bit by bit on x86-64. Where pymunk
    is compiled with fused multiply-add (arm64) last bits differ, and after many bounces pixels.

    ## Episode end
    Terminates when the goal is reached or puck 0 is caught; truncates after `max_steps`.

    ## Info
    `info["success"]`: bool; the goal is reached, or `max_steps` passed without being caught.
    `info["truth"]`, for evaluation only: `flam_rl.types.Truth` with `pucks` rows and without masks, which `masks()` draws of the
    present frame when asked. A puck is present when what is in the frame of it is a pixel or more wide and high. `action`
    is the push that it chose, of puck 0 under `box` the nearest of the five; `contact` is with a wall or a puck.

    ## Arguments
    pucks: the most that there are at once, 2 to 12, the caller's included.
    action, goal: as above.
    looks: 1 to 8 colours, which pucks get in turn; 1 makes all alike.
    sizes: smallest and largest radius in pixels, 2 or more.
    background: `plain`, `texture` (always the same) or `new_texture` (another in each episode).
    camera: `still`, or `moving`: a view that moves smoothly by fractions of a pixel over a table 11/8 times as wide
        and high; what is on the table may be out of view, puck 0 too.
    visits: others than puck 0 and the chasers leave over the border, and new ones (identity, size, look) come in.
    frame_size: height and width in pixels, 32 or more; a larger frame shows a larger table, not larger pucks.
    max_steps: steps before truncation.

    Raises:
        ValueError: an argument outside of what is listed above, or pucks that fill more than 0.4 of the table.
        ImportError: pymunk is missing.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        pucks: int = 4,
        action: Literal["discrete", "box"] = "discrete",
        goal: Literal["reach", "flee"] = "reach",
        looks: int = 4,
        sizes: Sequence[float] = (3.5, 5.5),
        background: Literal["plain", "texture", "new_texture"] = "texture",
        camera: Literal["still", "moving"] = "still",
        visits: bool = False,
        frame_size: Sequence[int] = (64, 64),
        max_steps: int = 100,
        render_mode: str | None = "rgb_array",
    ) -> None:
        chosen = (action, goal, background, camera, render_mode)
        for (name, allowed), value in zip(CHOICES.items(), chosen, strict=True):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {allowed}")
        for name, number, least, most in (("pucks", pucks, 2, 12), ("looks", looks, 1, len(LOOKS))):
            if not least <= number <= most:
                raise ValueError(f"{name} is {number!r}; allowed is {least} to {most}")
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps!r}; allowed is 1 or more")
        if len(sizes) != 2 or not 2 <= sizes[0] <= sizes[1]:
            raise ValueError(f"sizes is {sizes!r}; allowed are two radii, 2 <= smallest <= largest")
        if len(frame_size) != 2 or min(frame_size) < 32:
            raise ValueError(f"frame_size is {frame_size!r}; allowed are a height and a width of 32 or more")
        TASKS[0].sim("pymunk")
        self.height, self.width = frame_size
        eighths = 11 if camera == "moving" else 8
        self._size = self.width * eighths // 8, self.height * eighths // 8
        filled = pucks * np.pi * (sizes[1] + 1) ** 2 / (self._size[0] * self._size[1])
        if filled > 0.4:
            raise ValueError(
                f"{pucks} pucks of radius {sizes[1]} fill {filled:.2f} of the table; allowed is 0.4: "
                "take fewer or smaller ones, or a larger frame_size"
            )
        self.goal, self.looks, self.background, self.visits = goal, looks, background, visits
        self.sizes = float(sizes[0]), float(sizes[1])
        self.max_steps, self.render_mode = max_steps, render_mode
        self.rows, self.chasers = pucks, max(1, pucks // 4) if goal == "flee" else 0
        self.observation_space = gym.spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        self.discrete = action == "discrete"
        self.action_space: gym.Space = (
            gym.spaces.Discrete(len(PUSHES)) if self.discrete else gym.spaces.Box(-1, 1, (2,), np.float32)
        )
        frame = np.array([self.width, self.height])
        self._range = np.array(self._size) - frame  # of the camera
        self.ring = self._range + 0.75 * (frame - self._range)  # in view wherever the camera is
        self._texture = Texture(np.random.default_rng(0), *reversed(self._size))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As gymnasium's `Env.reset`."""
        super().reset(seed=seed)
        if self.background == "new_texture":
            self._texture = Texture(self.np_random, *reversed(self._size))
        self._phase = self.np_random.uniform(0, 2 * np.pi, (2, 2))
        self._pace = self.np_random.uniform(0.05, 0.1, (2, 2))  # radians a step
        self._steps = 0
        self._camera = self._aim()
        while not self._place():
            pass
        self._still = None if self._range.any() else self._ground()
        return self.render(), {
            "success": False,
            "truth": self.table.truth(self._camera, self.height, self.width, {}),
        }

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As in gymnasium.

        Raises:
            ValueError: the action is not one of the task's.
        """
        force, push = self._read(action)
        me, *others = self.table.present
        pushes = {0: push} | {puck.row: self._choose(puck) for puck in others}
        self.table.step({row: PUSHES[number] for row, number in pushes.items()} | {0: force})
        if self.visits:
            for row in range(1 + self.chasers, self.rows):
                self.table.visit(row)
        self._steps += 1
        self._camera = self._aim()
        truncated = self._steps >= self.max_steps
        if self.goal == "reach":
            success = terminated = bool(np.linalg.norm(self.ring - (me.x, me.y)) < RING)
            reward = float(terminated)
        else:
            terminated = any((0, chaser) in self.table.met for chaser in range(1, 1 + self.chasers))
            success, reward = truncated and not terminated, -float(terminated)
        info = {"success": success, "truth": self.table.truth(self._camera, self.height, self.width, pushes)}
        return self.render(), reward, terminated, truncated, info

    def expert_action(self) -> int | np.ndarray:
        """Towards the goal; or the first of the two pushes that, each held for a while, keep chasers farthest."""
        return self._as_action(self._expert())

    def make_behavior(self, name: BehaviorName, rng: np.random.Generator) -> Callable[[], int | np.ndarray]:
        """Puck 0's ways of acting when video is recorded; call it for the next action.

        Args:
            name: `random` acts as the other pucks do, `goal` as the expert, `patrol` goes to and fro between two random places; a
                tenth of the actions of the last two are random.

        Raises:
            ValueError: `name` is none of these.
        """
        if name not in BEHAVIORS:
            raise ValueError(f"behavior is {name!r}; allowed are {BEHAVIORS}")
        me, *_ = self.table.present
        motion = Motion(rng)
        places = rng.uniform(me.radius, np.array(self._size) - me.radius, (2, 2)).tolist()

        def act() -> int:
            if name == "random":
                return motion.push(me, self.table.present[1:])
            if rng.random() < 0.1:
                return int(rng.integers(len(PUSHES)))
            if name == "goal":
                return self._expert()
            if np.hypot(places[0][0] - me.x, places[0][1] - me.y) < 2 * me.radius:
                places.reverse()
            return steer(me, *places[0])

        return lambda: self._as_action(act())

    def render(self) -> np.ndarray:
        """The present frame, uint8 `(H, W, 3)`."""
        picture = self._ground() if self._still is None else self._still.copy()
        look = [puck.identity % self.looks for puck in self.table.present]
        draw_discs(picture, *self.table.discs(self._camera), LOOKS[look])
        return (picture + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0).copy()

    def masks(self) -> np.ndarray:
        """The share of each pixel of the present frame that shows each puck: float32 `(pucks, H, W)`, 0 to 1."""
        centre, radius = self.table.discs(self._camera)
        x, y = (np.tile(np.arange(side), (len(radius), 1)) for side in (self.width, self.height))
        free = np.ones((self.height, self.width), np.float32)
        masks = np.zeros((self.rows, self.height, self.width), np.float32)
        share = coverage(x, y, centre, radius)
        for puck, own in zip(self.table.present[::-1], share[::-1], strict=True):  # later rows are on top
            masks[puck.row] = own * free
            free *= 1 - own
        return masks

    def _place(self) -> bool:
        """Put pucks on an empty table; False where one found no room."""
        self.table = Table(*self._size, self.rows, self.sizes, self.np_random)
        apart = min(self.width, self.height) / 3
        for row in range(self.rows):
            if self.visits and row > self.chasers and self.np_random.random() < 0.4:
                self.table.away[row] = int(self.np_random.integers(40))
                continue
            radius = float(self.np_random.uniform(*self.sizes))
            ends = self.ring if row == 0 and self.goal == "reach" else None  # what would end the episode
            if 0 < row <= self.chasers:
                ends = np.array([self.table.present[0].x, self.table.present[0].y])
            for _ in range(200):
                x, y = self.np_random.uniform(radius, np.array(self._size) - radius).tolist()
                far = ends is None or np.linalg.norm(ends - (x, y)) > apart
                if far and self.table.room(x, y) > radius + 1:
                    break
            else:
                return False
            self.table.add(row, radius, x, y, *self.np_random.uniform(-1, 1, 2).tolist())
        return True

    def _choose(self, puck: Puck) -> int:
        if puck.row <= self.chasers:
            me = self.table.present[0]
            return steer(puck, me.x, me.y, CHASE_SPEED)
        return self.table.choose(puck)

    def _expert(self) -> int:
        me, *others = self.table.present
        if self.goal == "reach":
            return steer(me, *self.ring)
        return escape(me, others[: self.chasers], self._size)

    def _read(self, action: int | np.ndarray) -> tuple[tuple[float, float], int]:
        """The caller's force, and the push that it is nearest to."""
        if self.discrete:
            if not self.action_space.contains(action):
                raise ValueError(f"action is {action!r}; allowed are the integers 0 to {len(PUSHES) - 1}")
            return PUSHES[int(action)], int(action)
        force = np.asarray(action, np.float32)
        if not self.action_space.contains(force):
            raise ValueError(f"action is {action!r}; allowed are two numbers from -1 to 1")
        x, y = force.tolist()
        if max(abs(x), abs(y)) <= 0.5:
            return (x, y), 0
        return (x, y), (2 if x > 0 else 1) if abs(x) >= abs(y) else (4 if y > 0 else 3)

    def _as_action(self, push: int) -> int | np.ndarray:
        return push if self.discrete else np.array(PUSHES[push], np.float32)

    def _aim(self) -> np.ndarray:
        """Where on the table the frame's upper left corner is now: on each axis the mean of two slow sines."""
        return self._range * (0.5 + 0.5 * np.sin(self._phase + self._pace * self._steps).mean(0))

    def _ground(self) -> np.ndarray:
        """The table under the pucks, float32 `(3, H, W)`."""
        if self.background == "plain":
            picture = np.tile(PLAIN[:, None, None], (1, self.height, self.width))
        else:
            picture = self._texture.draw(self._camera, self.height, self.width)
        if self.goal == "reach":
            draw_discs(picture, (self.ring - self._camera)[None], np.array([RING]), WHITE[None], RING - 1.5)
        return picture
