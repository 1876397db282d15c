"""What PPO goes on from in imagination: beside the policy the worlds that it is in, and how far it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import VecMonitor, VecNormalize, unwrap_vec_wrapper

from ..envs.flam_vector_env import FLAMVectorEnv


class Worlds:
    """The imagined worlds in the middle of their episodes, with what their wrappers count."""

    def __init__(self, model: PPO, core: FLAMVectorEnv) -> None:
        self.model, self.core = model, core
        assert model.env is not None
        self.monitor = unwrap_vec_wrapper(model.env, VecMonitor)
        self.normalize = unwrap_vec_wrapper(model.env, VecNormalize)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers."""
        assert self.monitor is not None
        state = {
            "core": self.core.state_dict(),
            "seen": torch.from_numpy(self.model._last_obs),
            "begins": torch.from_numpy(self.model._last_episode_starts),
            "returns": torch.from_numpy(self.monitor.episode_returns),
            "lengths": torch.from_numpy(self.monitor.episode_lengths),
        }
        if self.normalize is not None:
            spread = self.normalize.ret_rms
            state |= {
                "discounted": torch.from_numpy(self.normalize.returns),
                "spread": [float(spread.mean), float(spread.var), float(spread.count)],
            }
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: it is of other worlds.
        """
        assert self.monitor is not None
        self.core.load_state_dict(state["core"])
        self.model._last_obs = state["seen"].numpy()
        self.model._last_episode_starts = state["begins"].numpy()
        self.monitor.episode_returns = state["returns"].numpy()
        self.monitor.episode_lengths = state["lengths"].numpy()
        if self.normalize is not None:
            self.normalize.returns = state["discounted"].numpy()
            spread = self.normalize.ret_rms
            spread.mean, spread.var, spread.count = state["spread"]


class Progress:
    """How far PPO is, and numpy's generator, by which it shuffles."""

    def __init__(self, model: PPO) -> None:
        self.model = model

    def state_dict(self) -> dict[str, Any]:
        """Tensors and numbers."""
        random: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        return {
            "steps": self.model.num_timesteps,
            "updates": self.model._n_updates,
            "keys": torch.from_numpy(random["state"]["key"].astype(np.int64)),
            "position": random["state"]["pos"],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """
        Raises:
            ValueError: it is no state of numpy's generator.
        """
        random: Any = np.random.get_state(legacy=False)  # noqa: NPY002
        random["state"] = {"key": state["keys"].numpy().astype(np.uint32), "pos": state["position"]}
        np.random.set_state(random)  # noqa: NPY002
        self.model.num_timesteps = state["steps"]
        self.model._n_updates = state["updates"]
