"""Pictures at their times become episodes of equal steps."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from .cuts import marked
from .episodes import EpisodeInfo, Stream, Timed
from .fitting import Fitting

LONGEST_PAUSE_S = 10.0
"""A longer pause, if it is also longer than `LONGEST_PAUSE_STEPS`, ends the episode."""
LONGEST_PAUSE_STEPS = 10


@dataclass
class Film:
    """What a reader finds out about its source while it decodes.

    Attributes:
        period: seconds from frame to frame, the median where it varies; None without time stamps.
        height, width: as displayed, in pixels. rotation: degrees clockwise.
        warnings: of the episode that is being read.
    """

    source: str
    period: float | None = None
    height: int = 0
    width: int = 0
    rotation: int | None = None
    warnings: list[str] = field(default_factory=list)

    def record(
        self, start: int, frames: int, duration: float | None, first: float = 0.0, steps: _Steps | None = None
    ) -> EpisodeInfo:
        """The episode that ends here, from frame `start`, shown `first`; takes its warnings."""
        warnings, self.warnings = tuple(self.warnings), []
        return EpisodeInfo(
            self.source,
            frames,
            frames,
            start,
            self.height,
            self.width,
            round(1 / self.period, 6) if self.period else None,
            self.rotation,
            None if duration is None else round(duration, 6),
            None if duration is None else round(first, 6),
            steps.step if steps else None,
            tuple(start + number for number in steps.shows) if steps and steps.uneven else (),
            warnings,
        )


def episodes(
    film: Film, pictures: Iterable[Timed], fitting: Fitting, fps: float | None = None, split_cuts: bool = True
) -> Stream:
    """The pictures of one source at equal steps, cut into episodes.

    A hard cut, a long pause and time stamps that jump back start a new one.

    Args:
        film: filled in by `pictures` as they come.
        fps: frames per second; by default those of the film.

    Raises:
        ValueError: no frame could be decoded: raised by the stream when it is read to its end.
    """
    shots = marked(pictures) if split_cuts else ((shown, False) for shown in pictures)
    number, start, first, last = 0, 0, 0.0, 0.0
    steps: _Steps | None = None
    for shown, cut in shots:
        time = shown.time if shown.time is not None else last + (film.period or 0.0)
        if steps is not None:
            reason = "a hard cut" if cut else _break(last, time, film.period)
            if reason:
                yield from (fitting.place(picture) for picture in steps.finish())
                film.warnings += steps.said(fps)
                yield film.record(start, number - start, _duration(first, last, film.period), first, steps)
                film.warnings.append(f"starts at {reason}, at {time:.2f} s of the film")
                steps = None
        if steps is None:
            steps, start, first = _Steps(film.period, fps), number, time
        yield from (fitting.place(picture) for picture in steps.add(time, shown.picture))
        number, last = number + 1, time
    if steps is None:
        raise ValueError("; ".join([*film.warnings, "no frame decodes"]))
    yield from (fitting.place(picture) for picture in steps.finish())
    film.warnings += steps.said(fps)
    yield film.record(start, number - start, _duration(first, last, film.period), first, steps)


def _break(last: float, time: float, period: float | None) -> str:
    if period is None:
        return ""
    if time < last - period / 2:
        return "time stamps that jump back"
    if time - last > max(LONGEST_PAUSE_S, LONGEST_PAUSE_STEPS * period):
        return f"the end of a pause of {time - last:.1f} s"
    return ""


def _duration(first: float, last: float, period: float | None) -> float | None:
    return None if period is None else last - first + period


class _Steps:
    """At each step of an even clock, the picture that a player shows then."""

    def __init__(self, shown: float | None, fps: float | None) -> None:
        """
        Args:
            shown: seconds that a picture of the film is shown; without it each is a step.
        """
        self.shown = shown
        self.step = 1 / fps if fps and shown else shown
        # Clocks of cameras jitter: a picture may come late by up to half of what it is shown.
        self.late = min(self.step, shown) / 2 if self.step and shown else 0.0
        self.first: float | None = None
        self.count, self.uses, self.added, self.left_out = 0, 0, 0, 0
        self.held: np.ndarray | None = None
        self.last = 0.0
        self.longest, self.longest_at = 0.0, 0.0
        self.shows = array("i")  # which of the pictures each step shows
        self.pictures = 0

    def add(self, time: float, picture: np.ndarray) -> Iterator[np.ndarray]:
        """The pictures of all steps before `time`, when `picture` begins to show."""
        self.pictures += 1
        if self.step is None:
            self.shows.append(self.pictures - 1)
            yield picture
            return
        if self.first is None:
            self.first = time
        yield from self._until(time, self.pictures - 2)
        if self.held is not None and time - self.last > self.longest:
            self.longest, self.longest_at = time - self.last, self.last
        self.held, self.last, self.uses = picture, time, 0

    def finish(self) -> Iterator[np.ndarray]:
        """The pictures of the steps that are left."""
        if self.held is not None and self.shown is not None:
            yield from self._until(self.last + self.shown, self.pictures - 1)

    @property
    def uneven(self) -> bool:
        """Whether some picture is repeated or left out."""
        return self.shows != array("i", range(len(self.shows)))

    def _until(self, time: float, number: int) -> Iterator[np.ndarray]:
        """Args: number: of the picture that is held."""
        assert self.first is not None
        assert self.step is not None
        while self.held is not None and self.first + self.count * self.step < time - self.late:
            self.shows.append(number)
            yield self.held
            self.count += 1
            self.uses += 1
        if self.held is not None:
            self.added += max(0, self.uses - 1)
            self.left_out += self.uses == 0

    def said(self, fps: float | None) -> list[str]:
        """What there is to say about the clock of the film."""
        if fps or not self.step or not (self.added or self.left_out):
            return []
        return [
            f"frames are not equally spaced in time: resampled to the median rate of {1 / self.step:.4g} frames/s, "
            f"{self.added} frames repeated and {self.left_out} left out; the longest pause, {self.longest:.2f} s, "
            f"is at {self.longest_at:.2f} s"
        ]
