"""Factors that are held on a path, while the prior moves the others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from ..types import Rollout, Scene
from .world import World


@dataclass(frozen=True)
class HeldPath:
    """What a factor does.

    Attributes:
        latent_actions_TA: float `(T, A)`, what it does in each step.
        factors_TS: float `(T + 1, S)`, where that brings it, the start included; None where imagination is to find out.
    """

    latent_actions_TA: Float[torch.Tensor, "T A"]
    factors_TS: Float[torch.Tensor, "T1 S"] | None = None

    @classmethod
    @torch.inference_mode()
    def from_factors(cls, world: World, factors_TKS: Float[torch.Tensor, "T1 K S"], factor: int) -> HeldPath:
        """The path of a factor in the scene of a clip, which numbers factors as `World.entities` does.

        Raises:
            ValueError: there is no such factor, or a single frame.
        """
        check_factor(world, factor)
        if len(factors_TKS) < 2:
            raise ValueError("a path of 1 frame has no step; allowed are 2 frames or more")
        latent_actions = world.infer_actions(factors_TKS[None]).mean[0]
        return cls(latent_actions[:, factor], factors_TKS[:, factor])

    def __len__(self) -> int:
        """T."""
        return len(self.latent_actions_TA)


def check_factor(world: World, factor: int) -> None:
    """
    Raises:
        ValueError: the world has no such factor with a latent action of its own.
    """
    if not 0 <= factor < world.latent_actions:
        raise ValueError(
            f"factor {factor} is held, but is not there; allowed are 0 to {world.latent_actions - 1}"
        )


@torch.inference_mode()
def seen(world: World, frames: np.ndarray) -> Scene:
    """The scene of a clip of frames uint8 `(T, H, W, 3)`: factors `(T, K, S)` and context `(X,)`.

    Raises:
        ValueError: they are none of the world's.
    """
    scene = world.see(world.checked(frames)[None])
    return Scene(scene.factors[0], scene.context[0])


@torch.inference_mode()
def hold(
    world: World,
    paths: Mapping[int, HeldPath],
    start: Scene,
    steps: int,
    generator: torch.Generator | None = None,
) -> Rollout:
    """Imagine `steps` steps in which given factors keep to their paths and the prior moves the others, who see them.

    A path with factors is kept to exactly; of one of latent actions alone imagination takes the plausible codes nearest to them.

    Args:
        paths: by the factor's index; none is free imagination.
        start: B scenes, in which held factors are put at the beginning of their paths.

    Raises:
        ValueError: there is no such factor, a path is shorter than `steps` or of latent actions of another size.
    """
    for factor, path in paths.items():
        check_factor(world, factor)
        if len(path) < steps:
            raise ValueError(
                f"the path of factor {factor} has {len(path)} steps; allowed are {steps} or more"
            )
        if path.latent_actions_TA.shape[1] != world.latent_action_dim:
            raise ValueError(
                f"the path of factor {factor} has latent actions of {path.latent_actions_TA.shape[1]} numbers; "
                f"allowed is {world.latent_action_dim}"
            )
    factors, held = start.factors.clone(), {}
    for factor, path in paths.items():
        if path.factors_TS is not None:
            factors[:, factor] = path.factors_TS[0]
            held[factor] = path.factors_TS[1:]
    ways = [path.latent_actions_TA[:steps] for path in paths.values()]
    wanted = iter(torch.cat(ways, 1) if ways else ())
    return world.imagine(
        lambda rows: next(wanted).expand(len(rows), -1),
        start._replace(factors=factors),
        steps,
        list(paths),
        generator,
        held=held,
    )
