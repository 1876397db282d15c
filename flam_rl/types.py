"""Records that cross the rooms of the project, and the legend of its shape suffixes.

Shape suffixes: B batch, T time, K factors, N tokens, D feature dim, S factor dim, L latent actions of a step (K in
FLAM), A latent action dim, M action codes, C H W image, V codebook size. `z_BTN` are code indices, `factors_BTKS` factors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

import numpy as np

from .actions import ActionSpace

if TYPE_CHECKING:
    import torch


def check_ranges(config: Any, **allowed: tuple[float, float] | range) -> None:
    """What a config's `__post_init__` calls: each named field must lie between two values, or in a range.

    Raises:
        ValueError: one does not; NaN never does.
    """
    for name, values in allowed.items():
        value = getattr(config, name)
        if isinstance(values, range):
            right, text = value in values, f"a multiple of {values.step} from {values[0]} to {values[-1]}"
        else:
            right, text = values[0] <= value <= values[1], f"{values[0]} to {values[1]}"
        if not right:
            raise ValueError(f"{name} is {value!r}; allowed is {text}")


@dataclass(frozen=True)
class Video:
    """Action-free video: all that world training ever sees.

    Attributes:
        episodes: uint8 `(T, H, W, 3)` frames of each episode; T may differ, H and W may not.
    """

    episodes: tuple[np.ndarray, ...]

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: there are no episodes, or they are not uint8 `(T, H, W, 3)` of one size.
        """
        shapes = {episode.shape[1:] for episode in self.episodes}
        if len(shapes) != 1 or any(e.ndim != 4 or e.dtype != "uint8" for e in self.episodes):
            raise ValueError(
                f"video needs one or more episodes of uint8 frames (T, H, W, 3) of one size; given {sorted(shapes)}"
            )

    @property
    def frames(self) -> int:
        """How many frames there are in all episodes together."""
        return sum(len(episode) for episode in self.episodes)


@dataclass(frozen=True)
class Episode:
    """One recorded episode of a task, with all that training must not see.

    Attributes:
        frames: uint8 `(T + 1, H, W, 3)`.
        actions: `(T, ...)` of the shape and dtype of the task's action space: int64 `(T,)` if that is `Discrete`.
        rewards: float32 `(T,)`; terminations: bool `(T,)`.
        entities: for evaluation only, arrays `(T + 1, entities, ...)` as the task's `info["entities"]`, or the
            `arrays` of its `info["truth"]`.
        seed: what the task was reset with.
    """

    frames: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminations: np.ndarray
    entities: dict[str, np.ndarray]
    seed: int


@dataclass(frozen=True, eq=False)
class Truth:
    """What a task knows of its entities, for evaluation only: of one frame in `info["truth"]`, of an episode after
    `stack`, which puts T first in every shape. A task leaves out (None) what it does not know.

    There is a row for each of the n entities that there can be at once. Where `presence` is False, numbers are NaN,
    `identity` and `action` are -1.

    Attributes:
        identity: int64 `(n,)`, one for each entity of the episode; the same for as long as it lives.
        presence: bool `(n,)`, whether it can be seen in the frame.
        box: float32 `(n, 4)`, x0 y0 x1 y1 in pixels of the frame around what can be seen of it; x1, y1 exclusive.
        mask: float32 `(n, H, W)`, 0 to 1: how much of each pixel shows it.
        centre: float32 `(n, 2)`, x and y in pixels of the frame, where a pixel's own centre is at 0.5.
        radius: float32 `(n,)`, pixels.
        heading: int64 `(n,)`, where it faces in quarter turns clockwise, 0 to the right, where facing is its own doing.
        velocity: float32 `(n, 2)`, pixels a step over the ground, whatever the camera does.
        action: int64 `(n,)`, what it chose to do to come here; -1 at reset.
        contact: bool `(n,)`, whether it touched something on the way here.
        camera: float32 `(2,)`, x and y on the ground of the frame's upper left corner, in pixels.
    """

    identity: np.ndarray | None = None
    presence: np.ndarray | None = None
    box: np.ndarray | None = None
    mask: np.ndarray | None = None
    centre: np.ndarray | None = None
    radius: np.ndarray | None = None
    heading: np.ndarray | None = None
    velocity: np.ndarray | None = None
    action: np.ndarray | None = None
    contact: np.ndarray | None = None
    camera: np.ndarray | None = None

    @classmethod
    def stack(cls, steps: Sequence[Truth]) -> Truth:
        """The truth of an episode from that of each of its frames.

        Raises:
            ValueError: frames differ in what is known or in its shapes.
        """
        shapes = {tuple((name, array.shape) for name, array in step.arrays().items()) for step in steps}
        if len(shapes) != 1:
            raise ValueError(
                f"truth must have the same fields and shapes in each frame; given {sorted(shapes)}"
            )
        return cls(**{name: np.stack([getattr(step, name) for step in steps]) for name in steps[0].arrays()})

    def arrays(self) -> dict[str, np.ndarray]:
        """What is known, by name."""
        return {f.name: array for f in fields(self) if (array := getattr(self, f.name)) is not None}

    def __eq__(self, other: object) -> bool:
        """Whether the same is known and all of it is equal, NaN to NaN."""
        if not isinstance(other, Truth):
            return NotImplemented
        mine, theirs = self.arrays(), other.arrays()
        return mine.keys() == theirs.keys() and all(
            np.array_equal(array, theirs[name], equal_nan=array.dtype.kind == "f")
            for name, array in mine.items()
        )


