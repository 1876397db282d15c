"""Foreground, segmentation, disentanglement and intervention against cases whose right answer is known."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest

from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.disentanglement import evaluate_disentanglement
from flam_rl.evaluation.foreground import beside_floors, differs, grow, median_frame, quality
from flam_rl.evaluation.intervention import evaluate_intervention
from flam_rl.evaluation.segmentation import evaluate_segmentation, foreground_ari, mask_iou
from flam_rl.evaluation.truth import boxes_filled, chosen_actions, true_entities, truths_of
from flam_rl.types import Entities, Truth

SIZE = 32


def squares(corners: np.ndarray, side: int = 4, masks: bool = True) -> Entities:
    """Squares at whole-pixel corners x, y `(T, K, 2)`; a negative one is absent."""
    box = np.concatenate([corners, corners + side], -1).astype(float)
    box[corners[..., 0] < 0] = np.nan
    entities = Entities(~np.isnan(box[..., 0]), box)
    drawn = boxes_filled(entities.box, (SIZE, SIZE)).astype(np.float32)
    return Entities(entities.presence, box, drawn) if masks else entities


def draw(entities: Entities, background: int = 40, color: int = 200) -> np.ndarray:
    """Frames uint8 `(T, H, W, 3)` of entities in one grey."""
    shown = boxes_filled(entities.box, (SIZE, SIZE)).any(1)
    return np.where(shown[..., None], color, background).astype(np.uint8).repeat(3, -1)


def walkers(frames: int = 12, count: int = 2) -> Entities:
    """Squares that go right by two pixels a frame, each in its own lane."""
    time, lane = np.mgrid[:frames, :count]
    return squares(np.stack([2 + 2 * time, 4 + 8 * lane], -1))


def decibel(error: float) -> float:
    return 10 * np.log10(255**2 / error)


def test_psnr_of_frames_and_of_mean_error() -> None:
    frames = np.full((2, 8, 8, 3), 100, np.uint8)
    predicted = frames.copy()
    predicted[0, :2] += 10  # a quarter of the first frame
    predicted[1] += 20
    where = np.zeros((2, 8, 8), bool)
    where[0, :4] = True
    found = quality(predicted, frames, where)
    assert found["psnr"] == pytest.approx((decibel(25) + decibel(400)) / 2)
    assert found["psnr_of_mean_error"] == pytest.approx(decibel((25 + 400) / 2))
    assert found["foreground_psnr"] == pytest.approx(decibel(50))  # the second frame shows none
    assert found["foreground_psnr_of_mean_error"] == pytest.approx(decibel(50))
    assert found["foreground_share"] == 0.25
    perfect = quality(frames, frames, where)
    assert perfect["psnr"] == perfect["foreground_psnr_of_mean_error"] == 100
    empty = quality(predicted, frames, np.zeros_like(where))
    assert (empty["foreground_psnr"], empty["foreground_psnr_of_mean_error"]) == (None, None)


def test_predictions_beside_their_floors() -> None:
    truth = walkers()
    frames = draw(truth)
    where = grow(boxes_filled(truth.box, (SIZE, SIZE)).any(1), 2)
    one, five = (
        beside_floors(frames[[4 + h]], frames[[4 + h]], where[[4 + h]], [frames[:5]]) for h in (1, 5)
    )
    assert one["psnr"] == five["foreground_psnr"] == 100
    # Two squares of 4x4, two pixels further: two columns of each are wrong on either side.
    copied = one["floors"]["last_frame"]
    assert copied["psnr"] == pytest.approx(decibel(160**2 * 2 * 4 * 4 / SIZE**2))
    area = 2 * 8 * 8  # grown by two pixels to each side
    assert copied["foreground_psnr"] == pytest.approx(decibel(160**2 * 2 * 4 * 4 / area))
    assert copied["foreground_share"] == area / SIZE**2
    # A square is at a pixel in 2 of frames 0 to 4: not in their median.
    background = five["floors"]["background"]
    assert background["psnr"] == pytest.approx(decibel(160**2 * 2 * 4 * 4 / SIZE**2))
    assert background["foreground_psnr"] == pytest.approx(decibel(160**2 * 2 * 4 * 4 / area))


def test_foreground_without_truth_is_what_differs_from_the_median() -> None:
    truth = walkers()
    frames = draw(truth)
    exact = boxes_filled(truth.box, (SIZE, SIZE)).any(1)
    assert (median_frame(frames) == 40).all()
    assert (differs(frames, median_frame(frames)) == exact).all()  # each pixel is background most of the time
    still = np.repeat(frames[:1], 5, 0)
    assert not differs(still, median_frame(still)).any()
    long = np.concatenate([frames] * 20)  # of more frames than are sampled
    assert (median_frame(long) == 40).all()


def test_truth_as_entities_with_masks_of_its_own_discs_or_boxes() -> None:
    walk = walkers()
    centre = (walk.box[..., :2] + walk.box[..., 2:]) / 2
    identity = np.where(walk.presence, [7, 3], -1)
    known = {"identity": identity, "presence": walk.presence, "box": walk.box.astype(np.float32)}
    boxes = true_entities(Truth(**known), (SIZE, SIZE), masks=True)
    assert (boxes.mask == walk.mask[:, ::-1]).all()  # by identity: 3 comes before 7
    own = true_entities(Truth(**known, mask=walk.mask / 2), (SIZE, SIZE), masks=True)
    assert own.mask.max() == 0.5
    discs = true_entities(
        Truth(**known, centre=centre, radius=np.full((12, 2), 2.0)), (SIZE, SIZE), masks=True
    )
    assert (discs.mask.sum((2, 3)) == 12).all()  # a square of 4x4 without its corners
    outside = known | {"box": known["box"] - np.float32((0, 100, 0, 100))}
    assert not true_entities(Truth(**outside), (SIZE, SIZE)).presence.any()
    assert true_entities(Truth(box=walk.box), (SIZE, SIZE)) is None


def test_masks_grow_in_space_and_not_in_time() -> None:
    mask = np.zeros((3, 7, 7), bool)
    mask[1, 3, 3] = True
    assert grow(mask, 2).sum((1, 2)).tolist() == [0, 25, 0]


def test_perfect_masks() -> None:
    truth = [walkers(), walkers(6, 3)]
    order = [np.array([1, 0]), np.array([2, 0, 1])]
    renamed = [
        Entities(e.presence[:, o], e.box[:, o], e.mask[:, o]) for e, o in zip(truth, order, strict=True)
    ]
    for found in (truth, renamed):
        got = evaluate_segmentation(zip(truth, found, strict=True))
        assert (got["foreground_ari"], got["mask_iou"]) == (1.0, 1.0)
        floor = got["floors"]["one_factor"]
        assert floor["foreground_ari"] == 0.0
        assert floor["mask_iou"] == pytest.approx(
            (1 + 1) / 5 * 16 / SIZE**2
        )  # one of 2, and one of 3, is matched
        assert max(got["floors"]["random_identities"].values()) < 0.6


def test_masks_of_a_factor_that_holds_two_of_three_entities() -> None:
    truth = walkers(4, 3)
    mask = np.stack([truth.mask[:, 0], truth.mask[:, 1] + truth.mask[:, 2]], 1)
    assert mask_iou(truth.mask > 0.5, mask).tolist() == [1.0, 0.5, 0.0]
    # With n pixels of each: pairs that are together in truth, and so in both; together in factors; all pairs.
    n = 16 * 4
    one = 3 * n * (n - 1) / 2
    two, every = one + n * n, 3 * n * (3 * n - 1) / 2
    expected = (one - one * two / every) / ((one + two) / 2 - one * two / every)
    assert foreground_ari(truth.mask > 0.5, mask) == pytest.approx(expected)


def test_masks_that_swap_and_masks_that_miss() -> None:
    truth = walkers(10)
    swapped = truth.mask.copy()
    swapped[5:] = swapped[5:, ::-1]
    assert mask_iou(truth.mask > 0.5, swapped).tolist() == pytest.approx([5 / 15, 5 / 15])
    assert foreground_ari(truth.mask > 0.5, swapped) == pytest.approx(0, abs=0.01)
    assert foreground_ari(truth.mask > 0.5, 0 * truth.mask) == 0
    faint = np.stack([truth.mask[:, 0] + 0.4 * truth.mask[:, 1]], 1)
    assert foreground_ari(truth.mask > 0.5, faint) == 1  # most of the second one is background's
    half = np.where(truth.mask > 0, 0.5, 0)  # not more than half: nothing is drawn
    assert mask_iou(truth.mask > 0.5, half).tolist() == [0, 0]


def test_segmentation_leaves_out_who_is_never_there() -> None:
    corners = np.full((4, 3, 2), -9)
    corners[:, 0] = 4
    truth = squares(corners)
    got = evaluate_segmentation([(truth, truth)])
    assert got["foreground_ari"] is None  # one entity is told from no other
    assert got["mask_iou"] == 1.0
    assert evaluate_segmentation([(squares(np.full((4, 3, 2), -9)), truth)]) is None


def test_segmentation_needs_masks_of_one_size() -> None:
    truth = walkers()
    with pytest.raises(ValueError, match="these entities have none"):
        evaluate_segmentation([(truth, Entities(truth.presence, truth.box))])
    small = Entities(truth.presence, truth.box, truth.mask[..., :16])
    with pytest.raises(ValueError, match="differ in frames or size"):
        evaluate_segmentation([(truth, small)])


MOVES = np.array([(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)])


def pushed(rng: np.random.Generator, kind: str = "own", count: int = 3, frames: int = 40) -> tuple:
    """Truth, actions, entities in an order of the episode's own, factors and latent actions of alike entities.

    Args:
        kind: what a latent action tells: of its "own" entity, of a "neighbour" only, of "both", or "nothing".
    """
    actions = rng.integers(0, 5, (frames, count))
    walk = (0.2 * MOVES[actions]).cumsum(0) + np.stack([30 * np.arange(count), np.full(count, 20)], -1)
    truth = Entities(np.ones((frames, count), bool), np.concatenate([walk, walk + 8], -1))
    order = rng.permutation(count)
    found = Entities(truth.presence, truth.box[:, order] + rng.normal(0, 0.2, truth.box.shape))
    own = np.eye(5)[actions[1:]]
    neighbour = np.roll(own, -1, 1)
    known = {"own": [own], "neighbour": [neighbour], "both": [own, neighbour], "nothing": []}
    latent = np.concatenate([*known[kind], np.zeros((frames - 1, count, 1))], -1)[:, order]
    factors = rng.normal(size=(frames, count, 3))
    return truth, actions, found, factors, latent + rng.normal(0, 0.05, latent.shape)


def disentanglement(kind: str, episodes: int = 12, **options: int) -> dict:
    rng = np.random.default_rng(0)
    columns = zip(*(pushed(rng, kind, **options) for _ in range(episodes)), strict=True)
    return evaluate_disentanglement(*map(list, columns), iterations=8)


def test_factors_that_change_entity_by_episode_are_matched() -> None:
    found = disentanglement("own")
    assert found["own"] > 0.95
    assert found["other"] < 0.1
    assert found["disentanglement"] > 0.7
    assert found["transitions"] == 12 * 3 * 39
    assert found["floors"]["factors_alone"]["informativeness"] < 0.2
    mixed = found["floors"]["random_matching"]
    assert mixed["disentanglement"] < 0.2
    assert mixed["own"] < 0.7


@pytest.mark.learning
def test_latent_actions_that_tell_of_others() -> None:
    both = disentanglement("both")
    assert both["own"] > 0.95
    assert both["other"] > 0.25
    assert both["disentanglement"] < 0.3
    neighbour = disentanglement("neighbour")
    assert neighbour["own"] < 0.1
    assert neighbour["other"] > 0.25
    assert disentanglement("nothing")["informativeness"] < 0.1


def test_factors_that_tell_what_comes_next() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(8):
        truth, actions, found, _, latent = pushed(rng, "own")
        states = np.concatenate([latent, latent[:1]])  # of frame t: what is done from t to t + 1
        episodes.append((truth, actions, found, states, 0 * latent))
    got = evaluate_disentanglement(*map(list, zip(*episodes, strict=True)), iterations=8)
    assert got["own"] == got["floors"]["factors_alone"]["own"] > 0.95


def test_steps_in_contact_and_unknown_actions_are_not_counted() -> None:
    rng = np.random.default_rng(0)
    truth, actions, *rest = pushed(rng)
    box = truth.box.copy()
    box[10, 1] = box[10, 0] + (9, 0, 9, 0)  # a pixel apart: two steps of two entities are lost
    together = Entities(truth.presence, box)
    unknown = actions.copy()
    unknown[20:30, 2] = -1
    episodes = [(together, unknown, *rest), *(pushed(rng) for _ in range(3))]
    found = evaluate_disentanglement(*map(list, zip(*episodes, strict=True)), iterations=2)
    assert found["transitions"] == 4 * 3 * 39 - 4 - 10


def test_entities_without_a_factor_tell_nothing() -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(8):
        truth, actions, found, factors, latent = pushed(rng)
        nobody = Entities(np.zeros_like(found.presence), np.full_like(found.box, np.nan))
        episodes.append((truth, actions, nobody, factors, latent))
    got = evaluate_disentanglement(*map(list, zip(*episodes, strict=True)), iterations=2)
    assert (got["own"], got["other"], got["disentanglement"]) == (0.0, 0.0, 0.0)


def test_disentanglement_needs_episodes_and_two_entities() -> None:
    assert disentanglement("nothing", count=1) is None
    with pytest.raises(ValueError, match="probes need 4 episodes or more; given 3"):
        disentanglement("own", episodes=3)


def test_interventions_on_one_entity() -> None:
    before = squares(np.array([[(2, 4), (2, 20)]] * 3))
    own = squares(np.array([[(8, 4), (2, 20)]] * 3))
    both = squares(np.array([[(8, 4), (8, 20)]] * 3))
    everywhere = np.maximum(before.mask, both.mask)
    first, second = np.zeros(3, int), np.ones(3, int)
    frames = draw(before)
    alone = evaluate_intervention(frames, draw(own), np.maximum(before.mask, own.mask), first)
    assert (alone["on_entity"], alone["without_change"]) == (1.0, 0.0)
    # It was and is at two places of 6x6 pixels with their edges, the other one at one.
    assert alone["floors"]["chance"]["on_entity"] == pytest.approx(2 / 3)
    shared = evaluate_intervention(frames, draw(both), everywhere, first)
    assert shared["on_entity"] == shared["floors"]["chance"]["on_entity"] == 0.5
    wrong = evaluate_intervention(frames, draw(own), everywhere, second)
    assert wrong["on_entity"] == 0.0
    still = evaluate_intervention(frames, frames + 5, before.mask, first)
    assert still == {
        "on_entity": None,
        "without_change": 1.0,
        "floors": {"chance": {"on_entity": None}},
    }


def test_the_order_of_masks_changes_no_intervention() -> None:
    before = squares(np.array([[(2, 4), (2, 20)]] * 2))
    after = squares(np.array([[(4, 4), (2, 22)]] * 2))
    masks = np.maximum(before.mask, after.mask)
    found = evaluate_intervention(draw(before), draw(after), masks, np.array([0, 1]))
    assert found == evaluate_intervention(draw(before), draw(after), masks[:, ::-1], np.array([1, 0]))


def test_the_pushes_of_pucks_show_in_what_truth_says_of_velocity() -> None:
    """Factors and latent actions made of truth are the ceiling: each tells its own puck's push, and nothing of others."""
    episodes = list(record_episodes(gym.make("flam_rl/Pucks-v0"), 1500, seed=5))
    truth = truths_of([episode.entities for episode in episodes])
    entities = [true_entities(one, (64, 64)) for one in truth]
    chosen = [np.concatenate([np.full((1, 4), -1), chosen_actions(one)]) for one in truth]
    velocity = [one.velocity for one in truth]
    pushes = [moved[1:] - 0.88 * moved[:-1] for moved in velocity]
    found = evaluate_disentanglement(entities, chosen, entities, velocity, pushes, iterations=10)
    assert found["own"] > 0.95
    assert found["other"] < 0.05
    assert found["floors"]["factors_alone"]["own"] < 0.5
