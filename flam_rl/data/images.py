"""Which array of an observation is a picture, and how its frames become uint8 rgb."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import gymnasium as gym
import numpy as np

SMALLEST = 16
"""Height and width in pixels below which an array is taken for symbols or features: Minigrid's views are 7x7."""
DEEPEST = 15
"""Frames of a stack, or channels, at most."""
DIMMEST = 32
"""Out of 255. Arrays whose values stay below it number things: Minigrid's objects end at 10, Crafter's at 18."""
SLACK = 0.02
"""Share of the range from black to white by which floats may leave it, as those of a resized picture do."""


class AmbiguousValues(ValueError):
    """Arrays that do not show how the values of their data set are meant."""


@dataclass(frozen=True)
class Image:
    """An array of the observation space that may be a picture.

    Attributes:
        path: keys of Dict and indices of Tuple spaces that lead to it; empty where the observation is the array.
        space: its shape, type and bounds.
    """

    path: tuple[str | int, ...]
    space: gym.spaces.Box

    @property
    def name(self) -> str:
        """The path as `--files.key` takes it."""
        return ".".join(map(str, self.path))

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width, *_ = _axes(self.space.shape) or ()
        return self.space.shape[height], self.space.shape[width]


def find_image(space: gym.Space, key: str | None = None) -> Image:
    """The picture in an observation space.

    Args:
        key: which array is meant, dotted where spaces are nested; by default the only one that can be a picture.

    Raises:
        ValueError: there is none, or there are several and no `key`, or `key` names none.
    """
    leaves = {".".join(map(str, path)): (path, leaf) for path, leaf in _leaves(space)}
    reasons = {name: _no_picture(leaf) for name, (_, leaf) in leaves.items()}
    pictures = [name for name, reason in reasons.items() if not reason]
    choice = ", ".join(f"--files.key {name} ({_short(leaves[name][1])})" for name in pictures if name)
    if key is not None and key not in leaves:
        raise ValueError(
            f"no observation is named {key!r}; {f'allowed is {choice}' if choice else 'leave --files.key out'}"
        )
    if key is None and len(pictures) > 1:
        raise ValueError(f"several observations can be pictures; say which: {choice}")
    chosen = pictures[0] if key is None and pictures else key
    if chosen is None or reasons[chosen]:
        found = "; ".join(
            f"{name or 'the observation'} is {_short(leaf)}, {reasons[name]}"
            for name, (_, leaf) in leaves.items()
            if key in (None, name)
        )
        also = f"; there is {choice}" if choice else ""
        raise ValueError(f"{found or 'there are no observations'}{also}")
    path, box = leaves[chosen]
    assert isinstance(box, gym.spaces.Box)
    return Image(path, box)


@dataclass(frozen=True)
class Conversion:
    """How the arrays of one data set become frames: found once, so that all its frames are read alike.

    Attributes:
        newest: which frame of a stack of `stack` is the newest.
        channels: 1 grey, 3 rgb, 4 rgb and an opaque alpha.
        low: value that is black; high: value that is white.
        warnings: what a reader of the frames should know.
    """

    image: Image
    stack: int
    channels: int
    newest: int
    low: float
    high: float
    warnings: tuple[str, ...]

    @classmethod
    def from_sample(cls, image: Image, sample: np.ndarray) -> Conversion:
        """Found from the space and from a part of an episode.

        Args:
            sample: `(T, *space.shape)`, successive.

        Raises:
            AmbiguousValues: the values are so small that they may be symbols, or are no numbers.
            ValueError: the values are no picture's.
        """
        low, high = _range(image, sample)
        stack, channels, newest, warnings = _channels(_canonical(sample, image.space.shape))
        return cls(image, stack, channels, newest, low, high, tuple(warnings))

    def __call__(self, arrays: np.ndarray) -> np.ndarray:
        """Arrays `(T, *space.shape)` as frames, uint8 rgb `(T, H, W, 3)`.

        Raises:
            ValueError: the values are out of the range that the data set began with.
        """
        view = _canonical(arrays, self.image.space.shape)
        view = view.reshape(*view.shape[:3], self.stack, self.channels)[..., self.newest, :3]
        if view.dtype != np.uint8:
            view = (view.astype(np.float64) - self.low) * (255 / (self.high - self.low))
            if not (view.min() >= -255 * SLACK and view.max() <= 255 * (1 + SLACK)):
                raise ValueError(
                    f"{_called(self.image)} leaves the range {self.low:g} to {self.high:g} that its data set began with"
                )
            view = view.round().clip(0, 255)
        frames = np.empty((*view.shape[:3], 3), np.uint8)
        frames[:] = view  # one grey channel spreads over three
        return frames


def _leaves(
    space: gym.Space, path: tuple[str | int, ...] = ()
) -> Iterator[tuple[tuple[str | int, ...], gym.Space]]:
    if isinstance(space, gym.spaces.Dict):
        for key, inner in space.spaces.items():
            yield from _leaves(inner, (*path, key))
    elif isinstance(space, gym.spaces.Tuple):
        for index, inner in enumerate(space.spaces):
            yield from _leaves(inner, (*path, index))
    else:
        yield path, space


