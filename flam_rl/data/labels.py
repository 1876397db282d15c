"""Labels of one's own films: `film.csv` or `film.npz` beside `film.mp4`; docs/labels.md says what its columns mean."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..actions import ActionSpace
from .episodes import EpisodeInfo
from .index import find_sources

COLUMNS = "frame or time_s, action (or action_0, action_1, ...), reward, done"
ENDINGS = (".csv", ".npz")
_TRUTHS = {"true": 1.0, "false": 0.0, "": np.nan}


@dataclass(frozen=True)
class FilmLabels:
    """What a label file says, a row a labelled frame; NaN where it says nothing.

    Attributes:
        frame: int64 `(n,)`, numbers of decodable frames; or
        time_s: float `(n,)`, seconds on the film's clock. The other one is None.
        action: float `(n, numbers)`; numbers is 0 without the column. `single` is whether the column is `action`.
        reward, done: float `(n,)`.
    """

    path: Path
    frame: np.ndarray | None
    time_s: np.ndarray | None
    action: np.ndarray
    single: bool
    reward: np.ndarray
    done: np.ndarray

    def __len__(self) -> int:
        return len(self.reward)


class Placed(NamedTuple):
    """Labels at the transitions of one episode as it was read.

    Attributes:
        action: float `(T, numbers)`; reward float32 `(T,)`; done bool `(T,)`.
        known: bool `(T, 3)`, which of action, reward and done are labels.
    """

    action: np.ndarray
    reward: np.ndarray
    done: np.ndarray
    known: np.ndarray


def find_labels(data: Path, but: Path | None = None) -> dict[str, FilmLabels]:
    """The labels beside films and animated pictures at `data`, by the name of the film.

    Args:
        but: a folder to leave out, as of `find_sources`.

    Raises:
        ValueError: a label file is damaged or means nothing, or a film has two of them, or two films have one.
    """
    found: dict[str, FilmLabels] = {}
    owners: dict[Path, str] = {}
    for source in find_sources(data, but).sources:
        files = [path for ending in ENDINGS if (path := source.files[0].with_suffix(ending)).is_file()]
        if source.kind == "pictures" or not files:
            continue
        if len(files) > 1:
            raise ValueError(f"{source.name} has labels in {files[0].name} and in {files[1].name}; keep one")
        if files[0] in owners:
            raise ValueError(
                f"{files[0]} is beside {owners[files[0]]} and {source.name}; rename one of the films"
            )
        owners[files[0]] = source.name
        found[source.name] = read_labels(files[0])
    return found


def read_labels(path: Path) -> FilmLabels:
    """
    Raises:
        ValueError: a column is unknown, missing or there twice, a value is no number, or there are no rows.
    """
    columns = _npz(path) if path.suffix == ".npz" else _csv(path)
    actions = sorted(
        (name for name in columns if re.fullmatch(r"action_\d+", name)), key=lambda n: int(n[7:])
    )
    allowed = {"frame", "time_s", "action", "reward", "done", *actions}
    if unknown := [name for name in columns if name not in allowed]:
        raise ValueError(f"{path}: column {unknown[0]!r} is unknown; allowed are {COLUMNS}")
    if ("frame" in columns) == ("time_s" in columns):
        given = "both frame and time_s" if "frame" in columns else "neither frame nor time_s"
        raise ValueError(f"{path}: {given} is there; give one of them, to say which frame a row is of")
    if actions and ("action" in columns or [int(name[7:]) for name in actions] != list(range(len(actions)))):
        raise ValueError(
            f"{path}: columns of actions are {actions}; allowed is action alone, or action_0, action_1, ..."
        )
    if not columns.keys() - {"frame", "time_s"}:
        raise ValueError(f"{path}: it labels nothing; columns are {COLUMNS}")
    count = len(next(iter(columns.values())))
    if not count:
        raise ValueError(f"{path}: there are no rows")
    nothing = np.full(count, np.nan)
    when = columns.get("frame", columns.get("time_s", nothing))
    if not np.isfinite(when).all():
        raise ValueError(f"{path}: {_row(when, ~np.isfinite(when))} does not say which frame it is of")
    if "frame" in columns and ((when < 0) | (when != when.round())).any():
        wrong = (when < 0) | (when != when.round())
        raise ValueError(
            f"{path}: {_row(when, wrong)} is of frame {when[wrong][0]:g}; frames are counted from 0"
        )
    single = "action" in columns
    action = (
        columns["action"]
        if single
        else np.stack([columns[name] for name in actions], 1)
        if actions
        else nothing[:, None][:, :0]
    )
    action = action.reshape(count, -1)
    partly = np.isnan(action).any(1) & ~np.isnan(action).all(1)
    if partly.any():
        raise ValueError(f"{path}: {_row(when, partly)} has only a part of its action")
    done = columns.get("done", nothing)
    odd = ~np.isnan(done) & (done != 0) & (done != 1)
    if odd.any():
        raise ValueError(f"{path}: done is {done[odd][0]:g} in {_row(when, odd)}; allowed are 0 and 1")
    frame = when.astype(np.int64) if "frame" in columns else None
    return FilmLabels(
        path, frame, None if frame is not None else when, action, single, columns.get("reward", nothing), done
    )


def _row(when: np.ndarray, wrong: np.ndarray) -> str:
    return f"row {int(np.flatnonzero(wrong)[0]) + 1}"


def _csv(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = [row for row in csv.reader(file, strict=True) if row]
    except (OSError, UnicodeError, csv.Error) as error:
        raise ValueError(f"{path}: no table of comma-separated values ({error})") from error
    names = [name.strip() for name in rows[0]] if rows else []
    if len(set(names)) < len(names) or not names:
        raise ValueError(f"{path}: columns are {names}; allowed are {COLUMNS}, each once, in the first line")
    values = np.empty((len(rows) - 1, len(names)))
    for number, row in enumerate(rows[1:]):
        if len(row) != len(names):
            raise ValueError(f"{path}: row {number + 1} has {len(row)} values for {len(names)} columns")
        for column, text in enumerate(row):
            values[number, column] = _number(text, f"{path}: {names[column]} is {text!r} in row {number + 1}")
    return dict(zip(names, values.T, strict=True))


def _number(text: str, what: str) -> float:
    word = text.strip().lower()
    try:
        value = _TRUTHS[word] if word in _TRUTHS else float(word)
    except ValueError:
        value = np.inf
    if np.isinf(value) or (word and np.isnan(value)):
        raise ValueError(f"{what}; allowed are finite numbers, and nothing where it is not known")
    return value


def _npz(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: no npz file of numbers ({error})") from error
    columns: dict[str, np.ndarray] = {}
    for name, array in arrays.items():
        vector = name == "action" and array.ndim == 2
        if (
            array.dtype.kind not in "biuf"
            or not (array.ndim == 1 or vector)
            or (vector and not array.shape[1])
        ):
            raise ValueError(
                f"{path}: {name} is {array.dtype} {array.shape}; allowed are numbers (rows,), action also (rows, n)"
            )
        values = array.astype(np.float64)
        if np.isinf(values).any():
            raise ValueError(
                f"{path}: {name} is infinite in a row; allowed are finite numbers, and NaN where it is not known"
            )
        columns |= {f"action_{i}": values[:, i] for i in range(array.shape[1])} if vector else {name: values}
    if len({len(values) for values in columns.values()}) > 1:
        counts = {name: len(values) for name, values in columns.items()}
        raise ValueError(f"{path}: columns are of different lengths, {counts}")
    return columns


def space_of(labels: Sequence[FilmLabels]) -> ActionSpace:
    """The actions of a film whose task nobody named: whole numbers from 0 to the largest seen, or a box of what was seen.

    Raises:
        ValueError: films have actions of different kinds, or there are none.
    """
    acting = [one for one in labels if one.action.shape[1]]
    kinds = {(one.single, one.action.shape[1]) for one in acting}
    if len(kinds) != 1:
        found = (
            f"films have actions of {sorted(n for _, n in kinds)} numbers"
            if kinds
            else "no film has an action column"
        )
        raise ValueError(f"{found}; labels need actions, alike in all films: --labels 0 trains without")
    single, size = kinds.pop()
    taken = np.concatenate([one.action for one in acting])
    taken = taken[~np.isnan(taken).any(1)]
    if not len(taken):
        raise ValueError("no row of a film has an action; --labels 0 trains without")
    shape = () if single else (size,)
    low, high = taken.min(0), taken.max(0)
    if (taken != taken.round()).any():
        return ActionSpace("box", shape, low=tuple(low.tolist()), high=tuple(high.tolist()))
    start = np.minimum(low, 0)
    return ActionSpace(
        "discrete", shape, tuple((high - start + 1).astype(int).tolist()), tuple(start.astype(int).tolist())
    )


def place(
    labels: FilmLabels, episodes: Sequence[EpisodeInfo], stride: int, whole: bool
) -> tuple[list[Placed], int]:
    """Labels at the transitions of the episodes of their film, and how many rows have none.

    A row is of the transition from its frame to the next one that was kept. The rewards of frames between the two are
    added, and any of them may be the end; their actions have no transition. Nothing follows an end: the row of the frame
    at which one was reached is left out.

    Args:
        episodes: all that were read of the film. stride: that it was read with. whole: whether it was read to its end.

    Raises:
        ValueError: two rows are of one frame, or a row is of none, or of a time where the film has no clock.
    """
    placed, used = [], np.zeros(len(labels), bool)
    inside = np.zeros(len(labels), bool)
    numbers = np.full(len(labels), -1)
    for info in episodes:
        number, at, exact = _positions(labels, info, stride)
        its = (number >= info.start_frame) & (number < info.start_frame + info.frames) & ~inside
        inside |= its
        numbers[its] = number[its]
        its &= at < info.kept - 1
        placed.append(_placed(labels, np.flatnonzero(its), at, exact, info.kept - 1, used))
    _check_frames(labels, episodes, numbers, inside, whole)
    return placed, int((~used).sum())


def _positions(
    labels: FilmLabels, info: EpisodeInfo, stride: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each row the number of its frame, the kept frame of this episode that it belongs to, and whether it is that one."""
    if labels.time_s is not None:
        if info.fps is None or info.start_s is None or info.step_s is None:
            raise ValueError(f"{labels.path}: {info.source} has no clock for time_s; give frame")
        index = np.floor((labels.time_s - info.start_s) * info.fps + 0.5)
        steps = index / info.fps / (info.step_s * stride)
        at = np.floor(steps + 1e-6)
        exact = (steps - at) * info.step_s * stride < 0.5 / info.fps
        return info.start_frame + index.astype(np.int64), at.astype(np.int64), exact
    assert labels.frame is not None
    kept = np.array(info.numbers) if info.numbers else info.start_frame + stride * np.arange(info.kept)
    at = np.searchsorted(kept, labels.frame, "right") - 1
    return labels.frame, at, kept[at] == labels.frame