@dataclass(frozen=True)
class LabelledTransitions:
    """The label budget: episodes whose actions, rewards and ends were read.

    Attributes:
        episodes: uint8 `(T + 1, H, W, 3)` frames of each episode.
        actions: `(T, *action_space.shape)`, int64 or float32; rewards float32 `(T,)`; terminations bool `(T,)`; one
            of each an episode.
        action_space: of the task, whether or not each action was taken.
        known: bool `(T, 3)` an episode: which actions, rewards and terminations are labels; others mean nothing. By
            default all are.

    Raises:
        ValueError: an action is not one of these.
    """

    episodes: tuple[np.ndarray, ...]
    actions: tuple[np.ndarray, ...]
    rewards: tuple[np.ndarray, ...]
    terminations: tuple[np.ndarray, ...]
    action_space: ActionSpace
    known: tuple[np.ndarray, ...] = ()

    def __post_init__(self) -> None:
        known = self.known or tuple(np.ones((len(actions), 3), bool) for actions in self.actions)
        object.__setattr__(self, "known", known)
        object.__setattr__(self, "actions", tuple(map(self.action_space.checked, self.actions)))

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[Episode],
        budget: int,
        action_space: ActionSpace,
        known: Iterable[np.ndarray] = (),
    ) -> LabelledTransitions:
        """The first `budget` labelled transitions of `episodes`; the last episode may be cut.

        Args:
            known: as the attribute, an array an episode; by default all is.

        Raises:
            ValueError: there are fewer transitions than `budget`, or an action is none of the task's.
        """
        kept: list[tuple[np.ndarray, ...]] = []
        left, masks = budget, iter(known)
        for e in episodes:
            mask = next(masks, np.ones((len(e.actions), 3), bool))
            labelled = np.flatnonzero(mask.any(1))[:left]
            if len(labelled):
                n = int(labelled[-1]) + 1
                kept.append((e.frames[: n + 1], e.actions[:n], e.rewards[:n], e.terminations[:n], mask[:n]))
            left -= len(labelled)
            if left <= 0:
                break  # labels beyond the budget are not even read
        if left > 0 or not kept:
            raise ValueError(f"label budget is {budget}, but only {budget - left} transitions were given")
        frames, actions, rewards, terminations, masks_kept = zip(*kept, strict=True)
        return cls(frames, actions, rewards, terminations, action_space, masks_kept)

    def __add__(self, other: LabelledTransitions) -> LabelledTransitions:
        """The episodes of both.

        Raises:
            ValueError: they are of tasks with different actions.
        """
        if self.action_space != other.action_space:
            raise ValueError(
                f"labels of a task with actions {self.action_space} and of one with {other.action_space} do not add up"
            )
        return LabelledTransitions(
            self.episodes + other.episodes,
            self.actions + other.actions,
            self.rewards + other.rewards,
            self.terminations + other.terminations,
            self.action_space,
            self.known + other.known,
        )

    @property
    def video(self) -> Video:
        """The same episodes without their labels."""
        return Video(self.episodes)

    def __len__(self) -> int:
        """How many labelled transitions there are."""
        return sum(int(known.any(1).sum()) for known in self.known)


