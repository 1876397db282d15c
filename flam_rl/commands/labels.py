"""The label budget of `flam-rl train`: found and checked before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import gymnasium as gym
import numpy as np

from ..actions import ActionSpace
from ..data.hold_out import Split
from ..data.labels import FilmLabels, Placed, place, space_of
from ..data.minari import read_labels
from ..data.reading import Reading
from ..grounding.adapter_fitting import check_labels
from ..types import Episode, LabelledTransitions


def film_actions(labels: Mapping[str, FilmLabels], task: gym.Env | None) -> ActionSpace:
    """The actions of labelled films: those of the task, or what the labels look like.

    Raises:
        ValueError: the labels are of actions that the task has not, or there are none.
    """
    seen = space_of(list(labels.values()))
    if task is None:
        return seen
    space = ActionSpace.from_gym(task.action_space)
    for one in labels.values():
        taken = one.action[~np.isnan(one.action).any(1)]
        if taken.shape[1] and taken.shape[1] != space.size:
            raise ValueError(f"{one.path}: actions are of {taken.shape[1]} numbers; the task's are {space}")
        try:
            if taken.shape[1]:
                space.checked(taken.reshape(-1, *space.shape))
        except ValueError as error:
            raise ValueError(f"{one.path}: {error}") from error
    return space


def placed_labels(
    reading: Reading, labels: Mapping[str, FilmLabels]
) -> tuple[list[Placed | None], dict[str, tuple[int, int]]]:
    """Labels at the transitions of each episode, and of each labelled film how many rows there are and how many of them
    are at none.

    Raises:
        ValueError: a row is of a frame that its film has not, or two are of one.
    """
    placed: list[Placed | None] = [None] * len(reading.episodes)
    counts: dict[str, tuple[int, int]] = {}
    whole = sum(info.kept for info in reading.episodes) < reading.config.max_frames
    for name, film in labels.items():
        its = [number for number, info in enumerate(reading.episodes) if info.source == name]
        found, dropped = place(
            film, [reading.episodes[number] for number in its], reading.config.stride, whole
        )
        for number, one in zip(its, found, strict=True):
            placed[number] = one
        counts[name] = len(film), dropped
    return placed, counts


def label_budget(
    reading: Reading,
    split: Split,
    labels: Mapping[str, FilmLabels],
    actions: ActionSpace,
    budget: int,
    data: Path,
) -> LabelledTransitions:
    """The first `budget` labels of training episodes, never of held-out frames, with the frames that are trained on.

    Raises:
        ValueError: there are fewer, or they tell nothing; or as `placed_labels`.
    """
    if reading.dataset is not None:
        if reading.config.stride > 1:
            raise ValueError(
                f"files.stride is {reading.config.stride}, but labels are of single steps; give --labels 0 or a stride "
                "of 1"
            )
        found = _of_dataset(reading, split)
    else:
        found = _of_films(split, placed_labels(reading, labels)[0], actions)
    parts = list(found)
    count = sum(int(known.any(1).sum()) for _, known in parts)
    if count < budget:
        raise ValueError(
            f"label budget is {budget}, but the training episodes of {data} hold only {count} labelled transitions; "
            "give fewer --labels or record more"
        )
    labelled = LabelledTransitions.from_episodes(
        (episode for episode, _ in parts), budget, actions, (known for _, known in parts)
    )
    check_labels(labelled)
    return labelled


def _of_dataset(reading: Reading, split: Split) -> Iterator[tuple[Episode, np.ndarray]]:
    assert reading.dataset is not None
    numbers = reading.numbers
    labels = read_labels(reading.dataset, (numbers[piece.episode] for piece in split.pieces))
    pieces = zip(split.training.episodes, split.pieces, labels, strict=True)
    for frames, piece, (actions, rewards, ends) in pieces:
        if n := len(frames) - 1:
            taken, came, ended = (piece.select(values)[:n] for values in (actions, rewards, ends))
            yield Episode(frames, taken, came, ended, {}, -1), np.ones((n, 3), bool)


def _of_films(
    split: Split, placed: list[Placed | None], actions: ActionSpace
) -> Iterator[tuple[Episode, np.ndarray]]:
    nowhere = np.array([0.0 if low is None else low for low in actions.low] or actions.start)
    for frames, piece in zip(split.training.episodes, split.pieces, strict=True):
        labels, n = placed[piece.episode], len(frames) - 1
        if labels is None or not n:
            continue
        known = piece.select(labels.known)[:n]
        taken = np.tile(nowhere, (n, 1))
        if labels.action.shape[1]:
            taken = np.where(known[:, :1], piece.select(labels.action)[:n], taken)
        taken = taken.reshape(n, *actions.shape)
        yield (
            Episode(frames, taken, piece.select(labels.reward)[:n], piece.select(labels.done)[:n], {}, -1),
            known,
        )
