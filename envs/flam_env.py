"""`FLAM-v0`: a world learned from video as a gymnasium env."""

from __future__ import annotations

import os
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode

from ..core.world import World
from .flam_vector_env import FLAMVectorEnv
from .seeds import first_seed
from .spaces import Control, Observation, check_actions
from .spec import Specified


class FLAMEnv(Specified, gym.Env):  # type: ignore[misc]
    """Act in a world that was learned from action-free video.

    ## Description
    A FLAM (Factored Latent Action World Model, arXiv 2602.16229) splits a scene into factors, each with
    its own latent action. The caller gives the latent actions of the controlled factors; the other
    factors act by the learned prior. Episodes start from held-out video.

    ## Action space
    `Box(-3, 3, (controlled * A,), float32)`: latent actions in their own units, in which they are about
    standard normal. Each is snapped to the nearest action code that the prior finds plausible in the
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
    `info["masks"]`, float `(K, H, W)`, each factor's share of each pixel, if `masks`.

    ## Arguments
    world: name of a shipped world, a folder, or a `World`.
    control: `"agent"` (the factor that the labels showed to be the agent's), `"all"`, or a list of factor
    indices. By default `"agent"`, in a world without labels `"all"` with a warning.
    observation: as above. horizon: steps, by default the world's own. masks: whether info holds them.
    device: where the world's tensors live, by default the CPU; a `World` that is given stays where it is.

    Raises:
        ValueError: an unknown world, control, observation, horizon or render mode; a latent action of
            another shape or with a NaN.

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
    ) -> None:
        self.core = FLAMVectorEnv(
            1, world, control, observation, horizon, masks, device, render_mode, AutoresetMode.DISABLED
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

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """As in gymnasium, by latent actions float `(controlled * A,)`.

        Raises:
            ValueError: the action has another shape, or a number that is not finite.
            gymnasium.error.ResetNeeded: the env was never reset.
        """
        actions = check_actions(action, self.core.action_shape)[None]
        observations, rewards, terminated, truncated, infos = self.core.step(actions)
        return observations[0], float(rewards[0]), bool(terminated[0]), bool(truncated[0]), _first(infos)

    def close(self) -> None:
        """Close the batch of one that the env consists of."""
        self.core.close()

    def render(self) -> np.ndarray:
        """The decoded frame, uint8 `(H, W, 3)`."""
        return self.core.render()[0]


def _first(infos: dict[str, Any]) -> dict[str, Any]:
    return {key: value[0] for key, value in infos.items()}