@dataclass(frozen=True)
class Rollout:
    """What a world did from a batch of starts.

    Attributes:
        factors_BTKS: factors `(B, T + 1, K, S)`, start included.
        context_BX: `(B, X)`, what no factor moved.
        latent_actions_BTLA: `(B, T, L, A)`, what led from each to the next.
        log_prior_BTC: `(B, T, C)`, the prior's log-probability of the action code nearest to what was wanted.
        rewards_BT: `(B, T)`, expected reward of what was entered; zeros in a world without labels.
        terminations_BT: `(B, T)`, probability that it is an end; the rollout goes on whatever it is.
    """

    factors_BTKS: torch.Tensor
    context_BX: torch.Tensor
    latent_actions_BTLA: torch.Tensor
    log_prior_BTC: torch.Tensor
    rewards_BT: torch.Tensor
    terminations_BT: torch.Tensor


class Scene(NamedTuple):
    """What a model makes of frames.

    Attributes:
        factors: float `(..., K, S)`.
        context: float `(..., X)`, what no factor moves: a background, and what was seen of it. One for a clip, so without T.
    """

    factors: torch.Tensor
    context: torch.Tensor

    def select(self, rows: Any) -> Scene:
        """The scenes of these rows of a batch."""
        return Scene(self.factors[rows], self.context[rows])


@dataclass(frozen=True)
class Entities:
    """The entities of a clip, as a model finds them or as they truly are; one k is one identity for the whole clip.

    Attributes:
        presence: bool `(T, K)`.
        box: float `(T, K, 4)`, x0 y0 x1 y1 in pixels of the frames, x1 and y1 exclusive, NaN where absent.
        mask: float `(T, K, H, W)` in 0..1, the share of a pixel that shows an entity; None where it is not known.
    """

    presence: np.ndarray
    box: np.ndarray
    mask: np.ndarray | None = None

    def __post_init__(self) -> None:
        """
        Raises:
            ValueError: shapes or types are others, or boxes do not tell presence: NaN where an entity is there, a box
                where it is not, or a box without a pixel.
        """
        shape = self.presence.shape
        if len(shape) != 2 or self.presence.dtype != "bool" or self.box.shape != (*shape, 4):
            raise ValueError(
                f"entities need presence bool (T, K) and box (T, K, 4); given {self.presence.dtype} {shape} and {self.box.shape}"
            )
        if self.mask is not None and (self.mask.ndim != 4 or self.mask.shape[:2] != shape):
            raise ValueError(f"masks of entities (T, K) = {shape} are (T, K, H, W); given {self.mask.shape}")
        there, absent = self.box[self.presence], self.box[~self.presence]
        if not (there[:, 2:] > there[:, :2]).all() or (absent == absent).any():
            raise ValueError(
                "a box is x0 y0 x1 y1 with x0 < x1 and y0 < y1 where its entity is present, and NaN where it is absent"
            )


class Tiles(NamedTuple):
    """Every tile that a grid task's renderer draws.

    Attributes:
        images: uint8 `(tiles, h, w, 3)`.
        owner: int `(tiles,)`, the agent that a tile shows, -1 for none.
        heading: int `(tiles,)`, where that agent heads, 0 to 3 clockwise, -1 for none.
    """

    images: np.ndarray
    owner: np.ndarray
    heading: np.ndarray


FitName = Literal["letterbox", "crop"]
"""How frames of another aspect come to a size: bars are added, or the sides are cut."""
Json = dict[str, Any]
LossAndMetrics: TypeAlias = "tuple[torch.Tensor, dict[str, torch.Tensor]]"
"""A scalar loss to minimise and what to log, detached."""
