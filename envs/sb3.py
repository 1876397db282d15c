"""The batched core as a Stable-Baselines3 VecEnv."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv

from .flam_vector_env import FLAMVectorEnv


class SB3FLAMVecEnv(VecEnv):
    """A same-step `FLAMVectorEnv` as Stable-Baselines3 expects one."""

    def __init__(self, core: FLAMVectorEnv) -> None:
        self.core = core
        self.render_mode = core.render_mode
        super().__init__(core.num_envs, core.single_observation_space, core.single_action_space)
        self._seed: int | None = None

    def reset(self) -> np.ndarray:
        observations, infos = self.core.reset(seed=self._seed)
        self._seed = None
        self.reset_infos = self._split(infos)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations, float32 rewards, ends and an info a world; ended worlds have started anew, and their
        infos hold `terminal_observation` and `TimeLimit.truncated`."""
        observations, rewards, terminated, truncated, infos = self.core.step(self._actions)
        final = infos.pop("final_obs", None)
        for key in ("_final_obs", "final_info", "_final_info"):
            infos.pop(key, None)
        split = self._split(infos)
        done = terminated | truncated
        for index in np.flatnonzero(done):  # Stable-Baselines3 wants a dictionary of each that ended
            split[index] |= {
                "terminal_observation": final[index],
                "TimeLimit.truncated": bool(truncated[index]),
            }
        return observations, rewards.astype(np.float32), done, split

    def _split(self, infos: dict[str, Any]) -> list[dict[str, Any]]:
        return [dict(zip(infos, row, strict=True)) for row in zip(*infos.values(), strict=True)] or [
            {} for _ in range(self.num_envs)
        ]

    def seed(self, seed: int | None = None) -> list[int | None]:
        """Seed the next reset; one generator draws for the whole batch."""
        self._seed = seed
        return [seed] * self.num_envs

    def close(self) -> None:
        self.core.close()

    def get_images(self) -> list[np.ndarray]:
        return list(self.core.render())

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [getattr(self.core, attr_name)] * len(self._get_indices_list(indices))

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        setattr(self.core, attr_name, value)

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        result = getattr(self.core, method_name)(*args, **kwargs)
        return [result] * len(self._get_indices_list(indices))

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: Any = None) -> list[bool]:
        return [False] * len(self._get_indices_list(indices))

    def _get_indices_list(self, indices: Any) -> list[int]:
        return list(self._get_indices(indices))


def make_sb3_vec_env(env_id: str = "FLAM-v0", num_envs: int = 64, **kwargs: Any) -> SB3FLAMVecEnv:
    """`num_envs` imagined worlds, batched on the device, for any Stable-Baselines3 agent.

    Args:
        env_id: `FLAM-v0`, the only id that this batched core stands for.
        kwargs: as `FLAMVectorEnv`'s arguments.

    Raises:
        ValueError: another id.
    """
    if env_id not in ("FLAM-v0", "flam_rl:FLAM-v0"):
        raise ValueError(f"env_id is {env_id!r}; allowed is 'FLAM-v0'")
    return SB3FLAMVecEnv(FLAMVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs))
