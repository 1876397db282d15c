"""Behaviour cloning: of labelled actions from pixels, and of latent actions inferred from expert video.

The second is FLAM's protocol (arXiv 2602.16229, policy learning): pseudo-label unlabelled expert video
with latent actions, clone those, decode them with an adapter fitted on few labels.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import nn

from ..actions import ActionSpace
from ..core.layers import mlp, nearest_code
from ..core.threads import one_core
from ..core.world import World
from ..models.tiles.tokenizer import scale
from ..progress import progress
from ..types import LabelledTransitions, Video


class BehaviorCloning:
    """A cloned policy with Stable-Baselines3's `predict`.

    Args:
        net: observations float to logits `(B, choices)`, of several agents `(B, C, choices)`, whose choices are put one after the
            other; or without `choices` to the action itself.
        choices: what each logit stands for, an action each; None for real numbers, which are predicted.
        pixels: whether observations are uint8 frames.
    """

    def __init__(self, net: nn.Module, choices: np.ndarray | None, pixels: bool, seed: int) -> None:
        self.net, self.choices, self.pixels = net.eval().requires_grad_(False), choices, pixels
        self.generator = torch.Generator().manual_seed(seed)

    @classmethod
    def from_labels(cls, labelled: LabelledTransitions, seed: int = 0) -> BehaviorCloning:
        """Frame to action, on the label budget alone: no world, no other video.

        Of several whole numbers those are cloned that were seen together; real numbers are predicted by squared error,
        within their bounds.
        """
        known = [mask[:, 0] for mask in labelled.known]
        seen = zip(labelled.episodes, known, strict=True)
        frames = torch.cat([torch.as_tensor(frames[:-1][mask]) for frames, mask in seen])
        taken = np.concatenate([a[mask] for a, mask in zip(labelled.actions, known, strict=True)])
        space, size = labelled.action_space, (frames.shape[1], frames.shape[2])
        choices: np.ndarray | None = None
        if space.kind == "box":
            target, outputs = torch.as_tensor(taken), space.size
        elif space.shape:
            choices, chosen = np.unique(taken, axis=0, return_inverse=True)
            target, outputs = torch.as_tensor(chosen.ravel()), len(choices)
        else:
            choices = np.arange(space.count[0]) + space.start[0]
            target, outputs = torch.as_tensor(taken - space.start[0]), space.count[0]
        torch.manual_seed(seed)
        net = _frame_net(size, outputs)
        if space.kind == "box":
            net = nn.Sequential(net, _Bounded(space))
        _fit(net, scale(frames).permute(0, 3, 1, 2), target, seed, steps=3000)
        return cls(net, choices, True, seed)

    @classmethod
    @one_core()
    def from_expert_video(cls, world: World, video: Video, seed: int = 0) -> BehaviorCloning:
        """Factors to the action code of each agent inferred from expert video, for a `DecodedEnv` of `world`.

        Raises:
            ValueError: the world's model has no action codes, or the world has no labels that tell which
                factors are the agents'.
        """
        if world.labels is None:
            raise ValueError("this world has no labels: which factor is the expert's is not known")
        agents = world.labels.agents
        codebook = world.model.action_codes
        if codebook is None:
            raise ValueError(
                f"latent behaviour cloning chooses among action codes; the model {world.model.kind!r} has none of a factor"
            )
        seen, target = [], []
        with torch.inference_mode():
            for episode in video.episodes:
                scene = world.see(torch.as_tensor(episode, device=codebook.device)[None])
                factors = agents.in_place(scene.factors)
                code = world.context_code(scene.context).expand(len(episode) - 1, -1)
                latent = world.infer_actions(factors).mean[0, :, list(agents.factors)]
                seen.append(world.observation(factors[0, :-1], code))
                target.append(nearest_code(latent.flatten(0, 1), codebook).unflatten(0, latent.shape[:2]))
        torch.manual_seed(seed)
        net: nn.Module = mlp(world.observation_dim, 128, len(agents) * len(codebook), layers=3)
        if len(agents) > 1:
            net = nn.Sequential(net, nn.Unflatten(1, (len(agents), len(codebook))))
        chosen = torch.cat(target).cpu()
        chosen = chosen if len(agents) > 1 else chosen[:, 0]
        _fit(net, torch.cat(seen).cpu().clone(), chosen.clone(), seed, steps=1500)
        return cls(net, codebook.cpu().numpy(), False, seed)

    def predict(
        self,
        observation: np.ndarray,
        state: Any = None,
        episode_start: Any = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any]:
        """Action for one observation or a batch: drawn from the cloned distribution, or its mode."""
        batched = torch.as_tensor(observation)
        single = batched.ndim == (3 if self.pixels else 1)
        if single:
            batched = batched[None]
        if self.pixels:
            batched = scale(batched).permute(0, 3, 1, 2)
        logits = self.net(batched.float())
        if self.choices is None:
            wanted = logits.numpy()
            return (wanted[0] if single else wanted), state
        if deterministic:
            chosen = logits.argmax(-1)
        else:
            rows = logits.flatten(0, -2).softmax(-1)
            chosen = torch.multinomial(rows, 1, generator=self.generator).view(logits.shape[:-1])
        actions = self.choices[chosen.numpy()]
        if logits.ndim == 3:
            actions = actions.reshape(len(actions), -1)
        return (actions[0] if single else actions), state


def _frame_net(size: tuple[int, int], actions: int) -> nn.Module:
    # The encoder of Mnih et al. 2015, narrower.
    encoder = nn.Sequential(
        nn.Conv2d(3, 16, 8, 4),
        nn.ReLU(),
        nn.Conv2d(16, 32, 4, 2),
        nn.ReLU(),
        nn.Conv2d(32, 32, 3),
        nn.ReLU(),
        nn.Flatten(),
    )
    width = encoder(torch.zeros(1, 3, *size)).shape[1]
    return nn.Sequential(encoder, nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, actions))


class _Bounded(nn.Module):
    """Outputs `(B, size)` as actions of a box `(B, *shape)`: within its bounds whenever it does not learn."""

    bounds: torch.Tensor

    def __init__(self, space: ActionSpace) -> None:
        super().__init__()
        self.shape = space.shape
        low = [-math.inf if bound is None else bound for bound in space.low]
        high = [math.inf if bound is None else bound for bound in space.high]
        self.register_buffer("bounds", torch.tensor([low, high]))

    def forward(self, outputs: torch.Tensor) -> torch.Tensor:
        if not self.training:
            outputs = outputs.clamp(self.bounds[0], self.bounds[1])
        return outputs.view(-1, *self.shape)


@one_core()
def _fit(net: nn.Module, inputs: torch.Tensor, target: torch.Tensor, seed: int, steps: int) -> None:
    net.float()  # whatever torch's default dtype is
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    for step in progress(range(steps), desc="cloning", unit="step"):
        optimizer.param_groups[0]["lr"] = 1e-3 * 0.5 * (1 + math.cos(math.pi * step / steps))
        rows = torch.randint(len(target), (128,), generator=generator)
        miss = nn.functional.mse_loss if target.is_floating_point() else nn.functional.cross_entropy
        wanted, outputs = target[rows], net(inputs[rows])
        if not target.is_floating_point():
            wanted, outputs = wanted.flatten(), outputs.flatten(0, -2)
        loss = miss(outputs, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
