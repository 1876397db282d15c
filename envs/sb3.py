"""The batched core as a Stable-Baselines3 VecEnv."""

from __future__ import annotations

import inspect
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode
from stable_baselines3.common.vec_env import VecEnv, VecMonitor
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from .flam_vector_env import FLAMVectorEnv


class SB3FLAMVecEnv(VecEnv):
    """A same-step `FLAMVectorEnv` as Stable-Baselines3 expects one.

    Its worlds are one batch: attributes and methods are those of all of them, not of one.
    """

    def __init__(self, core: FLAMVectorEnv) -> None:
        self.core = core
        self.render_mode = core.render_mode
        super().__init__(core.num_envs, core.single_observation_space, core.single_action_space)

    def reset(self) -> np.ndarray:
        """Observations of all worlds at their starts; the seeds that `seed` left are used up."""
        observations, infos = self.core.reset(seed=None if self._seeds[0] is None else self._seeds)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = self._split(infos)
        return observations

    def step_async(self, actions: np.ndarray) -> None:
        """Keep actions `(B, ...)` of the action space for `step_wait`."""
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

    def close(self) -> None:
        """Close the worlds."""
        self.core.close()

    def get_images(self) -> list[np.ndarray]:
        """The worlds' frames, uint8 `(H, W, 3)` each."""
        return list(self.core.render())

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        """The core's attribute, once for each world asked for."""
        return [getattr(self.core, attr_name)] * len(self._worlds(indices))

    def set_attr(self, attr_name: str, value: Any, indices: VecEnvIndices = None) -> None:
        """Set the core's attribute.

        Raises:
            ValueError: `indices` leave a world out.
        """
        self._check_all("set_attr", attr_name, indices)
        setattr(self.core, attr_name, value)

    def env_method(
        self, method_name: str, *args: Any, indices: VecEnvIndices = None, **kwargs: Any
    ) -> list[Any]:
        """Call the core's method once, for all worlds; what it returns once for each. `render` and `action_masks` can be
        asked of some: a frame or a mask for each of these.

        Raises:
            ValueError: `indices` leave a world out, and it is neither of these; `action_masks` where actions are no codes.
        """
        if method_name in ("render", "action_masks"):
            found = getattr(self.core, method_name)()
            if found is None:
                raise ValueError("action_masks is for action codes; make the env with actions='codes'")
            return [found[world] for world in self._worlds(indices)]
        self._check_all("env_method", method_name, indices)
        return [getattr(self.core, method_name)(*args, **kwargs)] * self.num_envs

    def env_is_wrapped(self, wrapper_class: type[gym.Wrapper], indices: VecEnvIndices = None) -> list[bool]:
        """False for each world: worlds of a batch cannot be wrapped."""
        return [False] * len(self._worlds(indices))

    def _check_all(self, verb: str, name: str, indices: VecEnvIndices) -> None:
        left_out = sorted(set(range(self.num_envs)) - set(self._worlds(indices)))
        if left_out:
            raise ValueError(
                f"{verb}({name!r}) is for all {self.num_envs} worlds, which are one batch, but indices leave out "
                f"{left_out[:5]}; give no indices, or make an env of its own for worlds that differ"
            )

    def _worlds(self, indices: VecEnvIndices) -> list[int]:
        """Which worlds are meant; negative indices count from the end.

        Raises:
            IndexError: there is no such world.
        """
        return np.arange(self.num_envs)[list(self._get_indices(indices))].tolist()


class EpisodeMonitor(VecMonitor):
    """A `VecMonitor` that can be pickled and copied, as what it wraps can."""

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key != "class_attributes"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, class_attributes=dict(inspect.getmembers(type(self))))


def make_sb3_vec_env(env_id: str = "FLAM-v0", num_envs: int = 64, **kwargs: Any) -> EpisodeMonitor:
    """`num_envs` imagined worlds, batched on the device, for any Stable-Baselines3 agent.

    A `VecMonitor` around a `SB3FLAMVecEnv`: agents log the return and the length of episodes.

    Args:
        env_id: `FLAM-v0`, the only id that this batched core stands for.
        kwargs: as `FLAMVectorEnv`'s arguments.

    Raises:
        ValueError: another id.
    """
    if env_id not in ("FLAM-v0", "flam_rl:FLAM-v0"):
        raise ValueError(f"env_id is {env_id!r}; allowed is 'FLAM-v0'")
    core = FLAMVectorEnv(num_envs, autoreset_mode=AutoresetMode.SAME_STEP, **kwargs)
    return EpisodeMonitor(SB3FLAMVecEnv(core))
