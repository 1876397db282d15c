"""What moves together: embeddings of codes from video statistics, which factors start from.

Looks that turn into each other between two frames belong to one entity. Counting, over all tokens that
changed, which code at `t` meets which code in its 3x3 neighbourhood at `t + 1` gives a co-occurrence
matrix; its positive pointwise mutual information, factorised, is a word embedding of codes (Levy and
Goldberg 2014, "Neural word embedding as implicit matrix factorization"). Entities are its clusters.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.cluster import KMeans


@dataclass(frozen=True)
class CodeStatistics:
    """Statistics of each of V codes in action-free video.

    Attributes:
        frequency: float64 `(V,)`, share of all tokens.
        activity: float64 `(V,)`, share of its tokens that have another code in the next frame.
        becomes: float64 `(V, V)`, changed tokens of code v that have a changed token of code w in
            their 3x3 neighbourhood one frame later; symmetric.
        background: float64 `(N, V)`, how often each token has each code.
    """

    frequency: np.ndarray
    activity: np.ndarray
    becomes: np.ndarray
    background: np.ndarray


def code_statistics(episodes: list[np.ndarray], grid: tuple[int, int], codebook_size: int) -> CodeStatistics:
    """Count over code indices.

    Args:
        episodes: int `(T, N)` codes of each episode, N = rows * columns of `grid`.
    """
    rows, columns = grid
    changed = np.zeros(codebook_size)
    becomes = np.zeros((codebook_size, codebook_size))
    background = np.zeros((rows * columns, codebook_size))
    for codes in episodes:
        np.add.at(background, (np.arange(rows * columns), codes), 1)
        now = codes[:-1].reshape(-1, rows, columns)
        then = codes[1:].reshape(-1, rows, columns)
        moved = now != then
        changed += np.bincount(now[moved], minlength=codebook_size)
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                here = (
                    slice(None),
                    slice(max(0, -dy), rows - max(0, dy)),
                    slice(max(0, -dx), columns - max(0, dx)),
                )
                there = (
                    slice(None),
                    slice(max(0, dy), rows + min(0, dy)),
                    slice(max(0, dx), columns + min(0, dx)),
                )
                both = moved[here] & moved[there]
                np.add.at(becomes, (now[here][both], then[there][both]), 1)
    count = background.sum(0)
    last = sum(np.bincount(codes[-1], minlength=codebook_size) for codes in episodes)
    return CodeStatistics(
        frequency=count / count.sum(),
        activity=changed / np.maximum(count - last, 1),
        becomes=(becomes + becomes.T) / 2,
        background=background / background.sum(1, keepdims=True),
    )


def moving_codes(statistics: CodeStatistics) -> np.ndarray:
    """Which codes show what moves: bool `(V,)`, the more active of two clusters of the activities."""
    activity = statistics.activity
    if not activity.any():
        return np.zeros(len(activity), bool)
    # A code that never moves is among them, of next to no weight, should all others move much. The start lets what is half
    # as active as the most active be nearer to it, whatever the rounding.
    weight = np.append(np.ones(len(activity)), 1e-9)
    start = [[0.0], [0.999 * activity.max()]]
    found = KMeans(2, init=start, n_init=1, tol=0).fit(
        np.append(activity, 0.0)[:, None], sample_weight=weight
    )
    high = found.labels_[:-1] == 1
    arrives_only = (activity == 0) & (statistics.becomes.sum(0) > 0)
    return high | arrives_only


def coherent_keys(
    statistics: CodeStatistics, factors: int, smoothing: float = 0.1, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Keys of codes and queries of factors, from looks that turn into each other.

    Codes that move are clustered into factors; the last query is that of all others, the background.

    Args:
        smoothing: pseudo-count of each pair of codes.

    Returns:
        keys float32 `(V, factors + 1)` and queries float32 `(factors + 1, factors + 1)`, all of length 1.

    Raises:
        ValueError: fewer codes move than there are factors.
    """
    moving = np.flatnonzero(moving_codes(statistics))
    if len(moving) < factors:
        raise ValueError(
            f"{factors} factors asked for, but only {len(moving)} codes move; "
            "give fewer factors, a larger codebook or video in which more moves"
        )
    joint = statistics.becomes[np.ix_(moving, moving)] + smoothing
    joint /= joint.sum()
    margin = joint.sum(0)
    information = np.maximum(np.log(joint / np.outer(margin, margin)), 0)
    values, vectors = np.linalg.eigh(information)
    vectors = np.where(vectors.sum(0) < 0, -vectors, vectors)  # either sign is an eigenvector
    embedding = _unit(vectors[:, -factors:] * np.sqrt(np.maximum(values[-factors:], 0)))
    found = KMeans(factors, n_init=20, random_state=seed).fit(embedding, sample_weight=margin)
    # KMeans numbers clusters by the initialisation that came out best, which rounding may decide; factors are in the order of
    # their first codes.
    order = np.argsort([np.flatnonzero(found.labels_ == cluster)[0] for cluster in range(factors)])
    keys = np.zeros((len(statistics.activity), factors + 1), np.float32)
    keys[:, -1] = 1
    keys[moving, :-1], keys[moving, -1] = embedding, 0
    queries = np.zeros((factors + 1, factors + 1), np.float32)
    queries[-1, -1] = 1
    queries[:-1, :-1] = _unit(found.cluster_centers_[order])
    return keys, queries


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / (np.linalg.norm(rows, axis=1, keepdims=True) + 1e-6)
