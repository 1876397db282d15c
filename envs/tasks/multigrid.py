"""`flam_rl/MultiGrid-v0`: reach the goal of a room in which other agents move at the same time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import gymnasium as gym
import numpy as np

from ...types import Tiles, Truth
from .behaviors import BEHAVIORS, STAY, Behavior, BehaviorName, shortest_path_action
from .controlled import each, joint, joint_space
from .registry import Task

TASKS = (
    Task(
        id="flam_rl/MultiGrid-v0",
        entry_point="flam_rl.envs.tasks.multigrid:MultiGridTask",
        install="flam_rl[multigrid]",
        behaviors=BEHAVIORS,
        expert=True,
        actions=("turn left", "turn right", "forward", "stay"),
        keys={"ArrowLeft": 0, "ArrowRight": 1, "ArrowUp": 2, "ArrowDown": 3},
        variants={"two": {"agents": 2}, "four": {"agents": 4}, "eight": {"agents": 8}},
    ),
)
FRAME_SIZE = 64
COLORS = ("red", "blue", "purple", "yellow", "grey", "cyan", "orange", "white", "green")
"""Agents' colours in order; green, the goal's own, comes last, so that up to 8 agents stay visible on it."""
MOST_CONTROLLED = 4
"""Agents that find room at the goal, in its corner, and in the cells around it."""
MORE_COLORS = {"cyan": (0, 255, 255), "orange": (255, 128, 0), "white": (255, 255, 255)}
"""Colours that are added to the six of MultiGrid."""


def _make_room(**settings: Any) -> Any:
    """MultiGrid's empty room where agents walk over the goal, but that agent 0 ends the episode there if it is `alone`.

    Raises:
        ImportError: the package multigrid is missing.
    """
    TASKS[0].sim("multigrid")
    from multigrid.core.actions import Action
    from multigrid.core.constants import Color
    from multigrid.envs.empty import EmptyEnv

    class Room(EmptyEnv):
        alone = True
        ACTIONS = (Action.left, Action.right, Action.forward, Action.done)
        """What the task's actions 0..3 are in MultiGrid's own enumeration."""

        def on_success(self, agent, rewards, terminations) -> None:
            if self.alone and agent.index == 0:
                super().on_success(agent, rewards, terminations)

    for name, rgb in MORE_COLORS.items():
        if name not in Color.__members__:
            Color.add_color(name, np.array(rgb))
    room = Room(**settings)
    for agent in room.agents:
        agent.state.color = COLORS[agent.index % len(COLORS)]
    return room


class MultiGridTask(gym.Env):
    """Walk to the green goal of a MultiGrid room, among other agents that move at the same time.

    ## Description
    The third-party `multigrid` package's empty room with a fixed goal in the corner. The caller moves
    agent 0 (red), or with `controlled` several agents from 0 on. The other agents act in the same step,
    each by a behaviour drawn at reset. Agents start in random cells with random headings and block each other.

    Several controlled agents are a team that is to meet at the goal: one of them on it, each of the others in one of the
    cells around it, diagonal ones too. All of that shows in one frame, who came first does not count.

    ## Action space
    `Discrete(4)`, or of several controlled agents `MultiDiscrete([4] * controlled)`, a number for each.

    | action | meaning |
    | --- | --- |
    | 0 | turn left |
    | 1 | turn right |
    | 2 | walk forward (nothing happens if a wall or an agent is there) |
    | 3 | stay |

    ## Observation space
    `Box(0, 255, (64, 64, 3), uint8)`: the whole room from above.

    ## Reward
    `1 - 0.9 * step / max_steps` on the step that reaches the goal, else 0; of a team once for all.

    ## Episode end
    Terminates when agent 0 stands on the goal, or the team has met there; truncates after `max_steps`.

    ## Info
    `info["success"]`: bool. For evaluation only: `info["truth"]`, a `flam_rl.types.Truth` with a row for each agent, all of
    them always present: identity, presence, box and centre (of its cell), velocity (pixels that it went in the step)
    and action (what it did to come here, -1 at reset). `info["entities"]`: `action` as well; `position` int
    `(agents, 2)`, cells `(x, y)`; `direction` int `(agents,)`, 0 east, 1 south, 2 west, 3 north.

    ## Arguments
    agents: how many, 1 or more, the caller's included.
    controlled: how many of them are the caller's, 1 to 4 and no more than there are.
    size: cells along a side, walls included: 8, 16 or 32 (the frame's 64 pixels must divide evenly).
    max_steps: steps before truncation.
    behaviors: what the other agents' behaviours are drawn from, out of `random`, `goal`, `patrol`.

    Raises:
        ValueError: an argument outside of what is listed above.
        ImportError: multigrid is missing.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}

    def __init__(
        self,
        agents: int = 4,
        size: int = 8,
        max_steps: int = 64,
        behaviors: Sequence[BehaviorName] = BEHAVIORS,
        controlled: int = 1,
        render_mode: str | None = "rgb_array",
    ) -> None:
        if size not in (8, 16, 32):
            raise ValueError(f"size is {size!r}; allowed are 8, 16 and 32")
        cells = (size - 2) ** 2 - 1
        if not 1 <= agents <= cells:
            raise ValueError(f"agents is {agents!r}; allowed is 1 to {cells} in a room of size {size}")
        if not 1 <= controlled <= min(agents, MOST_CONTROLLED):
            raise ValueError(
                f"controlled is {controlled!r}; allowed is 1 to {min(agents, MOST_CONTROLLED)} of {agents} agents"
            )
        if max_steps < 1:
            raise ValueError(f"max_steps is {max_steps!r}; allowed is 1 or more")
        if not behaviors or not set(behaviors) <= set(BEHAVIORS):
            raise ValueError(f"behaviors is {behaviors!r}; allowed are some of {BEHAVIORS}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; allowed are None and 'rgb_array'")
        self.render_mode = render_mode
        self.behaviors, self.controlled, self.max_steps = tuple(behaviors), controlled, max_steps
        self.observation_space = gym.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self._room = _make_room(
            size=size,
            agents=agents,
            agent_start_pos=None,
            agent_start_dir=None,
            max_steps=max_steps,
            allow_agent_overlap=False,
            highlight=False,
            tile_size=FRAME_SIZE // size,
        )
        self._room.alone = controlled == 1
        self.action_space = joint_space(len(TASKS[0].actions), controlled)
        inside = np.arange(1, size - 1)
        self._free = np.stack(np.meshgrid(inside, inside, indexing="ij"), -1).reshape(-1, 2)
        self._walls = np.ones((size, size), bool)
        self._walls[1:-1, 1:-1] = False
        self.goal = np.array([size - 2, size - 2])

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As gymnasium's `Env.reset`."""
        from multigrid.utils.random import RandomMixin

        super().reset(seed=seed)
        # multigrid draws placements from a generator that its own reset(seed=) does not touch.
        self._room.np_random = self.np_random
        RandomMixin.__init__(self._room, self.np_random)
        self._room.reset()
        self._others = [
            Behavior(
                self.behaviors[self.np_random.integers(len(self.behaviors))],
                self.goal,
                self._free,
                self.np_random,
            )
            for _ in self._room.agents[self.controlled :]
        ]
        here = np.array(self._room.agent_states.pos)
        return self.render(), self._info(np.full(len(self._room.agents), -1), here)

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As in gymnasium.

        Raises:
            ValueError: the action is not one of the task's.
        """
        actions = each(self.action_space, action) + [
            self._act(other, index) for index, other in enumerate(self._others, self.controlled)
        ]
        before = np.array(self._room.agent_states.pos)
        _, _, _, truncated, _ = self._room.step(
            {index: self._room.ACTIONS[chosen] for index, chosen in enumerate(actions)}
        )
        info = self._info(np.array(actions), before)
        reached = info["success"]
        reward = 1 - 0.9 * (self._room.step_count / self.max_steps) if reached else 0.0
        return self.render(), reward, reached, bool(truncated[0]), info

    def expert_action(self) -> int | np.ndarray:
        """First actions of the shortest paths of the caller's agents, around the others as they stand: to the goal; of a team the
        nearest one there, the others to the cells around it."""
        places = self._room.agent_states.pos[: self.controlled]
        free = [self.goal - (dx, dy) for dx in (0, 1) for dy in (0, 1)]  # in the corner, the goal's own first
        actions = [STAY] * self.controlled
        for rank, index in enumerate(np.abs(places - self.goal).sum(1).argsort(kind="stable").tolist()):
            away = [int(np.abs(places[index] - cell).sum()) for cell in free]
            target = free.pop(away.index(min(away)) if rank else 0)
            actions[index] = self._towards(index, target)
        return joint(actions)

    def make_behavior(self, name: BehaviorName, rng: np.random.Generator) -> Callable[[], int | np.ndarray]:
        """The caller's agents acting as the others do, each for itself, for recording video: call it for their next action. `goal` of a
        team is the expert, but for a tenth of random actions of each agent."""
        if name == "goal" and self.controlled > 1:
            return lambda: self._seek_goal(rng)
        own = [Behavior(name, self.goal, self._free, rng) for _ in range(self.controlled)]
        return lambda: joint([self._act(behavior, index) for index, behavior in enumerate(own)])

    def _seek_goal(self, rng: np.random.Generator) -> np.ndarray:
        stray = rng.random(self.controlled) < Behavior.NOISE
        return np.where(
            stray, rng.integers(len(TASKS[0].actions), size=self.controlled), self.expert_action()
        )

    def render(self) -> np.ndarray:
        """The room as uint8 `(64, 64, 3)`; agents are drawn where they stand, also at the end."""
        agents = self._room.agents
        ended = self._room.agent_states.terminated.copy()
        self._room.agent_states.terminated = False  # multigrid hides agents whose episode is over
        frame = self._room.grid.render(self._room.tile_size, agents)
        self._room.agent_states.terminated = ended
        return frame

    def tiles(self) -> Tiles:
        """Every tile that the renderer can draw, for reading imagined frames."""
        from multigrid.core.grid import Grid
        from multigrid.core.world_object import Goal, Wall

        drawn: list[tuple[np.ndarray, int, int]] = []
        size = self._room.tile_size
        for thing in (None, Wall(), Goal()):
            drawn.append((Grid.render_tile(thing, tile_size=size), -1, -1))
        for agent in _make_room(size=8, agents=len(self._room.agents), tile_size=size).agents:
            for heading in range(4):
                agent.state.dir = heading
                for thing in (None, Goal()):
                    tile = Grid.render_tile(thing, agent=agent, tile_size=size)
                    drawn.append((tile, agent.index, heading))
        images, owner, headings = zip(*drawn, strict=True)
        return Tiles(np.stack(images).astype(np.uint8), np.array(owner), np.array(headings))

    def _act(self, behavior: Behavior, index: int) -> int:
        state = self._room.agents[index].state
        return behavior.act(state.pos, int(state.dir), self._blocked(index))

    def _towards(self, index: int, target: np.ndarray) -> int:
        state = self._room.agents[index].state
        for blocked in (self._blocked(index), self._walls):
            action = shortest_path_action(state.pos, int(state.dir), target, blocked)
            if action != STAY:
                break
        return action

    def _blocked(self, index: int) -> np.ndarray:
        blocked = self._walls.copy()
        positions = np.delete(self._room.agent_states.pos, index, axis=0)
        blocked[positions[:, 0], positions[:, 1]] = True
        return blocked

    def _info(self, actions: np.ndarray, before: np.ndarray) -> dict[str, Any]:
        """What is so now that `actions` led here from the cells `before`."""
        states, side = self._room.agent_states, self._room.tile_size
        position = np.array(states.pos)
        away = np.abs(position[: self.controlled] - self.goal).max(1)
        truth = Truth(
            identity=np.arange(len(position)),
            presence=np.ones(len(position), bool),
            box=np.concatenate([side * position, side * (position + 1)], 1).astype(np.float32),
            centre=(side * (position + 0.5)).astype(np.float32),
            velocity=(side * (position - before)).astype(np.float32),
            action=actions,
        )
        return {
            "success": bool((away == 0).any() and (away <= 1).all()),
            "truth": truth,
            "entities": {"action": actions, "position": position, "direction": np.array(states.dir)},
        }
