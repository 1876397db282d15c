"""A world that nothing needs to learn: points on a small frame, and the task that it is the exact model of.

As Stable-Baselines3 has identity envs: what agents, envs and planners do in it has a closed form.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from gymnasium.utils import seeding
from torch.distributions import Categorical, Distribution, Independent, MixtureSameFamily, Normal

from flam_rl.actions import ActionSpace
from flam_rl.core.adapters import DiscreteAdapter
from flam_rl.core.agent import Agents
from flam_rl.core.heads import EventHead, Labels
from flam_rl.core.info import WorldInfo
from flam_rl.core.layers import EnsembleMLP, nearest_code
from flam_rl.core.model import Model, Starts
from flam_rl.core.stepping import Events, Imagined, Taken, judge
from flam_rl.core.world import World
from flam_rl.types import Entities, Scene

SIDE = 16
"""Pixels along a side of a frame."""
POINTS = 3
"""K; point k is the one pixel that is not 0 in colour channel k."""
CODES = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
"""Action codes (x, y) in pixels a step; a real action is the index of one."""
GOAL = 12
"""Column from which on the agent, point 0, is rewarded with 1 and the episode ends."""
HORIZON = 24
GREYEST = 100
"""Grey level of a ground at most, where episodes have one."""


def factors_of(pixels: torch.Tensor) -> torch.Tensor:
    """Places in pixels 0 to 15 to places in -1 to 1."""
    return pixels / (SIDE - 1) * 2 - 1


def pixels_of(factors: torch.Tensor) -> torch.Tensor:
    """The inverse, int64."""
    return ((factors + 1) / 2 * (SIDE - 1)).round().long()


class PointsModel(Model):
    """Factors are places (x, y); a latent action moves its own point by as many pixels, not beyond the frame.

    Args:
        ground: whether each episode has a grey ground of its own; the context is its level, 0 to 1, and the code the
            level again, -1 to 1.
    """

    kind = "points"
    settings = None
    frame_size, factors, factor_dim, factor_bound = (SIDE, SIDE), POINTS, 2, 1.0
    latent_actions, latent_action_dim = POINTS, 2

    def __init__(self, ground: bool = False) -> None:
        super().__init__()
        self.context_dim = int(ground)
        self.register_buffer("codes", torch.as_tensor(CODES))

    @property
    def context_code_dim(self) -> int:
        return self.context_dim

    def context_code(self, context_BX: torch.Tensor) -> torch.Tensor:
        return context_BX * (2 * 255 / GREYEST) - 1

    @property
    def action_codes(self) -> torch.Tensor:
        return self.codes

    def see(self, frames: torch.Tensor, actions: torch.Tensor | None = None) -> Scene:
        brightest = frames.flatten(-3, -2).argmax(-2)
        pixels = torch.stack([brightest % SIDE, brightest // SIDE], -1)
        levels = frames.flatten(1).amin(1, keepdim=True).float() / 255
        return Scene(factors_of(pixels.float()), levels[:, : self.context_dim])

    def infer_actions(self, factors_BTKS: torch.Tensor) -> Normal:
        moved = factors_BTKS.diff(dim=1) * (SIDE - 1) / 2
        return Normal(moved, torch.full_like(moved, 1e-3))

    def step(self, factors_BKS: torch.Tensor, latent_actions_BLA: torch.Tensor) -> torch.Tensor:
        return (factors_BKS + latent_actions_BLA * 2 / (SIDE - 1)).clamp(-1, 1)

    def prior(self, factors_BKS: torch.Tensor) -> Distribution:
        shape = (*factors_BKS.shape[:-1], len(self.codes))
        components = Normal(self.codes.expand(*shape, -1), 1e-3)
        return MixtureSameFamily(Categorical(logits=self.codes.new_zeros(shape)), Independent(components, 1))

    def snap(
        self, factors_BKS: torch.Tensor, index: int, latent_actions_BA: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        code = nearest_code(latent_actions_BA, self.codes)
        return self.codes[code], torch.full(code.shape, -float(np.log(len(CODES))))

    def draw(self, scene: Scene) -> torch.Tensor:
        frames = self.shares(scene)
        if self.context_dim:
            frames = frames.maximum(scene.context[..., None, None])
        return (frames * 255).round().to(torch.uint8).movedim(1, -1)

    def shares(self, scene: Scene) -> torch.Tensor:
        x, y = pixels_of(scene.factors).unbind(-1)
        return torch.nn.functional.one_hot(y * SIDE + x, SIDE**2).float().unflatten(-1, (SIDE, SIDE))

    def entities_of(self, scene: Scene, masks: bool = False) -> Entities:
        first = pixels_of(scene.factors).numpy()
        box = np.concatenate([first, first + 1], -1).astype(float)
        return Entities(np.ones(box.shape[:2], bool), box, self.shares(scene).numpy() if masks else None)

    def stepper(
        self,
        controlled: Sequence[int] = (),
        dtype: torch.dtype = torch.float32,
        compile: bool = False,
        events: Events | None = None,
    ) -> PointsStepper:
        return PointsStepper(self, controlled, events)

    def watch(self, count: int) -> PointsWatcher:
        return PointsWatcher(self, count)

    def scenes(self, starts: Starts) -> Scene:
        return Scene(starts["factors"], starts["context"])

    def check_starts(self, starts: Starts) -> None:
        if starts["factors"].shape[1:] != (POINTS, 2):
            raise ValueError(f"starts are {starts['factors'].shape}; allowed is (S, {POINTS}, 2)")
        if starts["context"].shape[1:] != (self.context_dim,):
            raise ValueError(f"contexts are {starts['context'].shape}; allowed is (S, {self.context_dim})")


class JointPointsModel(PointsModel):
    """As a rival has it, one latent action for all points, with a prior that chooses from no codes; for what must refuse it."""

    latent_actions = 1

    @property
    def action_codes(self) -> None:
        return None


class PointsStepper:
    """The controlled points move by the action codes nearest to what is wanted, the others by any."""

    def __init__(self, model: PointsModel, controlled: Sequence[int], events: Events | None) -> None:
        self.model, self.controlled, self.events = model, list(controlled), events

    def begin(self, factors_BKS: torch.Tensor) -> Imagined:
        factors_KBS = factors_BKS.transpose(0, 1).contiguous()
        return Imagined(factors_KBS, factors_KBS[..., :0])

    def step(
        self,
        now: Imagined,
        latent_actions_BCA: torch.Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[Imagined, Taken]:
        factors = now.factors_BKS
        worlds, codes = len(factors), self.model.codes
        taken = codes[torch.randint(len(codes), (worlds, POINTS), generator=generator)]
        log_prior = factors.new_zeros(worlds, len(self.controlled))
        for row, point in enumerate(self.controlled):
            wanted = latent_actions_BCA[:, row]
            snapped, log_prior[:, row] = self.model.snap(factors, point, wanted)
            taken[:, point] = snapped + wanted - wanted.detach()  # gradients go straight through
        following = self.model.step(factors, taken)
        return self.begin(following), Taken(taken, log_prior, *judge(self.events, following))

    def close(self) -> None:
        pass


class PointsWatcher:
    """A frame shows all that there is to know."""

    def __init__(self, model: PointsModel, count: int) -> None:
        self.model, self.factors = model, torch.zeros(count, POINTS, 2)
        self.context = torch.zeros(count, model.context_dim)

    def see(self, frames: np.ndarray, fresh: np.ndarray, moved: np.ndarray | None = None) -> Scene:
        new = np.ones(len(frames), bool) if moved is None else moved
        seen = self.model.see(torch.as_tensor(frames[new])[:, None])
        self.factors, self.context = self.factors.clone(), self.context.clone()
        self.factors[torch.as_tensor(new)] = seen.factors[:, 0]
        self.context[torch.as_tensor(new)] = seen.context
        return Scene(self.factors, self.context)


@torch.no_grad()
def set_affine(net: EnsembleMLP, weight: np.ndarray, bias: np.ndarray) -> None:
    """Every member becomes `x @ weight + bias`: gelu(z) - gelu(-z) is z."""
    for parameter in net.parameters():
        parameter.zero_()
    for i in range(len(weight)):
        net.weight_0[:, i, 2 * i], net.weight_0[:, i, 2 * i + 1] = 1, -1
        net.weight_1[:, 2 * i] = torch.as_tensor(weight[i]).float()
        net.weight_1[:, 2 * i + 1] = -torch.as_tensor(weight[i]).float()
    net.bias_1[:] = torch.as_tensor(bias).float()


def points_labels(agents: Sequence[int] = (0,)) -> Labels:
    """These points are the agents; the first of them entering column `GOAL` or one beyond brings 1 and ends the episode."""
    actions = ActionSpace.from_gym(PointsTask(agents=agents).action_space)
    numbers = [[number] for number in range(len(agents))]
    adapters = [DiscreteAdapter(2, 2, actions.part(part)) for part in numbers]
    nothing = np.zeros((2, len(CODES)))  # whatever the factor is
    for adapter in adapters:
        set_affine(
            adapter.to_real, np.concatenate([nothing, 40 * CODES.T]), -20 * np.square(CODES).sum(1)
        )  # the log of a Gaussian around each code
        set_affine(adapter.to_latent, np.concatenate([np.zeros((2, 2)), CODES]), np.zeros(2))
    sees = (agents[0],)
    labels = Labels(
        Agents(actions, agents, numbers, adapters), EventHead(2, sees, 1.0), EventHead(2, sees, 1.0), 0
    )
    between = float(factors_of(torch.tensor(GOAL - 0.5)))
    for head in (labels.reward, labels.termination):
        set_affine(head.net, np.array([[200.0], [0.0]]), np.array([-200 * between]))
    return labels


def points_world(horizon: int = HORIZON, labels: bool = True, ground: bool = False) -> World:
    """Its starts are those of `PointsTask`, seeds 0 to 255."""
    starts = torch.stack([factors_of(torch.as_tensor(start_pixels(seed)).float()) for seed in range(256)])
    levels = torch.tensor([[start_level(seed) / 255] * ground for seed in range(256)])
    return World(
        PointsModel(ground),
        {"factors": starts, "context": levels},
        WorldInfo(horizon=horizon),
        points_labels() if labels else None,
    )


def start_pixels(seed: int) -> np.ndarray:
    """Where the points are after `PointsTask.reset(seed=seed)`, int `(K, 2)`; the agent is left of the middle."""
    return start_of(seeding.np_random(seed)[0])


def start_of(rng: np.random.Generator) -> np.ndarray:
    pixels = rng.integers(0, SIDE, (POINTS, 2))
    pixels[0, 0] %= SIDE // 2
    return pixels


def start_level(seed: int) -> int:
    """Grey level of the ground after `PointsTask(ground=True).reset(seed=seed)`."""
    rng = seeding.np_random(seed)[0]
    start_of(rng)
    return level_of(rng)


def level_of(rng: np.random.Generator) -> int:
    return int(rng.integers(GREYEST + 1))


def frame_of(pixels: np.ndarray, level: int = 0) -> np.ndarray:
    """uint8 `(H, W, 3)`."""
    frame = np.full((SIDE, SIDE, 3), level, np.uint8)
    frame[pixels[:, 1], pixels[:, 0], np.arange(POINTS)] = 255
    return frame


class PointsTask(gym.Env):
    """The same as a real task: actions are the agents', the other points move at random.

    Args:
        agents: the points that actions move, the first of them to the goal; one has `Discrete` actions, several have a
            number of `MultiDiscrete` ones each.
        ground: whether each episode has a grey ground of its own.
    """

    metadata = {"render_modes": []}
    observation_space = gym.spaces.Box(0, 255, (SIDE, SIDE, 3), np.uint8)

    def __init__(self, max_steps: int = HORIZON, agents: Sequence[int] = (0,), ground: bool = False) -> None:
        self.max_steps, self.agents, self.ground = max_steps, list(agents), ground
        self.action_space = (
            gym.spaces.Discrete(len(CODES))
            if len(agents) == 1
            else gym.spaces.MultiDiscrete([len(CODES)] * len(agents))
        )

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self.pixels, self.elapsed = start_of(self.np_random), 0
        self.level = level_of(self.np_random) if self.ground else 0
        return frame_of(self.pixels, self.level), {}

    def step(self, action: int | np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        chosen = self.np_random.integers(len(CODES), size=POINTS)
        chosen[self.agents] = action
        self.pixels = np.clip(self.pixels + CODES[chosen].astype(int), 0, SIDE - 1)
        self.elapsed += 1
        reached = bool(self.pixels[self.agents[0], 0] >= GOAL)
        truncated = self.elapsed >= self.max_steps and not reached
        frame = frame_of(self.pixels, self.level)
        return frame, float(reached), reached, truncated, {"success": reached}
