"""Which factor is which entity: probes from factors and latent actions to entities' effective actions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from ..core.threads import lone_threads
from ..progress import progress
from ..types import Json, Truth
from .encoded import Encoded, left_out
from .truth import chosen_actions

WIDEST = 128
"""How many numbers of a factor a probe sees; a wider factor (that of a whole scene) is reduced to as many principal
components."""


@dataclass(frozen=True)
class Correspondence:
    """How well the action of each entity is predicted from each factor.

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

    def scores(self) -> Json:
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


FEWEST = 4
"""Episodes that probes need: test episodes differ from training episodes."""


def training_episodes(count: int, seed: int) -> np.ndarray:
    """Indices of the three quarters of `count` episodes that probes are trained on; the others are for the test.

    Raises:
        ValueError: fewer than 4 episodes.
    """
    if count < FEWEST:
        raise ValueError(f"probes need {FEWEST} episodes or more; given {count}")
    return np.random.default_rng(seed).permutation(count)[: round(0.75 * count)]


def probe_gain(x: np.ndarray, y: np.ndarray, train: np.ndarray, iterations: int, seed: int) -> float:
    """Accuracy of a gradient-boosted probe above that of guessing the majority, as a share of what can be gained: 1
    at most, scaled as in `Correspondence`.

    Args:
        x: float `(n, features)`. y: int `(n,)`. train: bool `(n,)`, False for the test.
        iterations: boosting rounds.
    """
    if train.all() or not train.any():
        return 0.0
    known = np.bincount(y[train])
    majority = float((y[~train] == known.argmax()).mean())
    if np.count_nonzero(known) < 2:
        return 0.0
    with threadpool_limits(1, "openmp"):
        probe = HistGradientBoostingClassifier(max_iter=iterations, random_state=seed).fit(x[train], y[train])
        gain = probe.score(x[~train], y[~train]) - majority
    chance = 2 * (majority * (1 - majority) / (~train).sum()) ** 0.5
    return float(gain / (1 - majority)) if gain > chance else 0.0


def measure(
    encoded: Encoded,
    truth: Sequence[Truth] | None,
    latent: bool = True,
    iterations: int = 40,
    seed: int = 0,
) -> Json | None:
    """As `correspond`; None unless there are 4 episodes, and truth whose entities, like the model's factors, are the
    same in all episodes.

    Returns:
        `disentanglement`, `completeness`, `informativeness`; `floors`: `chance`, which is 0 in all of them by definition;
        `matrix`, as lists.
    """
    reason = _lacking(encoded, truth)
    if reason:
        left_out("dci", reason)
        return None
    assert truth is not None
    found = correspond(encoded, truth, latent, iterations, seed)
    scores = found.scores()
    floors = {"chance": dict.fromkeys(scores, 0.0)}
    return scores | {"floors": floors, "matrix": found.matrix.tolist()}


def _lacking(encoded: Encoded, truth: Sequence[Truth] | None) -> str:
    if truth is None or any(chosen_actions(one) is None for one in truth):
        return "there is no truth of what entities do"
    if not encoded.world.model.fixed_entities:
        return "a factor follows other entities in other episodes; disentanglement matches them"
    if len(encoded.frames) < FEWEST:
        return f"probes need {FEWEST} episodes or more; given {len(encoded.frames)}"
    everyone = truth[0].identity
    alike = everyone is not None and all(
        one.identity is not None
        and one.identity.shape[1:] == everyone.shape[1:]
        and (one.identity == everyone[0]).all()
        for one in truth
    )
    return "" if alike else "entities are not the same in all episodes: see disentanglement"


def correspond(
    encoded: Encoded, truth: Sequence[Truth], latent: bool = True, iterations: int = 40, seed: int = 0
) -> Correspondence:
    """Gradient-boosted probes from factors to what entities do, trained on three quarters of the episodes and tested on
    the others.

    Args:
        truth: of each episode; the entities are the same in all of them, and always present.
        latent: whether probes see the factor and its latent action, or (as the control) the factor alone.
        iterations: boosting rounds.

    Raises:
        ValueError: fewer than 4 episodes.
    """
    training = training_episodes(len(encoded.frames), seed)
    lengths = [len(frames) - 1 for frames in encoded.frames]
    x = torch.cat([scene.factors[:-1] for scene in encoded.scenes]).cpu().numpy()
    acted = torch.cat([encoded.actions_per_factor(index) for index in range(len(lengths))]).cpu().numpy()
    y = np.concatenate([chosen_actions(one) for one in truth])
    train = np.isin(np.repeat(np.arange(len(lengths)), lengths), training)
    if x.shape[-1] > WIDEST:
        x = np.stack(
            [
                PCA(min(WIDEST, int(train.sum())), random_state=seed).fit(x[train, i]).transform(x[:, i])
                for i in range(x.shape[1])
            ],
            1,
        )
    if latent:
        x = np.concatenate([x, acted], -1)
    matrix = np.zeros((x.shape[1], y.shape[1]))
    with progress(total=matrix.size, desc="probes", unit="probe") as bar:

        def fit(pair: tuple[int, int]) -> None:
            i, j = pair
            known = y[:, j] >= 0
            matrix[i, j] = probe_gain(x[known, i], y[known, j], train[known], iterations, seed)
            bar.update()

        lone_threads().map(fit, list(np.ndindex(matrix.shape)))
    return dci(matrix)
