"""Tracking and matching against cases whose right answer is known, and against a computation of our own."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from tiles import tile_world

from flam_rl.core.registry import TILE_MODELS, ModelName
from flam_rl.evaluation import segmentation, tracking
from flam_rl.evaluation.encoded import encode
from flam_rl.evaluation.matching import (
    box_iou,
    by_identity,
    in_contact,
    match_clip,
    match_frames,
    shuffle_identities,
)
from flam_rl.evaluation.tracking import evaluate_tracking
from flam_rl.evaluation.truth import boxes_filled, truths_of
from flam_rl.models.tiles.code_model import CodeFacts, FLAMConfig
from flam_rl.models.tiles.entities import entities_of_tokens
from flam_rl.models.tiles.factorizer import FactorizerConfig
from flam_rl.models.tiles.kinds import CODE_MODELS
from flam_rl.models.tiles.tokenizer import Tokenizer, TokenizerConfig
from flam_rl.types import Entities, Episode, Truth, Video

SIZE = 8
FIGURES = ("hota", "deta", "assa", "idf1", "precision", "recall", "f1")


def discs(centres: Any, presence: Any = None, side: float = SIZE) -> Entities:
    """Boxes of `side` pixels around centres `(T, K, 2)`."""
    centres = np.asarray(centres, float)
    there = np.ones(centres.shape[:2], bool) if presence is None else np.asarray(presence, bool)
    box = np.concatenate([centres - side / 2, centres + side / 2], -1)
    box[~there] = np.nan
    return Entities(there, box)


def pick(entities: Entities, columns: Any) -> Entities:
    return Entities(entities.presence[:, columns], entities.box[:, columns])


def lanes(frames: int = 10, count: int = 2) -> Entities:
    """Discs far apart from each other that go right by one pixel a frame, each in its own lane."""
    time, lane = np.mgrid[:frames, :count]
    return discs(np.stack([10.0 + time, 20.0 + 20 * lane], -1))


def wanderers(seed: int, frames: int = 40, count: int = 4) -> Entities:
    """Discs that wander, meet, come and go."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(0, 1.5, (frames, count, 2)).cumsum(0) + rng.uniform(15, 40, (count, 2))
    return discs(walk, rng.random((frames, count)) < 0.9)


def noisy(entities: Entities, seed: int) -> Entities:
    """Boxes off by a pixel, some missing, a ghost, and identities that change now and then."""
    rng = np.random.default_rng(seed)
    frames, count = entities.presence.shape
    box = np.concatenate(
        [entities.box + rng.normal(0, 1, entities.box.shape), np.full((frames, 1, 4), np.nan)], 1
    )
    box[rng.random(frames) < 0.5, -1] = (30, 30, 38, 38)
    box[rng.random(box.shape[:2]) < 0.1] = np.nan
    for start in range(0, frames, 9):
        box[start:] = box[start:, rng.permutation(count + 1)]
    return Entities(~np.isnan(box[..., 0]), box)


def swapped(entities: Entities, at: int) -> Entities:
    """The first two exchange their identities from a frame on."""
    box, presence = entities.box.copy(), entities.presence.copy()
    box[at:, [0, 1]], presence[at:, [0, 1]] = box[at:, [1, 0]], presence[at:, [1, 0]]
    return Entities(presence, box)


def test_perfect_tracks() -> None:
    found = evaluate_tracking([lanes(), lanes(5, 3)], [lanes(), lanes(5, 3)])
    assert {name: found[name] for name in FIGURES} == dict.fromkeys(FIGURES, 1.0)
    assert (found["entity_frames"], found["switches"], found["switches_per_1000"]) == (35, 0, 0.0)
    assert found["switches_per_1000_in_contact"] is None
    floor = found["floors"]["random_identities"]
    assert floor["deta"] == floor["f1"] == 1.0  # boxes are as they were
    assert max(floor["assa"], floor["idf1"]) < 0.75
    assert floor["switches_per_1000"] > 200
    assert {found["floors"]["nothing"][name] for name in (*FIGURES, "switches")} == {0.0}


