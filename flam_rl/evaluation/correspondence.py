"""Which factor is which entity: probes from factors and latent actions to entities' effective actions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from ..core.threads import lone_threads, one_core
from ..core.world import World
from ..progress import progress
from ..types import Video

WIDEST = 128
"""Numbers of a factor that a probe sees: of a wider one, a whole scene's, so many principal components."""
NOTHING, LEFT, RIGHT, WALKED = range(4)


def effective_actions(position: np.ndarray, direction: np.ndarray) -> np.ndarray:
    """What entities' actions did: 0 nothing, 1 turned left, 2 turned right, 3 walked.

    Args:
        position: int `(T + 1, entities, 2)`. direction: int `(T + 1, entities)` in 0..3, clockwise.

    Returns:
        int `(T, entities)`; an action that changed nothing, as walking into a wall, counts as nothing.
    """
    walked = (position[1:] != position[:-1]).any(-1)
    turned = (direction[1:] - direction[:-1]) % 4
    return np.select([walked, turned == 3, turned == 1], [WALKED, LEFT, RIGHT], NOTHING)


@dataclass(frozen=True)
class Correspondence:
    """How much each factor tells of each entity.

    Attributes:
        matrix: float `(K, entities)`, `(accuracy - majority) / (1 - majority)` where that is more than two
            standard errors of the majority's share above zero, else 0: noise in a row is no entanglement, and a
            lone speck of it is no disentanglement.
        disentanglement, completeness, informativeness: of `dci`.
    """

    matrix: np.ndarray
    disentanglement: float
    completeness: float
    informativeness: float

    def scores(self) -> dict[str, Any]:
        """The three numbers."""
        names = ("disentanglement", "completeness", "informativeness")
        return {name: getattr(self, name) for name in names}


def dci(matrix: np.ndarray) -> Correspondence:
    """Disentanglement, completeness and informativeness (Eastwood and Williams 2018) of a gain matrix.

    Disentanglement is 1 - the entropy of a row, normalised by the log of its length, weighted by the row's
    mass; completeness the same of columns; informativeness the mean over entities of the best factor.
    """
    return Correspondence(matrix, _one_to_one(matrix), _one_to_one(matrix.T), float(matrix.max(0).mean()))


def _one_to_one(matrix: np.ndarray) -> float:
    mass = matrix.sum(1)
    if mass.sum() <= 0 or matrix.shape[1] < 2:
        return 0.0
    share = matrix / np.maximum(mass, 1e-12)[:, None]
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(1) / np.log(matrix.shape[1])
    return float(((1 - entropy) * mass).sum() / mass.sum())


def training_episodes(count: int, seed: int) -> np.ndarray:
    """Which of `count` episodes probes are trained on, three quarters of them; they are tested on the others.

    Raises:
        ValueError: fewer than 4 episodes.
    """
    if count < 4:
        raise ValueError(f"probes need 4 episodes or more; given {count}")
    return np.random.default_rng(seed).permutation(count)[: round(0.75 * count)]


def probe_gain(x: np.ndarray, y: np.ndarray, train: np.ndarray, iterations: int, seed: int) -> float:
    """How far a gradient-boosted probe is above the majority, of what there is to gain: at most 1, that of `Correspondence`.

    Args:
        x: float `(n, features)`. y: int `(n,)`. train: bool `(n,)`, False for the test.
        iterations: boosting rounds.
    """
    known = np.bincount(y[train])
    majority = float((y[~train] == known.argmax()).mean())
    if np.count_nonzero(known) < 2:
        return 0.0
    with threadpool_limits(1, "openmp"):
        probe = HistGradientBoostingClassifier(max_iter=iterations, random_state=seed).fit(x[train], y[train])
        gain = probe.score(x[~train], y[~train]) - majority
    chance = 2 * (majority * (1 - majority) / (~train).sum()) ** 0.5
    return float(gain / (1 - majority)) if gain > chance else 0.0


def evaluate_correspondence(
    world: World,
    video: Video,
    entities: list[dict[str, np.ndarray]],
    latent: bool = True,
    iterations: int = 40,
    seed: int = 0,
) -> Correspondence:
    """Gradient-boosted probes, trained on three quarters of the episodes and tested on the others.

    Args:
        entities: of each episode, `position` and `direction` as `effective_actions` takes them.
        latent: probe from factor and latent action; else from the factor alone, the control.
        iterations: boosting rounds.

    Raises:
        ValueError: fewer than 4 episodes.
    """
    training = training_episodes(len(video.episodes), seed)
    seen, acted, targets, episode = [], [], [], []
    with one_core(), torch.inference_mode():
        for index, (frames, truth) in enumerate(zip(video.episodes, entities, strict=True)):
            factors = world.factorize(world.encode_episode(frames, truth)[None])
            seen.append(factors[0, :-1].cpu().numpy())
            acted.append(world.of_factors(world.infer_actions(factors).mean)[0].cpu().numpy())
            targets.append(effective_actions(truth["position"], truth["direction"]))
            episode.append(np.full(len(frames) - 1, index))
    x, y, of = np.concatenate(seen), np.concatenate(targets), np.concatenate(episode)
    train = np.isin(of, training)
    if x.shape[-1] > WIDEST:
        x = np.stack(
            [
                PCA(min(WIDEST, int(train.sum())), random_state=seed).fit(x[train, i]).transform(x[:, i])
                for i in range(x.shape[1])
            ],
            1,
        )
    if latent:
        x = np.concatenate([x, np.concatenate(acted)], -1)
    matrix = np.zeros((x.shape[1], y.shape[1]))
    with progress(total=matrix.size, desc="probes", unit="probe") as bar:

        def fit(pair: tuple[int, int]) -> None:
            i, j = pair
            matrix[i, j] = probe_gain(x[:, i], y[:, j], train, iterations, seed)
            bar.update()

        lone_threads().map(fit, list(np.ndindex(matrix.shape)))
    return dci(matrix)
