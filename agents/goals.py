"""What a planner may want instead of the reward: that factors are where a picture shows them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..core.threads import lone_threads
from ..core.world import World
from ..envs.spaces import Control, controlled_factors


@dataclass(frozen=True)
class PictureGoal:
    """Some factors are where they are in a picture, whatever they and all else look like: `Planner(world, goal=...)`.

    Entering a state brings minus the distance in pixels, the mean of these factors, and is no end.

    Args:
        factors: indices of the C factors that matter.
        centres_GC2: where they are to be, x and y in pixels: float `(G, C, 2)`, one goal for all envs or one for each.
    """

    world: World
    factors: Sequence[int]
    centres_GC2: Float[Tensor, "G C 2"]

    @classmethod
    def from_frames(cls, world: World, frames: np.ndarray, factors: Control | None = None) -> PictureGoal:
        """The goal that frames show.

        Args:
            frames: uint8 `(H, W, 3)`, one for all envs, or `(B, H, W, 3)`, one for each.
            factors: those that matter, as FLAM-v0's `control`: by default the agents' ("the red agent there").

        Raises:
            ValueError: the frames are of another type or size than the world's, or there are no such factors.
        """
        size = (*world.frame_size, 3)
        given = np.asarray(frames)
        if given.dtype != np.uint8 or given.ndim not in (3, 4) or given.shape[-3:] != size:
            raise ValueError(
                f"a goal is frames {given.dtype} {given.shape}; allowed are uint8 {size} or (B, {', '.join(map(str, size))})"
            )
        chosen = controlled_factors(world, factors)

        @torch.inference_mode()
        def seen() -> Tensor:
            clips = torch.as_tensor(given.reshape(-1, 1, *size), device=world.device)
            found = world.see(clips).factors
            if world.labels is not None:
                found = world.labels.agents.in_place(found)
            return world.model.centres(found[:, 0, chosen])

        return cls(world, chosen, lone_threads().run(seen))

    def away(self, factors_BKS: Float[Tensor, "B K S"]) -> Float[Tensor, " B"]:
        """Pixels from the goal, the mean of the factors that matter; B is G or a multiple, the states of a goal side by side."""
        goal = self.centres_GC2.repeat_interleave(len(factors_BKS) // len(self.centres_GC2), 0)
        return (self.world.model.centres(factors_BKS[:, self.factors]) - goal).norm(dim=-1).mean(-1)

    def __call__(self, factors_BKS: Float[Tensor, "B K S"]) -> tuple[Tensor, Tensor]:
        """Reward float `(B,)` and end of entering states."""
        away = self.away(factors_BKS)
        return -away, torch.zeros_like(away)