def test_identities_swapped_in_the_middle() -> None:
    found = evaluate_tracking([lanes()], [swapped(lanes(), 5)])
    assert found["deta"] == 1.0
    assert found["assa"] == pytest.approx(
        5 / (5 + 5 + 5)
    )  # of an identity's 10 frames 5 are right, as many wrong
    assert found["hota"] == pytest.approx((1 / 3) ** 0.5)
    assert found["idf1"] == pytest.approx(10 / 20)
    assert (found["switches"], found["switches_per_1000"]) == (2, 100.0)
    assert found["f1"] == 1.0


def test_an_entity_that_is_never_found() -> None:
    found = evaluate_tracking([lanes()], [pick(lanes(), [1])])
    assert (found["deta"], found["assa"]) == (0.5, 1.0)
    assert found["hota"] == pytest.approx(0.5**0.5)
    assert found["idf1"] == pytest.approx(10 / (10 + 0.5 * 10))
    assert (found["precision"], found["recall"]) == (1.0, 0.5)
    assert found["f1"] == pytest.approx(2 / 3)
    assert found["switches"] == 0


def test_ghosts() -> None:
    ghosts = discs(np.full((10, 2, 2), (80.0, 80.0)))
    both = Entities(np.hstack([lanes().presence, ghosts.presence]), np.hstack([lanes().box, ghosts.box]))
    found = evaluate_tracking([lanes()], [both])
    assert (found["deta"], found["assa"], found["precision"], found["recall"]) == (0.5, 1.0, 0.5, 1.0)
    assert found["idf1"] == pytest.approx(20 / (20 + 0.5 * 20))


def test_boxes_that_miss_their_entity_match_at_lower_overlaps_only() -> None:
    moved = Entities(
        lanes().presence, lanes().box + (0, 4, 0, 4)
    )  # overlap 1/3, of 19 thresholds 6 are below
    found = evaluate_tracking([lanes()], [moved])
    assert found["f1"] == found["idf1"] == 0.0
    assert found["hota"] == pytest.approx(6 / 19)


def test_nothing_to_find_and_nothing_found() -> None:
    nobody = discs(np.zeros((10, 2, 2)), np.zeros((10, 2)))
    none = Entities(np.zeros((10, 0), bool), np.zeros((10, 0, 4)))
    assert evaluate_tracking([nobody], [lanes()]) is None
    assert evaluate_tracking([], []) is None
    for empty in (nobody, none):
        assert evaluate_tracking([lanes()], [empty])["hota"] == 0.0
        pooled = evaluate_tracking([lanes(), empty], [lanes(), empty])
        assert (pooled["hota"], pooled["entity_frames"]) == (1.0, 20)
    ghosts = evaluate_tracking([lanes(), nobody], [lanes(), lanes()])
    assert (ghosts["precision"], ghosts["deta"]) == (0.5, 0.5)


def test_switches_in_contact_and_apart() -> None:
    x = np.array(
        [10, 13, 16, 18, 16, 13, 10, 10, 10, 10], float
    )  # edges 16, 10, 4, 0, 4, 10, 16 ... pixels apart
    meeting = discs(np.stack([np.stack([x, 0 * x], -1), np.stack([44 - x, 0 * x], -1)], 1))
    contact = in_contact(meeting)
    assert np.flatnonzero(contact[:, 0]).tolist() == [3]
    assert (contact[:, 0] == contact[:, 1]).all()
    for at, apart, together in ((3, 0, 2), (4, 0, 2), (8, 2, 0)):
        found = evaluate_tracking([meeting], [swapped(meeting, at)])
        assert (found["switches_apart"], found["switches_in_contact"]) == (apart, together), at
        assert (found["entity_frames_apart"], found["entity_frames_in_contact"]) == (16, 4)
        assert found["switches_per_1000_in_contact"] == 1000 * together / 4
    # Lost in contact and found again as another one, long after.
    lost = swapped(meeting, 4)
    presence, box = lost.presence.copy(), lost.box.copy()
    presence[3:7], box[3:7] = False, np.nan
    found = evaluate_tracking([meeting], [Entities(presence, box)])
    assert (found["switches_apart"], found["switches_in_contact"]) == (0, 2)


