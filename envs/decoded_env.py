"""A real task behind the spaces of FLAM-v0."""

from __future__ import annotations

from collections import deque
from typing import Any

import gymnasium as gym
import numpy as np
import torch

from ..models.heads import Adapter
from ..models.world import World
from .flam_vector_env import Observation, check_actions, make_spaces, observe


class DecodedEnv(gym.Wrapper):
    """`task` with FLAM-v0's own observation and action space, for `control="agent"`.

    Frames become factors online; latent actions become real actions through the adapter. A policy trained
    in imagination runs on it unchanged.

    Args:
        task: uint8 `(H, W, 3)` observations and `Discrete` actions.
        world: what turns frames into factors.
        adapter: an `ActionAdapter`; by default the one that the world's own labels gave.
        observation: as FLAM-v0's.

    Raises:
        ValueError: the task's spaces do not fit the world's, or there are no labels.
    """

    def __init__(
        self, task: gym.Env, world: World, adapter: Any = None, observation: Observation = "factors"
    ) -> None:
        super().__init__(task)
        if adapter is None:
            if world.labels is None:
                raise ValueError(
                    "this world has no labels; give an adapter: ActionAdapter.fit(world, labelled)"
                )
            self.agent_factor, self.adapter = world.labels.agent_factor, world.labels.adapter
        else:
            self.agent_factor, self.adapter = adapter.agent_factor, adapter.net
        net: Adapter = self.adapter
        expected = (*world.tokenizer.frame_size, 3)
        if task.observation_space.shape != expected or task.observation_space.dtype != np.uint8:
            raise ValueError(
                f"the task's observations are {task.observation_space}; allowed are uint8 frames {expected}"
            )
        if not isinstance(task.action_space, gym.spaces.Discrete) or task.action_space.n != net.actions:
            raise ValueError(
                f"the task's actions are {task.action_space}; the adapter knows Discrete({net.actions})"
            )
        self.world, self.observation_kind = world, observation
        self.observation_space, self.action_space = make_spaces(world, [self.agent_factor], observation)
        self._codes: deque[torch.Tensor] = deque(maxlen=world.window)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        frame, info = self.env.reset(seed=seed, options=options)
        self._codes.clear()
        return self._observe(frame), info

    @torch.inference_mode()
    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        latent = torch.as_tensor(
            check_actions(action, (self.world.latent_action_dim,)), device=self.factors_BKS.device
        )
        snapped = self.world.snap(self.factors_BKS, self.agent_factor, latent[None])
        real = int(self.adapter.real(self.factors_BKS[:, self.agent_factor], snapped))
        frame, reward, terminated, truncated, info = self.env.step(real)
        return self._observe(frame), float(reward), terminated, truncated, info

    @torch.inference_mode()
    def _observe(self, frame: np.ndarray) -> np.ndarray:
        self._codes.append(self.world.encode(torch.as_tensor(frame[None], device=self.world.device)))
        self.factors_BKS = self.world.factorize(torch.stack(tuple(self._codes), 1))[:, -1]
        return observe(self.world, self.factors_BKS, self.observation_kind)[0]
