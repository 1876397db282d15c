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
    """What action-free video says of each of V codes.

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


def coherent_keys(
    statistics: CodeStatistics, factors: int, smoothing: float = 5.0, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Unit keys of codes and unit queries of factors, from looks that turn into each other.

    There is one more query than factors, the last: the background, the cluster whose tokens change least.

    Args:
        smoothing: pseudo-count spread over each row of the co-occurrence matrix.

    Returns:
        keys float32 `(V, factors)` and queries float32 `(factors + 1, factors)`: a spectral embedding has
        one dimension fewer than clusters to tell apart.
    """
    counts = statistics.becomes + smoothing * statistics.activity.mean() / len(statistics.activity)
    joint = counts / counts.sum()
    margin = joint.sum(0)
    information = np.maximum(np.log(joint / np.outer(margin, margin)), 0)
    values, vectors = np.linalg.eigh(information)
    keys = vectors[:, -factors:] * np.sqrt(np.maximum(values[-factors:], 0))
    keys /= np.linalg.norm(keys, axis=1, keepdims=True) + 1e-6
    weight = statistics.becomes.sum(0) + 1e-9
    found = KMeans(factors + 1, n_init=20, random_state=seed).fit(keys, sample_weight=weight)
    queries = found.cluster_centers_ / (np.linalg.norm(found.cluster_centers_, axis=1, keepdims=True) + 1e-6)
    mass = statistics.frequency * statistics.activity
    activity = np.bincount(found.labels_, mass * statistics.activity, factors + 1)
    activity /= np.maximum(np.bincount(found.labels_, mass, factors + 1), 1e-12)
    queries = queries[np.argsort(-activity, kind="stable")]
    keys[statistics.becomes.sum(0) == 0] = queries[-1]
    return keys.astype(np.float32), queries.astype(np.float32)