@pytest.mark.parametrize(("apart", "touch"), [(9.9, True), (10.0, False)])
def test_contact_is_two_radii_and_two_pixels(apart: float, touch: bool) -> None:
    pair = discs([[(10, 10), (10 + apart, 10), (200, 200)]], [[True, True, False]])
    assert in_contact(pair).tolist() == [[touch, touch, False]]
    alone = discs([[(10, 10), (10 + apart, 10)]], [[True, False]])
    assert not in_contact(alone).any()
    wide = Entities(
        np.ones((1, 2), bool), np.array([[(0.0, 0, 20, 20), (20.0 + apart - 8, 6, 28 + apart - 8, 14)]])
    )
    assert in_contact(wide).tolist() == [[touch, touch]]


def test_overlap_of_boxes() -> None:
    one = np.array([(0, 0, 8, 8), (np.nan,) * 4])
    two = np.array([(0, 0, 8, 8), (4, 0, 12, 8), (8, 0, 16, 8), (2, 2, 6, 6), (np.nan,) * 4])
    assert box_iou(one, two).tolist() == [[1, pytest.approx(1 / 3), 0, 0.25, 0], [0, 0, 0, 0, 0]]


def hota(truth: Entities, found: Entities) -> dict[str, float]:
    """HOTA by its definition (Luiten et al. 2021, sec. 5), pair of boxes by pair of boxes, in plain loops."""
    overlap = box_iou(truth.box, found.box)
    frames, wanted, given = overlap.shape
    align = np.zeros((wanted, given))
    for t in range(frames):
        for e in range(wanted):
            for k in range(given):
                beside = overlap[t, e].sum() + overlap[t, :, k].sum() - overlap[t, e, k]
                align[e, k] += overlap[t, e, k] / beside if beside else 0
    counts = truth.presence.sum(0)[:, None], found.presence.sum(0)[None]
    align = align / np.maximum(counts[0] + counts[1] - align, 1e-9)
    figures = []
    for alpha in np.arange(1, 20) / 20:
        pairs = []
        for t in range(frames):
            rows, columns = linear_sum_assignment(align * overlap[t], maximize=True)
            pairs += [(e, k) for e, k in zip(rows, columns, strict=True) if overlap[t, e, k] >= alpha - 1e-9]
        misses, ghosts = truth.presence.sum() - len(pairs), found.presence.sum() - len(pairs)
        deta = len(pairs) / (len(pairs) + misses + ghosts)
        kept = [
            pairs.count((e, k)) / (counts[0][e, 0] + counts[1][0, k] - pairs.count((e, k))) for e, k in pairs
        ]
        assa = sum(kept) / max(len(kept), 1)
        figures.append((deta, assa, (deta * assa) ** 0.5))
    return dict(zip(("deta", "assa", "hota"), np.mean(figures, 0), strict=True))


def idf1(truth: Entities, found: Entities) -> float:
    right = (box_iou(truth.box, found.box) >= 0.5).sum(0)
    return (
        2
        * right[linear_sum_assignment(right, maximize=True)].sum()
        / (truth.presence.sum() + found.presence.sum())
    )


@pytest.mark.parametrize("seed", range(3))
def test_hota_and_idf1_are_those_of_an_independent_computation(seed: int) -> None:
    truth, found = wanderers(seed), noisy(wanderers(seed), seed)
    got = evaluate_tracking([truth], [found])
    expected = hota(truth, found) | {"idf1": idf1(truth, found)}
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert 0.2 < got["hota"] < 0.9  # neither end is met


def clear(truth: Entities, found: Entities) -> tuple[int, int]:
    """Matches and identity switches of CLEAR MOT (Bernardin and Stiefelhagen 2008) in plain loops."""
    overlap = box_iou(truth.box, found.box)
    right, switches, latest, held = 0, 0, {}, {}
    for t, pairs in enumerate(overlap):
        if not (truth.presence[t].any() and found.presence[t].any()):
            continue
        best = (-1.0, {})
        columns = range(pairs.shape[1])
        for picks in product((-1, *columns), repeat=len(pairs)):  # every set of matches there is
            taken = {e: k for e, k in enumerate(picks) if k >= 0}
            if len(set(taken.values())) < len(taken) or any(pairs[e, k] < 0.5 for e, k in taken.items()):
                continue
            worth = sum(pairs[e, k] + 1000 * (held.get(e) == k) for e, k in taken.items())
            best = max(best, (worth, taken), key=lambda each: each[0])
        held = best[1]
        right += len(held)
        switches += sum(latest.get(e, k) != k for e, k in held.items())
        latest |= held
    return right, switches


