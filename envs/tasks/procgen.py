"""`flam_rl/Bigfish-v0`, `flam_rl/Starpilot-v0`, `flam_rl/Leaper-v0` and the other games of Procgen (arXiv 1912.01588)."""

from __future__ import annotations

import ctypes
import importlib
from importlib.metadata import PackageNotFoundError, files
from typing import Any, Literal

import gymnasium as gym
import numpy as np

from .registry import Task

GAMES = ("bigfish", "bossfight", "caveflyer", "chaser", "climber", "coinrun", "dodgeball", "fruitbot") + (
    "heist",
    "jumper",
    "leaper",
    "maze",
    "miner",
    "ninja",
    "plunder",
    "starpilot",
)
TASKS = tuple(
    Task(
        id=f"flam_rl/{game.capitalize()}-v0",
        entry_point="flam_rl.envs.tasks.procgen:ProcgenTask",
        install="flam_rl[procgen]",
        kwargs={"game": game},
        actions=("left down", "left", "left up", "down", "none", "up", "right down", "right", "right up")
        + ("D", "A", "W", "S", "Q", "E"),
        keys={"ArrowLeft": 1, "ArrowDown": 3, "ArrowUp": 5, "ArrowRight": 7}
        | {"d": 9, "a": 10, "w": 11, "s": 12, "q": 13, "e": 14},
        variants={"training": {"levels": "training"}, "held out": {"levels": "held_out"}},
    )
    for game in GAMES
)
TRAINING_LEVELS = {"easy": 200, "hard": 500}
"""Number of training levels, counted from 0, as in Procgen's own protocol of generalisation."""
HELD_OUT_LEVELS = 100_000
"""Number of held-out levels, which follow the training levels."""
FRAME_SIZE = 64
QT = ("libQt5Core.so.5", "libQt5Gui.so.5")
"""Libraries of PyQt5-Qt5 that envpool's games draw with and do not find by themselves, in the order to load them."""


class ProcgenTask(gym.Env):
    """A game of Procgen, whose levels are generated from seeds; played by the package envpool.

    ## Action space
    `Discrete(15)`: 0 to 8 are the directions left down, left, left up, down, none, up, right down, right, right up; 9 to 14
    the keys D, A, W, S, Q, E, which do something in some games.

    ## Observation space
    `Box(0, 255, (64, 64, 3), uint8)`

    ## Rewards, episode end
    The game's own: positive for what is to be gained (Bigfish: a fish eaten; Starpilot: one shot; Leaper: the far side).
    Terminates when the game is lost, or its level is complete; truncates after the game's own number of steps.

    ## Starting state
    A level drawn by `seed`, which determines all of the episode. One env plays one level an episode.

    ## Info
    `info["success"]`: bool, whether the level is complete. `info["level"]`: int, its seed.

    There is no truth of the entities, so measures that need it are left out: envpool gives no state of a game. The package
    procgen-mirror does (0.10.7, `get_state`), but it and gym3, which it stands on, need numpy below 2, and flam_rl needs 2 or newer:
    pip cannot install them together.

    ## Arguments
    game: one of the 16, which the id says.
    levels: `training`, level seeds 0 to 199 (`hard`: 0 to 499), or `held_out`, the 100,000 that follow.
    difficulty: `easy` or `hard`.

    Raises:
        ValueError: an argument outside of what is listed above.
        ImportError: envpool or PyQt5-Qt5 is missing.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 15}

    def __init__(
        self,
        game: str = "bigfish",
        levels: Literal["training", "held_out"] = "training",
        difficulty: Literal["easy", "hard"] = "easy",
        render_mode: str | None = "rgb_array",
    ) -> None:
        for name, value, allowed in (
            ("game", game, GAMES),
            ("levels", levels, ("training", "held_out")),
            ("difficulty", difficulty, tuple(TRAINING_LEVELS)),
            ("render_mode", render_mode, (None, "rgb_array")),
        ):
            if value not in allowed:
                raise ValueError(f"{name} is {value!r}; allowed are {allowed}")
        self._task = TASKS[GAMES.index(game)]
        self._envpool = self._load()
        count = TRAINING_LEVELS[difficulty]
        start, number = (0, count) if levels == "training" else (count, HELD_OUT_LEVELS)
        self._id = f"{game.capitalize()}{difficulty.capitalize()}-v0"
        self._levels = {"start_level": start, "num_levels": number}
        self.render_mode = render_mode
        self.observation_space = gym.spaces.Box(0, 255, (FRAME_SIZE, FRAME_SIZE, 3), np.uint8)
        self.action_space = gym.spaces.Discrete(len(self._task.actions))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As gymnasium's `Env.reset`."""
        super().reset(seed=seed)
        # A pool is seeded only when it is made, which takes less than a millisecond.
        self._pool = self._envpool.make_gymnasium(
            self._id, num_envs=1, seed=int(self.np_random.integers(2**31)), **self._levels
        )
        frames, infos = self._pool.reset()
        return self._see(frames), self._info(infos)

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As in gymnasium.

        Raises:
            ValueError: the action is not one of the task's.
        """
        if not self.action_space.contains(action):
            raise ValueError(f"action is {action!r}; allowed are the integers 0 to 14")
        frames, rewards, terminated, truncated, infos = self._pool.step(np.array([action], np.int32))
        info = self._info(infos)
        return self._see(frames), float(rewards[0]), bool(terminated[0]), bool(truncated[0]), info

    def render(self) -> np.ndarray:
        """The present frame, uint8 `(64, 64, 3)`."""
        return self._frame.copy()

    def _see(self, frames: np.ndarray) -> np.ndarray:
        self._frame = np.ascontiguousarray(frames[0].transpose(1, 2, 0))
        return self._frame.copy()

    def _info(self, infos: dict[str, Any]) -> dict[str, Any]:
        return {"success": bool(infos["prev_level_complete"][0]), "level": int(infos["level_seed"][0])}

    def _load(self) -> Any:
        """The package envpool, its games ready.

        Raises:
            ImportError: it or PyQt5-Qt5 is missing.
        """
        try:
            found = {path.name: path for path in files("PyQt5-Qt5") or ()}
        except PackageNotFoundError as error:
            raise ImportError(
                f"{self._task.id} needs the package PyQt5-Qt5: pip install '{self._task.install}'"
            ) from error
        for name in QT:
            ctypes.CDLL(str(found[name].locate()), mode=ctypes.RTLD_GLOBAL)
        envpool, games = self._task.sim("envpool"), self._task.sim("envpool.procgen")
        try:
            _ = games.ProcgenEnvSpec
        except ImportError:  # envpool was imported by others, before Qt was loaded
            importlib.reload(games)
        return envpool
