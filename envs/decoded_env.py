"""Real tasks behind the spaces of FLAM-v0: one, or many whose frames are factorized in one batch."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.vector.utils import batch_space

from ..actions import ActionSpace
from ..core.agent import Agents, FollowedAgents, in_order
from ..core.threads import lone_threads
from ..core.world import World
from ..types import Scene
from .action_types import ActionType, RealActions, make_actions
from .spaces import Observation, observation_space, observe


class DecodedVectorEnv(VectorWrapper):
    """Many `DecodedEnv` at once: `tasks` with FLAM-v0's own observations and actions, for `control="agent"`.

    Each task has what a `DecodedEnv` of it has; encoder, factorizer and adapter see all of them in one batch.

    Args:
        tasks: as gymnasium makes them, each with uint8 `(H, W, 3)` observations and the actions that the adapter knows; ended
            ones start anew in the next step, or are reset by the caller with
            `reset(options={"reset_mask": ...})` (autoreset mode `Disabled`).
        world, adapter, observation, actions: as `DecodedEnv`'s.

    Raises:
        ValueError: the spaces of the tasks do not fit the world's, there are no labels, or ended tasks start anew
            in the same step.
    """

    def __init__(
        self,
        tasks: VectorEnv,
        world: World,
        adapter: Any = None,
        observation: Observation = "factors",
        actions: ActionType = "latent",
    ) -> None:
        super().__init__(tasks)
        mode = tasks.metadata.get("autoreset_mode", AutoresetMode.NEXT_STEP)
        if mode == AutoresetMode.SAME_STEP:
            raise ValueError("the tasks start anew in the same step; allowed are NextStep and Disabled")
        self._decoder = _Decoder(
            tasks.num_envs,
            tasks.single_observation_space,
            tasks.single_action_space,
            world,
            adapter,
            observation,
            actions,
        )
        self.world, self.agents = world, self._decoder.agents
        self.single_observation_space, self.single_action_space = self._decoder.spaces
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self._restarts_itself = mode == AutoresetMode.NEXT_STEP
        self._ended = np.zeros(self.num_envs, bool)

    @property
    def scene(self) -> Scene:
        """The scenes of what the tasks show.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        return self._decoder.scene

    def reset(
        self, *, seed: Any = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the tasks; observations are those of FLAM-v0."""
        mask = (options or {}).get("reset_mask")
        fresh = np.ones(self.num_envs, bool) if mask is None else np.array(mask, bool)
        frames, infos = self.env.reset(seed=seed, options=options and dict(options))
        self._ended[fresh] = False
        return self._decoder.see(frames, fresh, moved=fresh), infos

    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step the tasks by actions `(B, ...)` of the action space; the adapter decodes latent ones."""
        frames, rewards, terminated, truncated, infos = self.env.step(self._decoder.act(actions))
        fresh = self._ended if self._restarts_itself else np.zeros(self.num_envs, bool)
        self._ended = terminated | truncated
        return self._decoder.see(frames, fresh), rewards, terminated, truncated, infos

    def action_masks(self) -> np.ndarray | None:
        """As `FLAMVectorEnv.action_masks`, of what the tasks show."""
        return self._decoder.masks()


class DecodedEnv(gym.Wrapper):
    """`task` with FLAM-v0's own observation and action space, for `control="agent"`.

    Frames become factors online; latent actions become real actions through the adapter. A policy trained
    in imagination runs on it unchanged.

    Args:
        task: uint8 `(H, W, 3)` observations and the actions that the adapter knows.
        world: what turns frames into factors.
        adapter: an `ActionAdapter`; by default the one that the world's own labels gave.
        observation, actions: as FLAM-v0's.

    Raises:
        ValueError: the task's spaces do not fit the world's, or there are no labels.
    """

    def __init__(
        self,
        task: gym.Env,
        world: World,
        adapter: Any = None,
        observation: Observation = "factors",
        actions: ActionType = "latent",
    ) -> None:
        super().__init__(task)
        self._decoder = _Decoder(
            1, task.observation_space, task.action_space, world, adapter, observation, actions
        )
        self.world, self.agents = world, self._decoder.agents
        self.observation_space, self.action_space = self._decoder.spaces

    @property
    def scene(self) -> Scene:
        """The scene of what the task shows, one row.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        return self._decoder.scene

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Reset the task; the observation is that of FLAM-v0."""
        frame, info = self.env.reset(seed=seed, options=options)
        return self._decoder.see(frame[None], np.ones(1, bool))[0], info

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Step the task by an action of the action space; the adapter decodes latent ones."""
        real = self._decoder.act(self._decoder.check(action)[None])[0]
        frame, reward, terminated, truncated, info = self.env.step(real if real.ndim else real.item())
        return (
            self._decoder.see(frame[None], np.zeros(1, bool))[0],
            float(reward),
            terminated,
            truncated,
            info,
        )

    def action_masks(self) -> np.ndarray | None:
        """As `FLAMEnv.action_masks`, of what the task shows."""
        found = self._decoder.masks()
        return None if found is None else found[0]


class _Decoder:
    """Frames of B tasks to factors, with the frames before them, and latent actions to real ones."""

    def __init__(
        self,
        count: int,
        task_observations: gym.Space,
        task_actions: gym.Space,
        world: World,
        adapter: Any,
        observation: Observation,
        actions: ActionType,
    ) -> None:
        if adapter is None:
            if world.labels is None:
                raise ValueError(
                    "this world has no labels; give an adapter: ActionAdapter.fit(world, labelled)"
                )
            adapter = world.labels
        agents: Agents = adapter.agents
        expected = (*world.frame_size, 3)
        if task_observations.shape != expected or task_observations.dtype != np.uint8:
            raise ValueError(
                f"the task's observations are {task_observations}; allowed are uint8 frames {expected}"
            )
        if ActionSpace.from_gym(task_actions) != agents.actions:
            raise ValueError(f"the task's actions are {task_actions}; the adapter knows {agents.actions}")
        self.count, self.world, self.observation = count, world, observation
        self.agents, self._controlled = agents, world.moved_by_agents(agents)
        self._actions = make_actions(actions, world, self._controlled, agents)
        self.spaces = observation_space(world, observation), self._actions.space
        self._threads = lone_threads()
        self._watcher = world.model.watch(count)
        self._scene: Scene | None = None
        self._followed = FollowedAgents(agents) if agents.differ else None
        self._shown: torch.Tensor | None = (
            None  # factors as they were seen, before the agents' are put in their places
        )
        self._sent: torch.Tensor | None = None

    @property
    def scene(self) -> Scene:
        if self._scene is None:
            raise gym.error.ResetNeeded("call reset() first")
        return self._scene

    def see(self, frames: np.ndarray, fresh: np.ndarray, moved: np.ndarray | None = None) -> np.ndarray:
        """Observations of frames uint8 `(B, H, W, 3)`, of which only those in `moved` are new, by default all;
        nothing was before those in `fresh`."""

        @torch.inference_mode()
        def see() -> Scene:
            scene = self._watcher.see(frames, fresh, moved)
            return scene if self._followed is None else self._in_place(scene, self._followed, fresh, moved)

        self._scene = self._threads.run(see)
        return observe(self.world, self.scene, self.observation)

    def _in_place(
        self, scene: Scene, followed: FollowedAgents, fresh: np.ndarray, moved: np.ndarray | None
    ) -> Scene:
        """The scene with the agents' factors where imagination has them."""
        before, after = self._shown, scene.factors
        new = torch.from_numpy(fresh.copy()).to(after.device)
        if before is not None and self._sent is not None:
            latent = self.world.infer_actions(torch.stack([before, after], 1)).mean[:, 0]
            gone_on = ~new if moved is None else ~new & torch.from_numpy(moved.copy()).to(new.device)
            followed.acted(before, self.world.actions_per_factor(latent), self._sent, after, gone_on)
        followed.begin(after, new)
        self._shown = after
        order = in_order(followed.agents_BC, self.agents.factors, self.world.factors)
        return scene._replace(factors=after.take_along_dim(order.unsqueeze(-1), 1))

    @torch.inference_mode()
    def masks(self) -> np.ndarray | None:
        """Which actions are plausible now, bool `(B, controlled * M)`, where they are codes; else None."""
        factors = self.scene.factors
        return self._threads.run(lambda: self._actions.mask(factors))

    def check(self, action: Any) -> np.ndarray:
        """One action of the action space.

        Raises:
            ValueError: it is none.
        """
        return self._actions.check(action)

    def act(self, actions: np.ndarray) -> np.ndarray:
        """The tasks' own actions `(B, ...)` for those of the action space."""
        given = self._actions.check(actions, (self.count,))
        factors = self.scene.factors
        if isinstance(self._actions, RealActions):
            self._sent = torch.from_numpy(given).to(factors.device)
            return given

        @torch.inference_mode()
        def real() -> np.ndarray:
            wanted = self._actions.wanted(given, factors)
            moved_by = [self._controlled.index(self.world.moved_by(factor)) for factor in self.agents.factors]
            snapped = [
                self.world.snap(factors, factor, wanted[:, row])
                for factor, row in zip(self.agents.factors, moved_by, strict=True)
            ]
            self._sent = self.agents.real(factors, torch.stack(snapped, 1))
            return self._sent.cpu().numpy()

        return self._threads.run(real)