@pytest.mark.parametrize("seed", range(3))
def test_matches_and_switches_are_those_of_an_independent_computation(seed: int) -> None:
    pairs = [(wanderers(s, count=3), noisy(wanderers(s, count=3), s)) for s in (10 * seed, 10 * seed + 1)]
    right, switches = map(sum, zip(*(clear(*pair) for pair in pairs), strict=True))
    wanted, given = (sum(int(pair[side].presence.sum()) for pair in pairs) for side in (0, 1))
    got = evaluate_tracking(*map(list, zip(*pairs, strict=True)))
    assert got["switches"] == switches > 5
    expected = {
        "precision": right / given,
        "recall": right / wanted,
        "f1": 2 * right / (given + wanted),
    }
    assert {name: got[name] for name in expected} == pytest.approx(expected)


def test_names_of_identities_change_nothing() -> None:
    truth, found = wanderers(0), noisy(wanderers(0), 0)
    expected = evaluate_tracking([truth], [found])
    for seed in range(3):
        rng = np.random.default_rng(seed)
        one, two = (pick(e, rng.permutation(e.presence.shape[1])) for e in (truth, found))
        got = evaluate_tracking([one], [two])
        for side in (got, expected):
            side.pop("floors", None)
        assert got == pytest.approx(expected)


def test_matches_are_kept_while_they_can_be() -> None:
    truth = discs(np.tile([(20.0, 20)], (4, 1, 1)))
    rival = discs(
        np.stack([np.full((4, 2), 21.0), np.tile([[90.0, 90], [90, 90], [20, 20], [20, 20]], 1)], 1)
    )
    assert match_frames(truth, rival).ravel().tolist() == [
        0,
        0,
        0,
        0,
    ]  # though the second fits better from frame 2
    assert match_clip(truth, rival).tolist() == [0]


def test_matching_of_a_clip_leaves_out_who_meets_nobody() -> None:
    truth = discs([[(10, 10), (40, 10), (70, 10)]] * 3)
    found = discs([[(41, 10), (10, 11)]] * 3)
    assert match_clip(truth, found).tolist() == [1, 0, -1]


def test_places_that_entities_take_in_turn_become_identities() -> None:
    identity = np.array([[0, 1], [0, -1], [0, 2], [3, 2]])
    presence = identity >= 0
    assert by_identity(presence, identity, False).T.tolist() == [
        [True, True, True, False],
        [True, False, False, False],
        [False, False, True, True],
        [False, False, False, True],
    ]
    box = np.where(presence[..., None], np.arange(32.0).reshape(4, 2, 4), np.nan)
    truth = Entities(by_identity(presence, identity, False), by_identity(box, identity, np.nan))
    assert truth.box[3, 2].tolist() == [28, 29, 30, 31]
    assert truth.box[3, 3].tolist() == [24, 25, 26, 27]
    assert by_identity(identity, identity, -1)[3].tolist() == [-1, -1, 2, 3]


def test_shuffled_identities_are_the_same_boxes() -> None:
    entities = wanderers(0)
    mask = entities_masked(entities)
    mixed = shuffle_identities(mask, np.random.default_rng(0))
    assert (mixed.box[mixed.presence].sum(), mixed.presence.sum()) == pytest.approx(
        (entities.box[entities.presence].sum(), entities.presence.sum())
    )
    assert (mixed.presence != entities.presence).any()
    assert (mixed.mask.sum(1) == mask.mask.sum(1)).all()
    assert (mixed.mask.any((2, 3)) <= mixed.presence).all()


def entities_masked(entities: Entities) -> Entities:
    return Entities(entities.presence, entities.box, boxes_filled(entities.box, (64, 64)).astype(np.float32))


