"""The batched core of FLAM-v0: B imagined worlds in one tensor step."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Sequence
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from ..checkpoint import load_world
from ..models.flam import FLAM
from ..models.imagination import Imagination, Imagined, SceneImagination
from ..models.threads import lone_threads
from ..models.world import World

logger = logging.getLogger(__name__)

Control = Literal["agent", "all"] | Sequence[int]
Observation = Literal["factors", "pixels", "features"]
OBSERVATIONS: tuple[Observation, ...] = ("factors", "pixels", "features")
Precision = Literal["float32", "bfloat16"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bfloat16")
MANY = 256
"""Worlds from which on a compiled step soon makes up for the seconds that compiling takes."""
ACTION_BOUND = 3.0
"""Latent actions are kept near a standard normal: three standard deviations."""


def controlled_factors(world: World, control: Control | None) -> list[int]:
    """Indices of the latent actions that are the caller's: of factors, where each factor has one. None is
    `agent` where labels told which that is.

    Raises:
        ValueError: `control` is none of `agent`, `all` or a list of different factor indices, or is
            `agent` in a world without labels.
    """
    allowed = f"allowed are 'agent', 'all' and lists of different indices 0 to {world.latent_actions - 1}"
    if control is None:
        if world.labels is None:
            logger.warning("this world has no labels: control is 'all', reward is 0 and nothing terminates")
            return list(range(world.latent_actions))
        control = "agent"
    if isinstance(control, str):
        if control == "all":
            return list(range(world.latent_actions))
        if control != "agent":
            raise ValueError(f"control is {control!r}; {allowed}")
        if world.labels is None:
            raise ValueError(
                f"control is 'agent', but this world has no labels that tell which one it is; {allowed}"
            )
        return [world.moved_by(world.labels.agent_factor)]
    chosen = [int(index) for index in control]
    if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(range(world.latent_actions)):
        raise ValueError(f"control is {control!r}; {allowed}")
    return chosen


def make_spaces(
    world: World, controlled: list[int], observation: Observation
) -> tuple[gym.spaces.Box, gym.spaces.Box]:
    """Observation and action space of one world.

    Raises:
        ValueError: `observation` is not one of `OBSERVATIONS`.
    """
    if observation not in OBSERVATIONS:
        raise ValueError(f"observation is {observation!r}; allowed are {', '.join(map(repr, OBSERVATIONS))}")
    action_space = gym.spaces.Box(
        -ACTION_BOUND, ACTION_BOUND, (len(controlled) * world.latent_action_dim,), np.float32
    )
    if observation == "pixels":
        return gym.spaces.Box(0, 255, (*world.tokenizer.frame_size, 3), np.uint8), action_space
    if observation == "factors":
        bound = world.factor_dim**0.5  # of unit RMS, so no entry can be larger
        return gym.spaces.Box(-bound, bound, (world.factors * world.factor_dim,), np.float32), action_space
    rows, columns = world.tokenizer.grid
    shape = (rows * columns, world.tokenizer.config.code_dim)
    return gym.spaces.Box(-np.inf, np.inf, shape, np.float32), action_space


def observe(
    world: World, factors_BKS: torch.Tensor, observation: Observation, out: np.ndarray | None = None
) -> np.ndarray:
    """Factors `(B, K, S)` as a batch of observations, written to `out` where one is given.

    Nothing is decoded that is not asked for.
    """
    if observation == "factors":
        seen = factors_BKS.cpu().numpy()
        out = np.empty((len(seen), world.factors * world.factor_dim), np.float32) if out is None else out
        bound = world.factor_dim**0.5  # of unit RMS, so only rounding is beyond it
        np.clip(seen, -bound, bound, out=out.reshape(seen.shape))
        return out

    def decode(share_BKS: torch.Tensor) -> torch.Tensor:
        if observation == "pixels":
            return world.draw(share_BKS)
        return world.tokenizer.codebook[world.aggregate(share_BKS).log_probs_BNV.argmax(-1)]

    seen = lone_threads().split(decode, factors_BKS).cpu().numpy()
    if out is None:
        return seen
    np.copyto(out, seen)
    return out


def check_actions(actions: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Latent actions as float32, clipped to the bounds.

    Raises:
        ValueError: another shape, or an entry that is not a finite number.
    """
    actions = np.asarray(actions, np.float32)
    if actions.shape != shape:
        raise ValueError(f"latent actions have shape {actions.shape}; allowed is {shape}")
    if not np.isfinite(actions).all():
        raise ValueError(
            f"latent actions must be finite numbers in -3..3; given {actions[~np.isfinite(actions)][:3]}"
        )
    return actions.clip(-ACTION_BOUND, ACTION_BOUND)


