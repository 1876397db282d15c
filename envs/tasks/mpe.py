"""`flam_rl/Tag-v0` and `flam_rl/Spread-v0`: simple_tag and simple_spread of mpe2, seen from above."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from ...types import Truth
from .controlled import each, joint, joint_space
from .drawing import disc_boxes, draw_discs
from .registry import Task

BEHAVIORS = ("wander", "goal")
_SHARED: dict[str, Any] = {
    "entry_point": "flam_rl.envs.tasks.mpe:MPETask",
    "install": "flam_rl[mpe]",
    "behaviors": BEHAVIORS,
    "expert": True,
    "actions": ("none", "left", "right", "down", "up"),
    "keys": {"ArrowLeft": 1, "ArrowRight": 2, "ArrowDown": 3, "ArrowUp": 4},
}
TASKS = (
    Task(
        id="flam_rl/Tag-v0",
        kwargs={"scenario": "tag"},
        variants={"three": {"others": 3}, "five": {"others": 5}},
        **_SHARED,
    ),
    Task(
        id="flam_rl/Spread-v0",
        kwargs={"scenario": "spread"},
        variants={"three": {"others": 2}, "five": {"others": 4}},
        **_SHARED,
    ),
)
SCENARIOS = ("tag", "spread")
OTHERS = {"tag": 3, "spread": 2}
VIEW = 1.15
"""What the frame shows of mpe2's world along its shorter side: from -VIEW to VIEW."""
GROUND = 235.0
PUSHES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)], float)
"""Direction of each action, y up as in mpe2's world."""
NOISE = 0.1
"""Share of actions of a `goal` behaviour, and of the others, that are random."""
COVERED = 0.1
"""Distance within which an agent covers a landmark, as mpe2 has it."""


