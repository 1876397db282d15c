"""`FLAM-v0`: a world learned from video as a gymnasium env."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from ..core.world import World
from .action_types import ActionType
from .flam_vector_env import FLAMVectorEnv
from .seeds import first_seed
from .spaces import Control, Observation
from .spec import Specified


class FLAMEnv(Specified, gym.Env):  # type: ignore[misc]
    """Act in a world that was learned from action-free video.

    ## Description
    A FLAM (Factored Latent Action World Model, arXiv 2602.16229) splits a scene into factors, each with
    its own latent action. The caller gives the latent actions of the controlled factors; the other
    factors act by the learned prior. Episodes start from held-out video.

    ## Action space
    | `actions` | space |
    | --- | --- |
    | `"latent"` | `Box(-3, 3, (controlled * A,), float32)`: latent actions in their own units, in which they are about standard normal |
    | `"codes"` | `Discrete(M)`, of several controlled factors `MultiDiscrete`: one of the prior's M action codes, which mean the same in every state |
    | `"real"` | the task's own, which the adapter turns into latent actions: what was trained here runs on the task as it is |

    Each latent action is snapped to the nearest action code that the prior finds plausible in the
    present state, so no action leads out of what the world has seen.

    ## Observation space
    | `observation` | space |
    | --- | --- |
    | `"factors"` | `Box(-bound, bound, (K * S + C,), float32)`, all factors one after the other, then the code of the context |
    | `"pixels"` | `Box(0, 255, (H, W, 3), uint8)`, the decoded frame |
    | `"features"` | `Box(-inf, inf, (N, D), float32)`, the code vectors of the decoded frame |

    The bound of factors is the model's, sqrt(S) on tiles; that of the code is 3. C is 0 where all scenes of the world
    share one context. Where they differ, as with another background in each episode, the code tells a policy in which
    it is; it stays the same until the next reset.

    ## Reward
    The mean labelled reward when the world's reward head says that one was entered, else 0; always 0 in a
    world without labels.

    ## Episode end
    Terminates when the termination head says so; truncates at `horizon`.

    ## Info
    `info["masks"]`, float `(K, H, W)`, each factor's share of each pixel, if `masks`. `info["action_mask"]`, bool
    `(controlled * M,)`, which action codes are plausible now, with `actions="codes"`; `action_masks()` returns the same, as
    sb3-contrib's MaskablePPO asks for it.

    ## Arguments
    world: name of a shipped world, a folder, a zip, `hf://user/name`, or a `World`.
    control: `"agent"` (the factor that the labels showed to be the agent's), `"all"`, or a list of factor
    indices. By default `"agent"`, in a world without labels `"all"` with a warning.
    observation, actions: as above. horizon: steps, by default the world's own. masks: whether info holds them.
    device: where the world's tensors live, by default the CPU; a `World` that is given stays where it is.

    Raises:
        ValueError: an unknown world, control, observation, horizon, render mode or type of actions, or one that the world
            has not; an action of another shape or with a NaN.

    ## Version history
    v0: first version.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 8}

    def __init__(
        self,
        world: str | os.PathLike[str] | World = "multigrid",
        control: Control | None = None,
        observation: Observation = "factors",
        horizon: int | None = None,
        masks: bool = False,
        device: str | None = None,
        render_mode: str | None = "rgb_array",
        actions: ActionType = "latent",
    ) -> None:
        self.core = FLAMVectorEnv(
            1,
            world,
            control,
            observation,
            horizon,
            masks,
            device,
            render_mode,
            AutoresetMode.DISABLED,
            actions=actions,
        )
        self.render_mode = render_mode
        self.observation_space = self.core.single_observation_space
        self.action_space = self.core.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """As gymnasium's `Env.reset`; options are not used."""
        super().reset(seed=seed)
        if seed is None and not self.core.started:
            seed = first_seed(self)
        observations, infos = self.core.reset(seed=seed)
        return observations[0], _first(infos)

    def step(self, action: np.ndarray | int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As in gymnasium, by an action of the action space.

        Raises:
            ValueError: the action has another shape, or holds what is none of the action space.
            gymnasium.error.ResetNeeded: the env was never reset.
        """
        observations, rewards, terminated, truncated, infos = self.core.step(
            self.core.actions.check(action)[None]
        )
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(infos)

    def action_masks(self) -> np.ndarray | None:
        """Which actions are plausible now, bool `(controlled * M,)`, where they are codes; else None."""
        found = self.core.action_masks()
        return None if found is None else found[0]

    def close(self) -> None:
        """Close the batch of one that the env consists of."""
        self.core.close()

    def render(self) -> np.ndarray:
        """The decoded frame, uint8 `(H, W, 3)`."""
        return self.core.render()[0]


def _first(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in infos.items()}