def _no_picture(space: gym.Space) -> str | None:
    """Why an array of this space cannot be a picture."""
    if not isinstance(space, gym.spaces.Box) or space.dtype is None or space.dtype.kind not in "uif":
        return "which holds no pixels"
    if _axes(space.shape) is None:
        return (
            f"which has not the shape of a picture: height and width of {SMALLEST} or more side by side, beside them "
            f"1, 3 or 4 channels or a stack of up to {DEEPEST} frames"
        )
    high = float(space.high.max()) if space.high.size else 0.0
    if space.dtype.kind in "ui" and high < DIMMEST:
        return f"whose values end at {high:g}: they number things, they are no brightness"
    if space.dtype.kind in "ui" and 255 < high < np.iinfo(space.dtype).max:
        return f"whose values go up to {high:g}; whole numbers of a picture end at 255"
    return None


def _axes(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The axes of `shape` as height, width, then stack and channels where there are any."""
    for height in range(len(shape) - 1):
        others = [axis for axis in range(len(shape)) if axis not in (height, height + 1)]
        if min(shape[height : height + 2]) < SMALLEST or any(not 1 <= shape[a] <= DEEPEST for a in others):
            continue
        if len(others) < 2:
            return (height, height + 1, *others)
        if len(others) == 2:
            channels = {0: 2, 1: 3, 2: 1}[height]  # (H, W, C, stack), (stack, H, W, C), (stack, C, H, W)
            (stack,) = set(others) - {channels}
            if shape[channels] not in (1, 3, 4):
                stack, channels = channels, stack
            if shape[channels] in (1, 3, 4):
                return height, height + 1, stack, channels
    return None


def _canonical(arrays: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A view `(T, H, W, channels)` or `(T, H, W, stack, channels)`."""
    axes = _axes(shape)
    assert axes is not None
    view = arrays.transpose(0, *(1 + axis for axis in axes))
    return view[..., None] if len(axes) == 2 else view


def _channels(view: np.ndarray) -> tuple[int, int, int, list[str]]:
    """Stack, channels, newest and warnings of `_canonical` arrays."""
    if view.ndim == 5:
        return _stack(view)
    count = view.shape[-1]
    if count == 1:
        return 1, 1, 0, []
    grey = view[..., None]
    if count == 3:
        return _stack(grey) if _newest(grey) is not None else (1, 3, 0, [])
    if count == 4 and (view[..., 3] == view.max()).all():
        return 1, 4, 0, []
    colour = view.reshape(*view.shape[:3], -1, 3) if count % 3 == 0 else None
    if colour is not None and (_newest(colour) is not None or _newest(grey) is None):
        return _stack(colour)
    return _stack(grey)


def _stack(view: np.ndarray) -> tuple[int, int, int, list[str]]:
    stack, channels = view.shape[3:]
    if stack == 1:
        return 1, channels, 0, []
    newest = _newest(view)
    kind = f"stacks of {stack} {'grey' if channels == 1 else 'colour'} frames: the newest of each is taken"
    if newest is None:
        kind += ", which is assumed to be the last: they do not move on by one frame a step"
    return stack, channels, stack - 1 if newest is None else newest, [kind]


def _newest(view: np.ndarray) -> int | None:
    """Which frame of each stack `(T, H, W, stack, channels)` is the newest, where what moves shows it."""
    stack = view.shape[3]
    if stack < 2 or len(view) < 2 or np.array_equal(view[..., 1:, :], view[..., :-1, :]):
        return None
    if np.array_equal(view[1:, ..., :-1, :], view[:-1, ..., 1:, :]):
        return stack - 1
    if np.array_equal(view[1:, ..., 1:, :], view[:-1, ..., :-1, :]):
        return 0
    return None


def _range(image: Image, sample: np.ndarray) -> tuple[float, float]:
    """The values that are black and white."""
    least, most = float(sample.min()), float(sample.max())
    name, space = _called(image), image.space
    if not np.isfinite([least, most]).all():
        raise AmbiguousValues(f"{name} holds values that are no numbers or infinite")
    bounds = float(space.low.min()), float(space.high.max())
    ranges: list[tuple[float, float]] = [(0, 255)]
    slack = SLACK if sample.dtype.kind == "f" else 0.0
    whole = np.isfinite(bounds).all() and bounds[1] > 1 and np.array_equal(sample, sample.round())
    if slack and not whole:
        ranges = [bounds] * (bounds in [(-1, 1), (-0.5, 0.5)]) + [(0, 1), (-1, 1), (0, 255)]
    fitting = [
        (a, b) for a, b in ranges if a - slack * (min(b, most) - a) <= least and most <= b + slack * (b - a)
    ]
    if not fitting:
        raise ValueError(
            f"{name} holds values from {least:g} to {most:g}; a picture's are whole numbers of 0 to 255, or "
            "floats of 0 to 1, of 0 to 255, or of -1 to 1"
        )
    low, high = fitting[0]
    if (most - low) / (high - low) < DIMMEST / 256:
        raise AmbiguousValues(
            f"the values of {name} never exceed {most:g} where white is {high:g}: they number things "
            "(as Minigrid's symbols do), or the film is too dark to learn from"
        )
    return low, high


def _called(image: Image) -> str:
    return f"{image.name or 'the observation'} ({_short(image.space)})"


def _short(space: gym.Space) -> str:
    """The space without the arrays of its bounds."""
    if not isinstance(space, gym.spaces.Box) or not space.low.size:
        return str(space)
    return f"Box({float(space.low.min()):g}..{float(space.high.max()):g}, {space.shape}, {space.dtype})"
