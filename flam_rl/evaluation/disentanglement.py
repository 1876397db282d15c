"""DCI where entities look alike: a factor's latent action should predict its own entity's action, and no other's."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..types import Entities, Json, Truth
from .correspondence import FEWEST, dci, probe_gain, training_episodes
from .encoded import Encoded, left_out
from .matching import by_identity, in_contact, match_clip
from .truth import chosen_actions, true_entities


def measure(
    encoded: Encoded, truth: Sequence[Truth] | None, iterations: int = 40, seed: int = 0
) -> Json | None:
    """Apply `evaluate_disentanglement` to the world's encoding of each episode.

    Steps with contact in the truth, and steps of entities that are near each other, are left out.

    Returns:
        None where truth lacks the entities' boxes or chosen actions, or the world has no entities.
    """
    reason, true = _lacking(encoded, truth)
    if reason:
        left_out("disentanglement", reason)
        return None
    assert truth is not None
    chosen = []
    for one in truth:
        acted = chosen_actions(one)
        assert acted is not None
        assert one.identity is not None
        assert one.presence is not None
        # No chosen action led to the first frame.
        whole = np.concatenate(
            [np.full_like(acted[:1], -1) if len(acted) else np.full((1, one.identity.shape[1]), -1), acted]
        )
        there = np.where(one.presence, one.identity, -1)
        chosen.append(by_identity(whole, there, -1))
    found = evaluate_disentanglement(
        true,
        chosen,
        encoded.entities,
        [scene.factors.cpu().numpy() for scene in encoded.scenes],
        [encoded.actions_per_factor(index).cpu().numpy() for index in range(len(encoded.frames))],
        iterations,
        seed,
    )
    if found is None:
        left_out("disentanglement", "there are never two entities at a time that choose what to do")
    return found


def _lacking(encoded: Encoded, truth: Sequence[Truth] | None) -> tuple[str, list[Entities]]:
    """The reason why nothing can be measured (empty if something can), and the true entities."""
    size = encoded.world.frame_size
    true = [true_entities(one, size) for one in truth or ()]
    if truth is None or any(chosen_actions(one) is None for one in truth) or None in true:
        return "there is no truth of who is where and what they do", []
    if encoded.world.factors == 1:
        return "the world draws the scene as one factor", []
    if len(encoded.frames) < FEWEST:
        return f"probes need {FEWEST} episodes or more; given {len(encoded.frames)}", []
    return "", [one for one in true if one is not None]


def evaluate_disentanglement(
    truth: Sequence[Entities],
    actions: Sequence[np.ndarray],
    found: Sequence[Entities],
    factors: Sequence[np.ndarray],
    latent_actions: Sequence[np.ndarray],
    iterations: int = 40,
    seed: int = 0,
) -> Json | None:
    """DCI of factors that follow another entity in each episode: factors are matched to entities episode by episode.

    As entities look alike, two probes serve for all of them. Both predict the action that an entity chose: one from
    the factor and latent action matched to that entity, the other from those of another entity, drawn at random. Both
    are trained on three quarters of the episodes and tested on the rest. Steps from or to a frame in which the entity
    is in contact are left out, because contact, not the chosen action, decides its motion there.

    Args:
        truth, found: one of each for an episode, of T frames, E true entities and K factors.
        actions: int `(T, E)`, the action that each entity chose before each frame; -1 where it is unknown or must not
            count, for example where the entity bounced off a wall.
        factors: float `(T, K, S)`. latent_actions: float `(T - 1, K, A)`, between successive frames.
        iterations: boosting rounds of the probes.

    Returns:
        `own`, `other`: gains of the two probes, as of `probe_gain`; `disentanglement`, `completeness`, `informativeness`:
        of `dci`, of a matrix with `own` on its diagonal and `other` elsewhere, as wide as there are entities at one time;
        `transitions`: how many were counted.
        `floors`: the same from factors without latent actions (`factors_alone`), and with the factors that an episode's
        entities are matched to exchanged at random (`random_matching`).
        None where fewer than two entities are ever present, or nothing is counted in either part of the episodes.

    Raises:
        ValueError: fewer than 4 episodes.
    """
    training = training_episodes(len(truth), seed)
    together = max(int(true.presence.sum(1).max(initial=0)) for true in truth)
    rng = np.random.default_rng(seed)
    matched, exchanged, targets, episode = [], [], [], []
    for index, (true, chosen, drawn, states, acted) in enumerate(
        zip(truth, actions, found, factors, latent_actions, strict=True)
    ):
        apart = true.presence & ~in_contact(true)
        step, entity = np.nonzero(apart[:-1] & apart[1:] & (chosen[1:] >= 0))
        pair = np.stack([entity, _another(true.presence[step], entity, rng)])
        seen = np.concatenate([states[:-1], acted], -1)[step]
        whose = match_clip(true, drawn)
        matched.append(_pick_factors(seen, whose[pair]))
        exchanged.append(_pick_factors(seen, rng.permutation(whose)[pair]))
        targets.append(chosen[1:][step, entity])
        episode.append(np.full(len(step), index))
    y, train = np.concatenate(targets), np.isin(np.concatenate(episode), training)
    if together < 2 or train.all() or not train.any():
        return None

    def scores(x: np.ndarray) -> Json:
        own, other = (probe_gain(side, y, train, iterations, seed) for side in x)
        matrix = np.where(np.eye(together, dtype=bool), own, other)
        return {"own": own, "other": other} | dci(matrix).scores()

    x = np.concatenate(matched, 1)
    floors = {
        "factors_alone": scores(x[..., : factors[0].shape[-1]]),
        "random_matching": scores(np.concatenate(exchanged, 1)),
    }
    return scores(x) | {"transitions": len(y), "floors": floors}


def _another(presence: np.ndarray, entity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each row of `presence`, bool `(n, E)`, a random present entity other than `entity`, int `(n,)`; `entity`
    itself if it is alone."""
    ticket = np.where(presence, rng.random(presence.shape), -1.0)
    ticket[np.arange(len(entity)), entity] = 0.0
    return ticket.argmax(1)


def _pick_factors(seen: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """Pick from numbers `(n, K, F)` those of the factors int `(2, n)`: `(2, n, F)`, 0 for factor -1."""
    picked = seen[np.arange(len(seen)), factor]
    return np.where(factor[..., None] < 0, 0, picked)