def _placed(
    labels: FilmLabels,
    rows: np.ndarray,
    at: np.ndarray,
    exact: np.ndarray,
    transitions: int,
    used: np.ndarray,
) -> Placed:
    action = np.zeros((transitions, labels.action.shape[1]))
    reward, done = np.zeros(transitions, np.float32), np.zeros(transitions, bool)
    known = np.zeros((transitions, 3), bool)
    first = rows[exact[rows]]
    has_action = first[~np.isnan(labels.action[first]).any(1)] if labels.action.shape[1] else first[:0]
    action[at[has_action]] = labels.action[has_action]
    known[at[has_action], 0] = True
    for label, values in ((1, labels.reward), (2, labels.done)):
        known[at[first[~np.isnan(values[first])]], label] = True
    np.add.at(reward, at[rows], np.nan_to_num(labels.reward[rows]).astype(np.float32))
    np.logical_or.at(done, at[rows], np.nan_to_num(labels.done[rows]) > 0)
    known[1:][done[:-1] & known[:-1, 2]] = False
    used[first] = known[at[first]].any(1)
    return Placed(action, reward, done, known)


def _check_frames(
    labels: FilmLabels, episodes: Sequence[EpisodeInfo], numbers: np.ndarray, inside: np.ndarray, whole: bool
) -> None:
    """
    Raises:
        ValueError: two rows are of one frame, or a row is of none.
    """
    if labels.frame is not None:
        numbers, end = labels.frame, max((info.start_frame + info.frames for info in episodes), default=0)
        beyond = (labels.frame >= end) & whole & bool(episodes)
        said = f"has frames 0 to {end - 1}"
        value: np.ndarray = labels.frame
    else:
        assert labels.time_s is not None
        ends = [(info.start_s or 0.0, (info.start_s or 0.0) + (info.duration_s or 0.0)) for info in episodes]
        first, last = min((a for a, _ in ends), default=0.0), max((b for _, b in ends), default=0.0)
        beyond = ~inside & ((labels.time_s < first) | ((labels.time_s >= last) & whole)) & bool(episodes)
        said, value = f"is shown from {first:.6g} to {last:.6g} s", labels.time_s
    if beyond.any():
        where = np.flatnonzero(beyond)[0]
        raise ValueError(
            f"{labels.path}: row {where + 1} is of {'frame' if labels.frame is not None else 'time_s'} "
            f"{value[where]:g}; {episodes[0].source} {said}"
        )
    found = np.flatnonzero(inside) if labels.frame is None else np.arange(len(numbers))
    _, firsts, counts = np.unique(numbers[found], return_index=True, return_counts=True)
    if (counts > 1).any():
        number = numbers[found][firsts[counts > 1][0]]
        rows = found[numbers[found] == number][:2] + 1
        raise ValueError(
            f"{labels.path}: rows {rows[0]} and {rows[1]} are both of frame {number}; give one a frame"
        )
