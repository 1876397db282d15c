"""One film as a stream of episodes: all that decodes of it, and what is wrong with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .display import Display
from .episodes import Stream, Timed
from .fitting import Fitting
from .steps import Film, episodes

_NO_FILMS = {"tty", "hls", "dash", "concat", "sdp", "imf", "webm_dash_manifest", "image2"}
"""What libavformat takes for video, but is text, a list of other files or a picture."""
_TELLS_ITS_END = ("mov", "matroska", "avi", "flv", "asf")
"""Containers whose header says how long they are; of others libavformat makes an estimate."""
_PATIENCE = 100
"""Errors of the demuxer in a row after which a file is at its end."""
_TOLERANCE_S = 0.1
"""Seconds by which headers round."""
_SOON_S = 2.0
"""Frames between damage and a key frame that comes so soon are not shown: the one before it stands still."""
_HDR = {16: "PQ", 18: "HLG"}


def is_film(path: Path) -> bool:
    """Whether the demuxer finds a video stream in the file.

    Raises:
        ValueError: it cannot open the file, or finds none.
    """
    with _open(path) as container:
        name = container.format.name
        if name in _NO_FILMS or name.endswith("_pipe"):
            return False
        _video(container)
    return True


def read_film(source: str, path: Path, fitting: Fitting, fps: float | None, split_cuts: bool) -> Stream:
    """The episodes of a film; damage is said in their warnings.

    Raises:
        ValueError: the file cannot be opened, or no frame decodes.
    """
    packets = _scan(path)
    film = Film(source, packets.period)
    yield from episodes(film, _decode(film, path, packets, fitting), fitting, fps, split_cuts)


def _open(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise ImportError("reading video files needs PyAV: pip install 'flam_rl[video]'") from error
    try:
        # With its protocol said, no name is taken for a URL, and no list of files leads to the network.
        return av.open(
            f"file:{path.resolve()}", options={"protocol_whitelist": "file"}, metadata_errors="ignore"
        )
    except av.error.FFmpegError as error:
        raise ValueError(error.strerror) from error


def _video(container: Any) -> Any:
    from av.stream import Disposition

    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:  # a song's cover
            return stream
    raise ValueError("no video stream")


@dataclass(frozen=True)
class _Packets:
    """What a file says of its frames before any is decoded.

    Attributes:
        period: seconds from frame to frame, the median where it varies.
        begin: seconds; when the first frame is shown.
        length: seconds from there to the end that the header promises, or to that of the last packet.
        frames: how many there are by the header; 0 where it does not say.
        keys: times of key frames, in order.
    """

    period: float | None
    begin: float
    length: float
    frames: int
    keys: np.ndarray

    def shows_damage(self, time: float, damage: float) -> bool:
        """Whether a frame at `time` is made of what was damaged, with better ones soon to come."""
        later = self.keys[self.keys > damage]
        return len(later) > 0 and damage <= time < later[0] <= damage + _SOON_S


def _scan(path: Path) -> _Packets:
    with _open(path) as container:
        video = _video(container)
        stamps, keys, ends = [], [], []
        all_begin, all_end = math.inf, -math.inf
        for packet in _demux(container, None, lambda error: None):
            stamp = packet.pts if packet.pts is not None else packet.dts
            if stamp is None or packet.time_base is None or packet.is_discard:
                continue
            time = float(stamp * packet.time_base)
            end = time + float((packet.duration or 0) * packet.time_base)
            all_begin, all_end = min(all_begin, time), max(all_end, end)
            if packet.stream_index == video.index:
                stamps.append(time)
                ends.append(end)
                if packet.is_keyframe:
                    keys.append(time)
        period = _period(np.sort(stamps), video)
        begin = min(stamps, default=0.0)
        length = max(ends, default=0.0) - begin
        if container.format.name.startswith(_TELLS_ITS_END):
            if video.duration is not None:
                length = max(length, float(video.duration * video.time_base))
            elif container.duration and container.duration / 1e6 > all_end - all_begin + _TOLERANCE_S:
                length = max(length, container.duration / 1e6 - (begin - all_begin))
            if container.format.name == "avi" and period:  # its duration is what was found of the frames
                length = max(length, video.frames * period)
        return _Packets(period, begin, length, video.frames, np.sort(keys))


def _period(stamps: np.ndarray, video: Any) -> float | None:
    gaps = np.diff(stamps)
    gaps = gaps[gaps > 0]
    if not len(gaps):
        rate = video.average_rate or video.guessed_rate
        return float(1 / rate) if rate else None
    off = np.abs(gaps - np.median(gaps))
    regular = off <= max(0.05 * np.median(gaps), 0.0015)  # time stamps may be whole milliseconds
    if regular.mean() < 0.5:  # a clock that jitters
        regular = off <= 0.5 * np.median(gaps)
    return float(gaps[regular].mean())


def _demux(container: Any, stream: Any, on_error: Callable[[Any], None]) -> Iterator[Any]:
    """All packets that can be found, also behind damage."""
    import av

    errors = 0
    while errors < _PATIENCE:
        try:
            for packet in container.demux(*([stream] if stream else [])):
                errors = 0
                yield packet
            return
        except av.error.FFmpegError as error:
            on_error(error)
            errors += 1


def _decode(film: Film, path: Path, packets: _Packets, fitting: Fitting) -> Iterator[Timed]:
    with _open(path) as container:
        stream = _video(container)
        display, damage = Display(stream, fitting), _Damage(film)
        count, last = 0, 0.0
        good: np.ndarray | None = None
        for frame in _frames(container, stream, damage):
            if not count and frame.color_trc in _HDR:
                film.warnings.append(f"{_HDR[frame.color_trc]} (HDR) colours are shown without tone mapping")
            count, last = count + 1, frame.time if frame.time is not None else last
            if frame.is_corrupt:
                damage.add(last, "a frame shows it")
            else:
                damage.passed(last)
            shows_damage = frame.is_corrupt or packets.shows_damage(last, damage.latest)
            for time, picture in display.show(frame):
                film.height, film.width, film.rotation = display.height, display.width, display.rotation
                if shows_damage and good is not None:
                    yield Timed(time, good)
                else:
                    good = picture
                    yield Timed(time, picture)
        for time, picture in display.finish():
            yield Timed(time, picture)
        damage.report()
        period = film.period or 0.0
        missing = packets.begin + packets.length - (last + period)
        whole = 0 < packets.frames <= count  # then the last frame is only shown for longer
        if missing > max(1.5 * period, _TOLERANCE_S) and not whole:
            expected = packets.frames or (count + round(missing / period) if period else 0)
            film.warnings.append(
                f"cut short: {count}{f' of {expected}' if expected else ''} frames decode; "
                f"the end is missing after {last + period:.2f} s"
            )


def _frames(container: Any, stream: Any, damage: _Damage) -> Iterator[Any]:
    import av

    for packet in _demux(container, stream, lambda error: damage.add(None, error.strerror)):
        try:
            yield from packet.decode()
        except av.error.FFmpegError as error:
            damage.add(None if packet.pts is None else float(packet.pts * packet.time_base), error.strerror)


class _Damage:
    """Errors that lie together make one warning, of the episode where they are."""

    TOGETHER_S = 1.0

    def __init__(self, film: Film) -> None:
        self.film = film
        self.times: list[float] = []
        self.reasons: list[str] = []
        self.latest = -math.inf
        self._passed = 0.0

    def add(self, time: float | None, reason: str | None) -> None:
        """Args: time: by default that of the last good frame."""
        self.latest = self._passed if time is None else time
        self.times.append(self.latest)
        self.reasons.append(reason or "unknown error")

    def passed(self, time: float) -> None:
        """A good frame."""
        self._passed = time
        if self.times and time > max(self.times) + self.TOGETHER_S:
            self.report()

    def report(self) -> None:
        """Say what was found since the last time."""
        if self.times:
            first, last = min(self.times), max(self.times)
            where = f"at {first:.2f} s" if last - first < 0.01 else f"from {first:.2f} to {last:.2f} s"
            reasons = "; ".join(f"{r} ({self.reasons.count(r)} times)" for r in dict.fromkeys(self.reasons))
            self.film.warnings.append(f"damaged {where}, what decodes around it is kept: {reasons}")
        self.times, self.reasons = [], []
