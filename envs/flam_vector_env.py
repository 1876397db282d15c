"""The batched core of FLAM-v0: B imagined worlds in one tensor step."""

from __future__ import annotations

import logging
import os
import weakref
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..core.checkpoint import load_world
from ..core.stepping import Imagined, Stepper
from ..core.threads import lone_threads
from ..core.weights import check_finite, check_shapes, shapes_of
from ..core.world import World
from ..types import Scene
from .action_types import ActionType, make_actions
from .seeds import Seed, Seeds, check_reset_mask, check_seeds, first_seed, generator_of, start_of
from .spaces import (
    Control,
    Observation,
    check_count,
    controlled_factors,
    index,
    observation_space,
    observe,
)
from .spec import Specified

logger = logging.getLogger(__name__)

Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
MANY = 256
"""Worlds from which on a compiled step soon makes up for the seconds that compiling takes."""


class FLAMVectorEnv(Specified, VectorEnv):  # type: ignore[misc]
    """`gym.make_vec("FLAM-v0", num_envs=...)`; the page of the spaces and the reward is `FLAMEnv`'s.

    Args:
        num_envs: imagined worlds, B.
        world: name of a shipped world, a folder, a zip, `hf://user/name`, or a `World`.
        control, observation, horizon, masks, device, actions: as `FLAMEnv`.
        autoreset_mode: when an ended world starts anew: on the next step, in the same step, or by the
            caller with `reset(options={"reset_mask": ...})`.
        copy: as gymnasium's vector envs: whether each step returns observations of its own. Without, two
            buffers take turns, and an observation holds until the step after the next.
        precision: of products in a step that are large enough to gain from it; factors stay float32.
        compile: whether to compile the step, which takes seconds when the env is made: about ten for the first
            of its kind on a machine, two from then on. By default with 256 worlds or more on a CPU,
            if there is a C++ compiler that works.
        sure: whether rewards and ends are only those that no head of the ensembles doubts. A policy that trains for long finds
            where heads are wrong, and rarely are all of them in the same place.

    Raises:
        ValueError: as `FLAMEnv`; `compile` on a CPU without a C++ compiler.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 8,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        world: str | os.PathLike[str] | World = "multigrid",
        control: Control | None = None,
        observation: Observation = "factors",
        horizon: int | None = None,
        masks: bool = False,
        device: str | None = None,
        render_mode: str | None = "rgb_array",
        autoreset_mode: AutoresetMode | str = AutoresetMode.NEXT_STEP,
        copy: bool = True,
        precision: Precision = "float32",
        compile: bool | None = None,
        actions: ActionType = "latent",
        sure: bool = False,
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; allowed are {', '.join(map(repr, PRECISIONS))}")
        num_envs = check_count("num_envs", num_envs)
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; allowed are None and 'rgb_array'")
        self.world = world if isinstance(world, World) else load_world(world, device or "cpu")
        if device is not None and self.world.device.type != torch.device(device).type:
            raise ValueError(
                f"device is {device!r}, but the world given is on {self.world.device}; move it first"
            )
        self.device = self.world.device
        self.controlled = controlled_factors(self.world, control)
        self.observation, self.masks, self.render_mode = observation, masks, render_mode
        self.horizon = self.world.info.horizon if horizon is None else check_count("horizon", horizon)
        self.num_envs, self.sure = num_envs, sure
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = self.metadata | {"autoreset_mode": self.autoreset_mode}
        self.actions = make_actions(actions, self.world, self.controlled)
        self.single_observation_space = observation_space(self.world, observation)
        self.single_action_space = self.actions.space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generator = torch.Generator(self.device)
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.ones(num_envs, bool)
        self._state: Imagined | None = None
        with torch.inference_mode():
            starts = lone_threads().run(self.world.starts)
            self._imagination = self._stepper(getattr(torch, precision), compile, starts.factors)
            weakref.finalize(
                self, self._imagination.close
            )  # which may be part of a cycle, once it is compiled
            self._starts = lone_threads().run(lambda: self._imagination.begin(starts.factors))
            self._contexts = starts.context
            self._context_BX = starts.context.new_zeros(num_envs, starts.context.shape[1])
            self._codes = lone_threads().split(self.world.context_code, starts.context)
            self._code_BC = self._codes.new_zeros(num_envs, self._codes.shape[1])
        self._copy = copy
        self._buffers: list[np.ndarray | None] = [None, None]

    def state_dict(self) -> dict[str, torch.Tensor]:
        """All that its next steps depend on beside their actions.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        return {
            **self.state._asdict(),
            "context_BX": self._context_BX,
            "code_BC": self._code_BC,
            "elapsed_B": torch.from_numpy(self._elapsed),
            "ended_B": torch.from_numpy(self._ended),
            "generator": self._generator.get_state(),
        }

    @torch.inference_mode()
    def load_state_dict(self, state: dict[str, torch.Tensor]) -> None:
        """Go on from where an env made with the same arguments was, without a reset.

        Raises:
            ValueError: `state` is of an env of other arguments.
        """
        self._restart(np.ones(self.num_envs, bool))
        check_shapes(shapes_of(self.state_dict()), shapes_of(state))
        for name, own in self.state_dict().items():
            check_finite(name, state[name])
            if name != "generator":
                own.copy_(state[name])
        self._generator.set_state(state["generator"])

    def _stepper(self, dtype: torch.dtype, compile: bool | None, starts: torch.Tensor) -> Stepper:
        """What steps the worlds, compiled already where it is to be: later nothing decides."""
        if compile is not None:
            stepper = self.world.imagination(self.controlled, dtype, compile, events=True, sure=self.sure)
            if compile:
                some = torch.arange(self.num_envs, device=self.device) % len(starts)
                wanted = starts.new_zeros(self.num_envs, len(self.controlled), self.world.latent_action_dim)
                stepper.step(stepper.begin(starts[some]), wanted, torch.Generator(self.device))
            return stepper
        if self.num_envs >= MANY and self.device.type == "cpu" and self.world.model.worth_compiling:
            try:
                return self._stepper(dtype, True, starts)
            except Exception as error:  # whatever may be missing: a compiler, headers, room on the disk
                logger.warning("the step is not compiled and half as fast: %s", str(error).split("\n")[0])
        return self._stepper(dtype, False, starts)

    def close_extras(self, **kwargs: Any) -> None:
        """Give the stepper's threads back."""
        self._imagination.close()

    @property
    def state(self) -> Imagined:
        """Where the imagined worlds are.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() first")
        return self._state

    @property
    def started(self) -> bool:
        """Whether it was ever reset."""
        return self._state is not None

    @property
    def scene(self) -> Scene:
        """The factors of the imagined worlds, and the context in which each of them is."""
        return Scene(self.state.factors_BKS, self._context_BX)

    @property
    def factors_BKS(self) -> torch.Tensor:
        """The factors of the imagined worlds: float `(B, K, S)`."""
        return self.state.factors_BKS

    @torch.inference_mode()
    def reset(
        self, *, seed: Seed = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start from held-out video; `options={"reset_mask": bool (B,)}` restarts only some worlds.

        Each world's seed decides where it starts, in a batch of any size as in `FLAMEnv`. One generator draws for
        the whole batch what follows: it is the same again when all worlds are restarted with the same seeds.

        Args:
            seed: an int n, which stands for n, n + 1, ..., or a list of one seed a world, None for a world whose
                start is to be drawn.

        Raises:
            ValueError: `seed` is neither, or `reset_mask` is no bool `(B,)` with a True in it.
        """
        first = not self.started
        if first and seed is None:
            seed = first_seed(self)
        seeds = check_seeds(seed, self.num_envs)
        mask = check_reset_mask((options or {}).get("reset_mask"), self.num_envs) | first
        complete = None not in seeds
        if complete:
            self._np_random, self._np_random_seed = generator_of(seeds), seeds  # type: ignore[assignment]
        if seed is not None and not np.iterable(seed):
            super().reset(seed=index(seed))
        if first or (complete and mask.all()):
            source = generator_of(seeds) if complete else self.np_random
            self._generator.manual_seed(int(source.integers(2**63)))
        self._restart(mask, seeds)
        return self._observe(), self._infos()

    @torch.inference_mode()
    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all worlds by actions of the controlled factors; the others act by the prior.

        Args:
            actions: `(B, ...)` of the action space: latent actions float `(B, controlled * A)` by default.

        Returns:
            observations `(B, ...)`, rewards float64 `(B,)`, terminated and truncated bool `(B,)`, and infos.

        Raises:
            ValueError: actions have another shape, or hold what is none of the action space.
            gymnasium.error.ResetNeeded: the envs were never reset; or a world has ended, and nothing restarts it by itself.
        """
        state = self.state
        actions = self.actions.check(actions, (self.num_envs,))
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            raise gym.error.ResetNeeded(
                f"worlds {np.flatnonzero(self._ended).tolist()} have ended; reset them"
            )
        restart = self._ended.copy()
        wanted = lone_threads().run(lambda: self.actions.wanted(actions, state.factors_BKS))
        self._state, taken = self._imagination.step(state, wanted, self._generator)
        self.log_prior_BC = taken.log_prior_BC
        self._elapsed += 1
        rewards = taken.reward_B.cpu().numpy().astype(np.float64)
        terminated = taken.ended_B.cpu().numpy()
        truncated = (self._elapsed >= self.horizon) & ~terminated
        infos: dict[str, Any] = {}
        if restart.any():  # next-step mode: this step only starts the ended worlds anew
            self._restart(restart)
            rewards[restart], terminated[restart], truncated[restart] = 0.0, False, False
        self._ended = terminated | truncated
        observations = self._observe()
        if self.autoreset_mode == AutoresetMode.SAME_STEP and self._ended.any():
            ended = self._ended.copy()
            final = np.full(self.num_envs, None, object)  # as gymnasium's: wrappers may change their shape
            for world in np.flatnonzero(ended):
                final[world] = observations[world].copy()
            infos = {
                "final_obs": final,
                "_final_obs": ended,
                "final_info": self._infos(),
                "_final_info": ended,
            }
            self._restart(ended)
            fresh = torch.from_numpy(np.flatnonzero(ended)).to(self.device)
            observations[ended] = observe(
                self.world, self.scene.select(fresh), self.observation, self._code_BC[fresh]
            )
        return observations, rewards, terminated, truncated, infos | self._infos()

    def _restart(self, mask: np.ndarray, seeds: Seeds | None = None) -> None:
        """Only the worlds in `mask` get a start, those without a seed one that is drawn, of those that were
        factorized once."""
        worlds = np.flatnonzero(mask)
        ended = torch.from_numpy(worlds).to(self.device)
        count = self._starts.factors_KBS.shape[1]
        drawn = torch.randint(count, (len(ended),), generator=self._generator, device=self.device)
        for row, seed in enumerate(seeds[world] for world in worlds) if seeds else ():
            if seed is not None:
                drawn[row] = start_of(seed, count)
        if self._state is None:
            self._state = Imagined(*(part.index_select(1, drawn) for part in self._starts))
        else:
            for part, start in zip(self._state, self._starts, strict=True):
                part.index_copy_(1, ended, start.index_select(1, drawn))
        self._context_BX[ended] = self._contexts[drawn]
        self._code_BC[ended] = self._codes[drawn]
        self._elapsed[mask] = 0
        self._ended[mask] = False

    def _observe(self) -> np.ndarray:
        if self._copy:
            return observe(self.world, self.scene, self.observation, self._code_BC)
        self._buffers.reverse()
        out = observe(self.world, self.scene, self.observation, self._code_BC, self._buffers[0])
        self._buffers[0] = out
        return out

    @torch.inference_mode()
    def action_masks(self) -> np.ndarray | None:
        """Which actions the prior finds plausible now: bool `(B, controlled * M)` where actions are codes, else None."""
        return lone_threads().run(lambda: self.actions.mask(self.factors_BKS))

    def _infos(self) -> dict[str, Any]:
        infos: dict[str, Any] = {}
        if self.masks:
            masks = lone_threads().split(lambda *share: self.world.shares(Scene(*share)), *self.scene)
            infos["masks"] = masks.cpu().numpy()
        if (plausible := self.action_masks()) is not None:
            infos["action_mask"] = plausible
        return infos

    @torch.inference_mode()
    def render(self) -> tuple[np.ndarray, ...]:
        """The decoded frames, uint8 `(H, W, 3)` each."""
        return tuple(observe(self.world, self.scene, "pixels"))