class MPETask(gym.Env):
    """A scenario of mpe2 in which the caller controls one agent, or several, and the others are scripted.

    ## Description
    `tag`: the caller is the green agent, faster than the red ones that chase it among obstacles; with several controlled agents the
    caller has red ones, which chase it together, and it is scripted. `spread`: the caller's and the
    other agents, alike, are to cover all landmarks without running into each other. Physics, sizes, colours and rewards are
    mpe2's own; frames are drawn from where its entities are.

    Each of the others has a behaviour for 10 to 30 steps, then another: one in four wanders (a direction or none for 3 to 8
    steps, back where it would leave), else it goes to its goal: of the red ones the green agent, in `spread` the landmark
    that it was given for the episode, a different one for each. A tenth of all their actions are random.

    ## Action space
    `Discrete(5)`: 0 none, 1 left, 2 right, 3 down, 4 up; of several controlled agents `MultiDiscrete([5] * controlled)`.

    ## Observation space
    `Box(0, 255, (H, W, 3), uint8)`: landmarks below, agents above, antialiased at sub-pixel places.

    ## Rewards
    mpe2's own of the caller's agent, at each step; of several their mean. tag: -10 for each red agent that touches it, less a
    growing price of being out of the arena; of red agents 10 for each of them that touches the green one, whoever it is. spread:
    half of what all share, minus each landmark's distance to its nearest agent, and half of -1 for each agent that it touches.

    ## Episode end
    Truncates after `max_steps`.

    ## Info
    `info["success"]`: bool; tag: nobody has touched the caller's agent in this episode, or if red ones are the caller's the green one
    has been touched; spread: all landmarks are covered.
    `info["truth"]`, for evaluation only: `flam_rl.types.Truth` with a row for each agent, the caller's first. An agent is
    present when what is in the frame of it is a pixel or more wide and high; velocity is what it moved by in the step,
    `contact` with another agent or an obstacle.

    ## Arguments
    scenario: `tag` or `spread`, which the id says.
    others: agents beside the caller's, 1 to 8, in `spread` none too if several are the caller's; by default as many as there are in
    mpe2 beside those, but 1 at least in `tag`.
    controlled: agents of the caller, 1 to 8, with the others 9 at most.
    frame_size: height and width in pixels, 32 or more; a larger frame shows the same world larger.
    max_steps: steps of an episode.

    Raises:
        ValueError: an argument outside of what is listed above.
        ImportError: mpe2 is missing.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        scenario: Literal["tag", "spread"] = "tag",
        others: int | None = None,
        frame_size: Sequence[int] = (64, 64),
        max_steps: int = 50,
        controlled: int = 1,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if scenario not in SCENARIOS:
            raise ValueError(f"scenario is {scenario!r}; allowed are {SCENARIOS}")
        if not 1 <= controlled <= 8:
            raise ValueError(f"controlled is {controlled!r}; allowed is 1 to 8")
        least = 0 if scenario == "spread" and controlled > 1 else 1
        others = max(OTHERS[scenario] + 1 - controlled, least) if others is None else others
        if not least <= others <= 9 - controlled:
            raise ValueError(f"others is {others!r}; allowed is {least} to {9 - controlled}")
        if len(frame_size) != 2 or min(frame_size) < 32:
            raise ValueError(f"frame_size is {frame_size!r}; allowed are a height and a width of 32 or more")
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps!r}; allowed is 1 or more")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; allowed are None and 'rgb_array'")
        sim = TASKS[SCENARIOS.index(scenario)].sim(f"mpe2.simple_{scenario}_v3")
        every = others + controlled
        count = {"num_adversaries": every - 1} if scenario == "tag" else {"N": every}
        self._env = sim.parallel_env(max_cycles=max_steps, **count)
        self._world = self._env.unwrapped.world
        self.scenario, self.max_steps, self.render_mode = scenario, max_steps, render_mode
        self.controlled = controlled
        self.height, self.width = frame_size
        self.scale = min(frame_size) / (2 * VIEW)
        # mpe2 lists the red agents before the green one, as it is where they are the caller's.
        agents = self._world.agents
        runs = scenario == "tag" and controlled == 1
        self._agents = [agents[-1], *agents[:-1]] if runs else list(agents)
        self._green = agents[-1] if scenario == "tag" else None
        self._names = [agent.name for agent in self._agents]
        self._drawn = [*self._world.landmarks, *self._agents[::-1]]
        self.observation_space = gym.spaces.Box(0, 255, (self.height, self.width, 3), np.uint8)
        self.action_space = joint_space(len(PUSHES), controlled)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As gymnasium's `Env.reset`."""
        super().reset(seed=seed)
        self._env.reset(seed=int(self.np_random.integers(2**31)))
        self._clean = True
        self._goals = self.np_random.permutation(len(self._agents))
        """The landmark of each agent, in `spread`."""
        rows = len(self._agents)
        self._others = [self._behave(None, self.np_random, row) for row in range(self.controlled, rows)]
        return self.render(), self._info(np.full(rows, -1), self._places(self._agents)[0])

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As in gymnasium.

        Raises:
            ValueError: the action is not one of the task's.
        """
        own = each(self.action_space, action)
        before = self._places(self._agents)[0]
        actions = [*own, *(act() for act in self._others)]
        found = self._env.step(dict(zip(self._names, actions, strict=True)))
        _, rewards, terminations, truncations, _ = found
        me, mine = self._names[0], self._names[: self.controlled]
        reward = float(np.mean([rewards[name] for name in mine]))
        info = self._info(np.array(actions), before)
        return self.render(), reward, bool(terminations[me]), bool(truncations[me]), info

    def expert_action(self) -> int | np.ndarray:
        """tag: away from who is near, and from the border, or of red agents to the green one; spread: each to its own landmark."""
        return joint([self._seek(row) for row in range(self.controlled)])

    def make_behavior(self, name: str | None, rng: np.random.Generator) -> Callable[[], int | np.ndarray]:
        """The caller's agents acting by themselves: call it for their next action.

        Args:
            name: `wander`; `goal`, as the expert but for a tenth of random actions; None, one after the other.

        Raises:
            ValueError: `name` is none of these.
        """
        if name is not None and name not in BEHAVIORS:
            raise ValueError(f"behavior is {name!r}; allowed are {BEHAVIORS}")
        own = [self._behave(name, rng, row) for row in range(self.controlled)]
        return lambda: joint([act() for act in own])

    def _behave(self, name: str | None, rng: np.random.Generator, row: int) -> Callable[[], int]:
        """One agent acting by itself, as `make_behavior` has it."""
        kind, left = name, 0
        direction, hold = 0, 0

        def act() -> int:
            nonlocal kind, left, direction, hold
            if name is None and left == 0:
                kind, left = "wander" if rng.random() < 0.25 else "goal", int(rng.integers(10, 31))
            left -= 1
            if kind == "goal":
                return int(rng.integers(len(PUSHES))) if rng.random() < NOISE else self._seek(row)
            place = self._agents[row].state.p_pos
            if np.abs(place).max() > 0.9:
                return self._steer(row, 0.5 * place)
            if hold == 0:
                direction, hold = int(rng.integers(len(PUSHES))), int(rng.integers(3, 9))
            hold -= 1
            return direction

        return act

    def render(self) -> np.ndarray:
        """The present frame, uint8 `(H, W, 3)`."""
        picture = np.full((3, self.height, self.width), GROUND, np.float32)
        colour = np.array([255 * entity.color for entity in self._drawn], np.float32)
        draw_discs(picture, *self._places(self._drawn), colour)
        return (picture + np.float32(0.5)).astype(np.uint8).transpose(1, 2, 0).copy()

    def _seek(self, row: int) -> int:
        me = self._agents[row].state.p_pos
        if self.scenario == "spread":
            return self._steer(row, self._world.landmarks[int(self._goals[row])].state.p_pos)
        if self._green is not None and self._agents[row] is not self._green:
            return self._steer(row, self._green.state.p_pos, stop=False)
        way = -2 * me * np.maximum(np.abs(me) - 0.5, 0)  # from the border
        for other in self._drawn:
            if other is self._green:
                continue
            away = me - other.state.p_pos
            gap = max(float(np.linalg.norm(away)) - other.size, 0.05)
            way = way + (0.02 if other.movable else 0.004) * away / gap**3
        return self._steer(row, me + way)

    def _steer(self, row: int, target: np.ndarray, stop: bool = True) -> int:
        """The push that brings an agent nearest to `target`, and to rest there if it is to `stop`."""
        state = self._agents[row].state
        lack = target - state.p_pos - (0.4 if stop else 0.1) * state.p_vel
        x, y = lack.tolist()
        if max(abs(x), abs(y)) < 0.03:
            return 0
        return (2 if x > 0 else 1) if abs(x) >= abs(y) else (4 if y > 0 else 3)

    def _places(self, entities: Sequence[Any]) -> tuple[np.ndarray, np.ndarray]:
        """Centres `(n, 2)` and radii `(n,)` in pixels of the frame."""
        place = np.array([entity.state.p_pos for entity in entities])
        centre = np.array([self.width, self.height]) / 2 + self.scale * place * (1, -1)
        return centre, self.scale * np.array([entity.size for entity in entities])

    def _info(self, actions: np.ndarray, before: np.ndarray) -> dict[str, Any]:
        """What is so now that `actions` led here, with agents' centres `before` in pixels."""
        centre, radius = self._places(self._agents)
        bodies = [entity for entity in self._drawn if entity.collide]
        others, size = self._places(bodies)
        gap = np.linalg.norm(centre[:, None] - others, axis=-1) - radius[:, None] - size
        gap[[[agent is body for body in bodies] for agent in self._agents]] = np.inf
        contact = (gap < 0).any(1)
        box, presence = disc_boxes(centre, radius, self.height, self.width)
        numbers = np.concatenate([box, centre, centre - before, radius[:, None]], 1).astype(np.float32)
        numbers[~presence] = np.nan
        if self.scenario == "tag":
            green = self._agents.index(self._green)
            near = np.linalg.norm(centre - centre[green], axis=1) < radius + radius[green]
            near[green] = False
            self._clean &= not near.any()
            success = self._clean if self.controlled == 1 else not self._clean
        else:
            marks = self._places(self._world.landmarks)[0]
            far = np.linalg.norm(marks[:, None] - centre, axis=-1).min(1) / self.scale
            success = bool((far < COVERED).all())
        return {
            "success": success,
            "truth": Truth(
                identity=np.where(presence, np.arange(len(centre)), -1),
                presence=presence,
                box=numbers[:, :4].copy(),
                centre=numbers[:, 4:6].copy(),
                radius=numbers[:, 8].copy(),
                velocity=numbers[:, 6:8].copy(),
                action=np.where(presence, actions, -1),
                contact=contact & presence,
            ),
        }