def test_bad_input() -> None:
    with pytest.raises(
        ValueError, match="as long as it is; given truths of \\[10\\], clips of \\[9\\] frames"
    ):
        evaluate_tracking([lanes()], [lanes(9)])
    with pytest.raises(ValueError, match="given truths of \\[10\\], clips of \\[\\] frames"):
        evaluate_tracking([lanes()], [])
    one = np.ones((2, 1), bool)
    with pytest.raises(ValueError, match="presence bool \\(T, K\\)"):
        Entities(one.astype(int), np.zeros((2, 1, 4)))
    with pytest.raises(ValueError, match="given bool \\(2, 1\\) and \\(2, 1, 2\\)"):
        Entities(one, np.zeros((2, 1, 2)))
    with pytest.raises(ValueError, match="are \\(T, K, H, W\\); given \\(2, 3, 8, 8\\)"):
        Entities(one, lanes(2, 1).box, np.zeros((2, 3, 8, 8)))
    for presence, box in ((one, lanes(2, 1).box * np.nan), (~one, lanes(2, 1).box), (one, -lanes(2, 1).box)):
        with pytest.raises(ValueError, match="NaN where it is absent"):
            Entities(presence, box)


def test_boxes_of_tokens() -> None:
    masks = torch.zeros(2, 3, 4 * 6)
    masks[0, 0, [6 + 1, 6 + 2, 12 + 2]] = 0.9  # row 1, columns 1 and 2; row 2, column 2
    masks[1, 0, 23] = 1.0
    masks[0, 1, 5] = 0.5  # not more than half
    found = entities_of_tokens(masks, (4, 6), 8, masks=True)
    assert found.presence.tolist() == [[True, False, False], [True, False, False]]
    assert found.box[:, 0].tolist() == [[8, 8, 24, 24], [40, 24, 48, 32]]
    assert found.mask.shape == (2, 3, 32, 48)
    assert found.mask[0, 0, 8:16, 8:24].min() == pytest.approx(0.9)
    assert found.mask.sum() == pytest.approx(64 * float(masks.sum()))
    assert entities_of_tokens(masks, (4, 6), 8, masks=False).mask is None


@pytest.mark.parametrize("name", TILE_MODELS)
def test_every_model_tells_its_entities_or_why_not(name: ModelName) -> None:
    config, tokenizer = FLAMConfig(FactorizerConfig(factors=3)), Tokenizer(TokenizerConfig(), (32, 48))
    model = CODE_MODELS[name](config, CodeFacts.blank(config, tokenizer.grid, *tokenizer.looks().shape, 32))
    world = tile_world(tokenizer, model, torch.zeros(1, model.window, 24, dtype=torch.uint8))
    frames = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
    if model.NEEDS_ACTIONS or model.factors == 1:
        with pytest.raises(ValueError, match=r"tells no entities apart|given true actions"):
            world.entities(frames)
        return
    found = world.entities(frames, masks=True)
    assert (found.presence.shape, found.mask.shape) == ((5, 3), (5, 3, 32, 48))
    assert 0 <= found.mask.min() <= found.mask.max() <= 1
    assert ((found.mask > 0.5).any((2, 3)) == found.presence).all()
    assert world.entities(frames).mask is None
    for wrong in (frames / 255, frames[:, :, :40], frames[0]):
        with pytest.raises(ValueError, match=r"this world sees frames uint8 \(T, 32, 48, 3\); given"):
            world.entities(wrong)


@pytest.mark.learning
def test_the_shipped_world_tracks_the_agents_of_multigrid(world, episodes: list[Episode]) -> None:
    encoded = encode(
        world,
        Video(tuple(episode.frames for episode in episodes)),
        truths_of([episode.entities for episode in episodes]),
    )
    tracked = tracking.measure(encoded, encoded.truth)
    assert min(tracked[name] for name in FIGURES) > 0.95
    assert tracked["switches_per_1000"] < 5
    assert tracked["hota"] > tracked["floors"]["random_identities"]["hota"] + 0.4
    shown = segmentation.measure(encoded, encoded.truth)
    assert min(shown["foreground_ari"], shown["mask_iou"]) > 0.95
    assert max(shown["floors"]["one_factor"].values()) < 0.05
    # The cells that truth tells of are those of the frames: a wrong truth must show.
    late = [
        Truth(**{name: np.roll(values, 5, 0) for name, values in truth.arrays().items()})
        for truth in encoded.truth
    ]
    assert tracking.measure(encoded, late)["f1"] < 0.7
