"""A world as PettingZoo's parallel env: each controlled factor is an agent."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal

import gymnasium as gym
import numpy as np
import torch

try:
    from pettingzoo import ParallelEnv
except ImportError as error:
    raise ImportError("parallel_env needs PettingZoo: pip install 'flam_rl[pettingzoo]'") from error

from ..core.agent import in_order
from ..core.checkpoint import load_world
from ..core.heads import FrozenEvents
from ..core.stepping import Imagined, Stepper, judge
from ..core.threads import lone_threads
from ..core.world import World
from ..types import Scene
from .action_types import Actions, make_actions
from .seeds import check_seeds, generator_of, start_of
from .spaces import Control, check_count, controlled_factors, observation_space, observe

Rewards = Literal["shared", "own"]
REWARDS: tuple[Rewards, ...] = ("shared", "own")
ZooActions = Literal["latent", "codes"]
ZOO_ACTIONS: tuple[ZooActions, ...] = ("latent", "codes")


class FLAMParallelEnv(ParallelEnv):
    """Act as several factors of a world that was learned from action-free video, each an agent of PettingZoo's.

    ## Description
    The agents are the controlled factors, `factor_0` and so on. The other factors act by the prior, and so does that of an agent
    that is no longer there. An agent is there while its entity is: one whose entity comes later joins then, once; one whose entity
    has gone is terminated and does not come back before the next reset, even if another entity takes its factor. The
    episode is over when nobody is there.

    ## Action space
    Of each agent: `Box(-3, 3, (A,), float32)`, its latent action, or with `actions="codes"` `Discrete(M)`, one of the prior's action
    codes. They are snapped to plausible codes as in FLAM-v0; agents move in the order of `possible_agents`.

    ## Observation space
    Of each agent: `Box(-bound, bound, (K * S + C,), float32)`, FLAM-v0's observation `factors` with the agent's own factor first
    and the others after it in their order, then the code of the context. `state()` is FLAM-v0's observation itself.

    ## Reward
    `rewards="shared"`: what the world's reward head says of the state that is entered, the same for all. `"own"`: what it says
    when the agent's factor changes places with that of the task's (first) agent. 0 in a world without labels.

    ## Episode end
    Terminates by the termination head: with shared rewards for all agents at once, with own ones for each by itself, as its reward.
    Truncates at `horizon`.

    ## Info
    `"action_mask"` of an agent, bool `(M,)`, which action codes are plausible now if it moves first, with `actions="codes"`.

    ## Arguments
    world: name of a shipped world, a folder, a zip, `hf://user/name`, or a `World`.
    control: `"all"`, `"agent"` (those whom the task's own actions move), or a list of factor indices, the agents.
    rewards, actions: as above. horizon: steps, by default the world's own.

    Raises:
        ValueError: an unknown world, control, type of rewards or actions, horizon or render mode; or the world's model has
            one latent action for all factors.
    """

    metadata: dict[str, Any] = {
        "render_modes": ["rgb_array"],
        "render_fps": 8,
        "name": "FLAM-v0",
        "is_parallelizable": True,
    }

    def __init__(
        self,
        world: str | os.PathLike[str] | World = "multigrid",
        control: Control = "all",
        rewards: Rewards = "shared",
        horizon: int | None = None,
        actions: ZooActions = "latent",
        render_mode: str | None = "rgb_array",
    ) -> None:
        if rewards not in REWARDS:
            raise ValueError(f"rewards is {rewards!r}; allowed are {', '.join(map(repr, REWARDS))}")
        if actions not in ZOO_ACTIONS:
            raise ValueError(f"actions is {actions!r}; allowed are {', '.join(map(repr, ZOO_ACTIONS))}")
        if render_mode not in (None, "rgb_array"):
            raise ValueError(f"render_mode is {render_mode!r}; allowed are None and 'rgb_array'")
        self.world = world if isinstance(world, World) else load_world(world)
        if self.world.latent_actions != self.world.factors:
            raise ValueError(
                "this world has one latent action for all its factors; allowed are worlds with one for each"
            )
        controlled = controlled_factors(self.world, control)
        self.horizon = self.world.info.horizon if horizon is None else check_count("horizon", horizon)
        self.render_mode = render_mode
        self.possible_agents = [f"factor_{factor}" for factor in controlled]
        self.agents: list[str] = []
        self.state_space = observation_space(self.world, "factors")
        self._factor = dict(zip(self.possible_agents, controlled, strict=True))
        self._view = {agent: observation_space(self.world, "factors") for agent in self.possible_agents}
        self._actions: dict[str, Actions] = {
            agent: make_actions(actions, self.world, [factor]) for agent, factor in self._factor.items()
        }
        self._masked = actions == "codes"
        labels = self.world.labels
        self._events = FrozenEvents(labels) if labels else None
        self._judged_as = labels.agents.factors[0] if labels and rewards == "own" else None
        self._steppers: dict[tuple[int, ...], Stepper] = {}
        self._generator = torch.Generator(self.world.device)
        self._state: Imagined | None = None
        with torch.inference_mode():
            self._starts = lone_threads().run(self.world.starts)

    def observation_space(self, agent: str) -> gym.Space:
        """The space of the agent's view."""
        return self._view[agent]

    def action_space(self, agent: str) -> gym.Space:
        """The space of the agent's actions."""
        return self._actions[agent].space

    @property
    def scene(self) -> Scene:
        """The factors of the imagined world `(1, K, S)`, and its context.

        Raises:
            gymnasium.error.ResetNeeded: before the first reset.
        """
        if self._state is None:
            raise gym.error.ResetNeeded("call reset() first")
        return Scene(self._state.factors_BKS, self._context_BX)

    @torch.inference_mode()
    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, dict[str, Any]]]:
        """Start from held-out video, with a seed where FLAM-v0 with this seed starts; options are not used.

        Raises:
            ValueError: the seed is no whole number of 0 or more.
        """
        seeds = check_seeds([seed], 1)
        if seed is not None:
            self._generator.manual_seed(int(generator_of(seeds).integers(2**63)))
        elif self._state is None:
            self._generator.seed()
        count = len(self._starts.factors)
        drawn = torch.randint(count, (1,), generator=self._generator, device=self.world.device)
        if seed is not None:
            drawn[0] = start_of(seed, count)
        start = self._starts.select(drawn)
        self._state = lone_threads().run(lambda: self._stepper(self.possible_agents).begin(start.factors))
        self._context_BX = start.context
        self._code_BC = lone_threads().run(lambda: self.world.context_code(start.context))
        self._elapsed = 0
        self._gone: set[str] = set()
        self.agents = self._there()
        return self._views(self.agents), self._infos(self.agents)

    @torch.inference_mode()
    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[
        dict[str, np.ndarray],
        dict[str, float],
        dict[str, bool],
        dict[str, bool],
        dict[str, dict[str, Any]],
    ]:
        """One step of the world.

        Args:
            actions: one of its action space for each agent in `agents`.

        Returns:
            Observations, rewards, terminations, truncations and infos of those who acted and of those who have joined.

        Raises:
            ValueError: an agent has no action, or one that is none of its space; or somebody else has one.
            gymnasium.error.ResetNeeded: the env was never reset, or the episode is over.
        """
        factors = self.scene.factors
        assert self._state is not None
        acting = self.agents
        if not acting:
            raise gym.error.ResetNeeded("the episode is over; call reset()")
        if set(actions) != set(acting):
            raise ValueError(
                f"actions are given of {sorted(actions)}; allowed are those of {acting}, one each"
            )
        given = {agent: self._actions[agent].check(actions[agent])[None] for agent in acting}
        wanted = lone_threads().run(
            lambda: torch.cat([self._actions[agent].wanted(given[agent], factors) for agent in acting], 1)
        )
        self._state, _ = self._stepper(acting).step(self._state, wanted, self._generator)
        self._elapsed += 1
        there = self._there()
        seen = [agent for agent in self.possible_agents if agent in acting or agent in there]
        rewards, ends = lone_threads().run(lambda: self._judge(seen))
        ended = {agent: ends[agent] or agent not in there for agent in seen}
        over = self._elapsed >= self.horizon
        truncated = {agent: over and not ended[agent] for agent in seen}
        self._gone |= {agent for agent in seen if ended[agent] or truncated[agent]}
        self.agents = [agent for agent in seen if agent not in self._gone]
        return self._views(seen), rewards, ended, truncated, self._infos(seen)

    def state(self) -> np.ndarray:
        """FLAM-v0's observation `factors`: float32 `(K * S + C,)`."""
        return observe(self.world, self.scene, "factors", self._code_BC)[0]

    @torch.inference_mode()
    def render(self) -> np.ndarray | None:
        """The decoded frame, uint8 `(H, W, 3)`; None without a render mode."""
        return None if self.render_mode is None else observe(self.world, self.scene, "pixels")[0]

    def close(self) -> None:
        """Give the steppers' threads back."""
        for stepper in self._steppers.values():
            stepper.close()

    def _stepper(self, agents: list[str]) -> Stepper:
        """What steps the world when these act; it takes a while to make."""
        acting = tuple(self._factor[agent] for agent in agents)
        if acting not in self._steppers:
            self._steppers[acting] = self.world.imagination(acting)
        return self._steppers[acting]

    def _there(self) -> list[str]:
        """Whose entities are there, of those who have not gone before."""
        present = self.world.model.present(self.scene.factors)[0].tolist()
        return [
            agent for agent, factor in self._factor.items() if present[factor] and agent not in self._gone
        ]

    def _judge(self, agents: list[str]) -> tuple[dict[str, float], dict[str, bool]]:
        """Reward of each agent for entering the present state, and whether it is the agent's end."""
        seen = self.scene.factors.expand(len(agents), -1, -1)
        if self._judged_as is not None:
            own = torch.tensor([[self._factor[agent]] for agent in agents], device=seen.device)
            seen = seen.take_along_dim(in_order(own, [self._judged_as], seen.shape[1]).unsqueeze(-1), 1)
        reward, ended = judge(self._events, seen)
        return dict(zip(agents, reward.tolist(), strict=True)), dict(zip(agents, ended.tolist(), strict=True))

    def _views(self, agents: list[str]) -> dict[str, np.ndarray]:
        """The scene as each agent sees it, its own factor first."""
        factors, context = self.scene
        count = factors.shape[1]
        orders = [
            [self._factor[agent], *(k for k in range(count) if k != self._factor[agent])] for agent in agents
        ]
        views = factors[0, torch.tensor(orders, dtype=torch.int64, device=factors.device).view(-1, count)]
        scene = Scene(views, context.expand(len(agents), -1))
        seen = observe(self.world, scene, "factors", self._code_BC.expand(len(agents), -1))
        return dict(zip(agents, seen, strict=True))

    def _infos(self, agents: list[str]) -> dict[str, dict[str, Any]]:
        if not self._masked:
            return {agent: {} for agent in agents}
        factors = self.scene.factors
        plausible = lone_threads().run(lambda: self.world.model.plausible_codes(factors))[0].cpu().numpy()
        return {agent: {"action_mask": plausible[self._factor[agent]]} for agent in agents}


parallel_env = FLAMParallelEnv
"""Makes one, as PettingZoo's own are made."""