class FLAMVectorEnv(VectorEnv):
    """`gym.make_vec("FLAM-v0", num_envs=...)`; the page of the spaces and the reward is `FLAMEnv`'s.

    Args:
        num_envs: imagined worlds, B.
        world: name of a shipped world, a folder, or a `World`.
        control, observation, horizon, masks, device: as `FLAMEnv`.
        autoreset_mode: when an ended world starts anew: on the next step, in the same step, or by the
            caller with `reset(options={"reset_mask": ...})`.
        copy: as gymnasium's vector envs: whether each step returns observations of its own. Without, two
            buffers take turns, and an observation holds until the step after the next.
        precision: of products in a step that are large enough to gain from it; factors stay float32.
        compile: whether to compile the step, which takes seconds when the env is made: about ten for the first
            of its kind on a machine, two from then on. By default with 256 worlds or more on a CPU,
            if there is a C++ compiler that works.

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
    ) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"precision is {precision!r}; allowed are {', '.join(map(repr, PRECISIONS))}")
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}; allowed is 1 or more")
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
        self.horizon = self.world.info.horizon if horizon is None else horizon
        if self.horizon < 1:
            raise ValueError(f"horizon is {horizon}; allowed is 1 or more")
        self.num_envs = num_envs
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        self.metadata = self.metadata | {"autoreset_mode": self.autoreset_mode}
        self.single_observation_space, self.single_action_space = make_spaces(
            self.world, self.controlled, observation
        )
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._generator = torch.Generator(self.device)
        self._generator.seed()
        self._elapsed = np.zeros(num_envs, np.int64)
        self._ended = np.ones(num_envs, bool)
        self._state: Imagined | None = None
        with torch.inference_mode():
            starts = lone_threads().run(self.world.starts)
            self._imagination = self._stepper(getattr(torch, precision), compile, starts)
            weakref.finalize(
                self, self._imagination.close
            )  # which may be part of a cycle, once it is compiled
            self._starts = lone_threads().run(lambda: self._imagination.begin(starts))
        self._copy = copy
        self._buffers: list[np.ndarray | None] = [None, None]

    def _stepper(
        self, dtype: torch.dtype, compile: bool | None, starts: torch.Tensor
    ) -> Imagination | SceneImagination:
        """What steps the worlds, compiled already where it is to be: later nothing decides."""
        if compile is not None:
            stepper = self.world.imagination(self.controlled, dtype, compile, events=True)
            if compile:
                some = torch.arange(self.num_envs, device=self.device) % len(starts)
                wanted = starts.new_zeros(self.num_envs, len(self.controlled), self.world.latent_action_dim)
                stepper.step(stepper.begin(starts[some]), wanted, torch.Generator(self.device))
            return stepper
        if self.num_envs >= MANY and self.device.type == "cpu" and isinstance(self.world.model, FLAM):
            try:
                return self._stepper(dtype, True, starts)
            except Exception as error:  # whatever may be missing: a compiler, headers, room on the disk
                logger.warning("the step is not compiled and half as fast: %s", str(error).split("\n")[0])
        return self._stepper(dtype, False, starts)

    def close_extras(self, **kwargs: Any) -> None:
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
    def factors_BKS(self) -> torch.Tensor:
        """The factors of the imagined worlds."""
        return self.state.factors_BKS

    @torch.inference_mode()
    def reset(
        self, *, seed: int | list[int] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Start from held-out video; `options={"reset_mask": bool (B,)}` restarts only some worlds.

        A list of seeds is folded into one, since one generator draws for the whole batch.
        """
        if seed is not None:
            folded = np.random.SeedSequence(seed).generate_state(1, np.uint64)[0]
            self._generator.manual_seed(int(folded >> 1))
            self._np_random = np.random.default_rng(seed)
        mask = (options or {}).get("reset_mask")
        self._restart(
            np.ones(self.num_envs, bool) if mask is None or self._state is None else np.asarray(mask, bool)
        )
        return self._observe(), self._infos()

    @torch.inference_mode()
    def step(
        self, actions: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Latent actions float `(B, controlled * A)` of the controlled factors; the others act by the prior."""
        state = self.state
        actions = check_actions(actions, (self.num_envs, len(self.controlled) * self.world.latent_action_dim))
        if self.autoreset_mode == AutoresetMode.DISABLED and self._ended.any():
            raise gym.error.ResetNeeded(
                f"worlds {np.flatnonzero(self._ended).tolist()} have ended; reset them"
            )
        restart = self._ended.copy()
        wanted = torch.from_numpy(actions).to(self.device).view(self.num_envs, len(self.controlled), -1)
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
            infos = {
                "_final_obs": ended,
                "final_info": self._infos(),
                "_final_info": ended,
            }
            self._restart(ended)
            final, fresh = observations.copy(), torch.from_numpy(np.flatnonzero(ended)).to(self.device)
            observations[ended] = observe(self.world, self.factors_BKS[fresh], self.observation)
            infos["final_obs"] = final
        return observations, rewards, terminated, truncated, infos | self._infos()

    def _restart(self, mask: np.ndarray) -> None:
        """Only the worlds in `mask` get a start, drawn from those that were factorized once."""
        ended = torch.from_numpy(np.flatnonzero(mask)).to(self.device)
        count = self._starts.factors_KBS.shape[1]
        drawn = torch.randint(count, (len(ended),), generator=self._generator, device=self.device)
        if self._state is None:
            self._state = Imagined(*(part.index_select(1, drawn) for part in self._starts))
        else:
            for part, start in zip(self._state, self._starts, strict=True):
                part.index_copy_(1, ended, start.index_select(1, drawn))
        self._elapsed[mask] = 0
        self._ended[mask] = False

    def _observe(self) -> np.ndarray:
        if self._copy:
            return observe(self.world, self.factors_BKS, self.observation)
        self._buffers.reverse()
        out = observe(self.world, self.factors_BKS, self.observation, self._buffers[0])
        self._buffers[0] = out
        return out

    def _infos(self) -> dict[str, Any]:
        if not self.masks:
            return {}
        masks = lone_threads().split(lambda share: self.world.aggregate(share).masks_BKN, self.factors_BKS)
        return {"masks": masks.unflatten(-1, self.world.tokenizer.grid).cpu().numpy()}

    @torch.inference_mode()
    def render(self) -> tuple[np.ndarray, ...]:
        """The decoded frames, uint8 `(H, W, 3)` each."""
        return tuple(observe(self.world, self.factors_BKS, "pixels"))
