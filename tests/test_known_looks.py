"""Looks that a world knows, found in frames in which nothing has moved yet."""

from __future__ import annotations

import torch

from flam_rl.models.tracked import ContextConfig, TrackerConfig, track
from flam_rl.models.tracked.known import KnownLooks
from flam_rl.models.tracked.sprites import blend, draw
from flam_rl.models.tracked.views import find_view

SIZE = 64


def disc(radius: float, color: tuple[float, float, float], patch: int = 16) -> torch.Tensor:
    """A look `(4, P, P)` with a soft edge."""
    at = torch.arange(patch) + 0.5 - patch / 2
    alpha = (radius + 0.5 - (at[:, None].square() + at.square()).sqrt()).clamp(0, 1)
    return torch.cat([torch.tensor(color)[:, None, None] * alpha, alpha[None]])


def texture(seed: int) -> torch.Tensor:
    """A smooth ground `(3, H, W)` of colours between 0.2 and 0.7."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(seed))
    return 0.2 + 0.5 * torch.nn.functional.interpolate(coarse, SIZE, mode="bicubic")[0].clamp(0, 1)


def film(ground: torch.Tensor, look: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Frames `(T, 3, H, W)` with the look at places `(T, K, 2)`."""
    looks = look.expand(*places.shape[:2], -1, -1, -1)
    drawn = draw(looks, places, (SIZE, SIZE)).drawn_BK4HW
    depth = torch.zeros(places.shape[:2])
    return blend(drawn, depth, ground.expand(len(places), -1, -1, -1)).frame_B3HW


def resting(frames: int) -> torch.Tensor:
    """Places of three discs: two rest, one of them at the frame's border, the third moves."""
    places = torch.tensor([[20.3, 22.6], [62.0, 40.0], [10.0, 50.0]]).repeat(frames, 1, 1)
    places[:, 2, 0] += 1.5 * torch.arange(frames)
    return places


def test_a_look_is_found_at_fractions_of_pixels_and_at_the_border() -> None:
    look, places = disc(4.0, (0.9, 0.2, 0.2)), resting(3)
    shown = film(texture(0), look, places)
    found = KnownLooks(torch.stack([disc(4.2, (0.9, 0.2, 0.2)), look])).find(shown)
    truth = draw(look.expand(3, 3, -1, -1, -1), places, (SIZE, SIZE)).drawn_BK4HW[:, :, 3].amax(1)
    assert found[truth > 0.5].all()
    assert found[truth == 0].float().mean() < 0.05  # no more than a rim


def test_nothing_is_found_in_ground_nor_within_something_larger_of_the_same_colour() -> None:
    look = disc(4.0, (0.9, 0.2, 0.2))[None]
    grounds = torch.stack([texture(seed) for seed in range(8)])
    assert not KnownLooks(look).find(grounds).any()
    large = film(texture(0), disc(14.0, (0.9, 0.2, 0.2), 40), torch.tensor([[[32.0, 32.0]]]))
    assert not KnownLooks(look).find(large)[0, 28:36, 28:36].any()


def test_a_look_of_few_pixels_is_found_nowhere() -> None:
    assert not KnownLooks(disc(1.0, (0.5, 0.5, 0.5))[None]).find(texture(0)[None]).any()


def test_what_rests_is_not_in_a_context_of_one_frame() -> None:
    ground, look = texture(1), disc(4.0, (0.9, 0.2, 0.2))
    shown = film(ground, look, resting(1))
    still, config = torch.zeros(1, 2), TrackerConfig()
    without = find_view(shown, still, config, ContextConfig())[0]
    knowing = find_view(shown, still, config, ContextConfig(), things=KnownLooks(look[None]).find(shown))[0]
    error = [float((view - ground).square().mean()) for view in (without, knowing)]
    assert error[1] < 0.1 * error[0]


def test_who_rests_from_the_first_frame_on_is_followed() -> None:
    look, places = disc(4.0, (0.9, 0.2, 0.2)), resting(12)
    frames = (film(texture(2), look, places) * 255).round().byte().movedim(1, -1).numpy()
    without = track(frames, past=1, shortest=1)
    knowing = track(frames, past=1, shortest=1, looks=look[None])
    assert without.presence[0].sum() == 0
    assert knowing.presence[0].sum() == 3
    where = knowing.place[0][knowing.presence[0]]
    nearest = torch.cdist(where, places[0]).amin(1)
    assert nearest.max() < 1.0
    assert set(knowing.identity[0][knowing.presence[0]].tolist()) <= set(knowing.identity[-1].tolist())


def test_two_that_touch_from_the_first_frame_on_and_a_mark_on_the_ground_are_apart() -> None:
    look = disc(4.0, (0.9, 0.2, 0.2))
    ground = texture(3)
    ground[:, 28:31, 30:40] = 0.95  # a mark that the left disc touches
    places = torch.tensor([[25.0, 30.0], [25.0, 38.4]]).repeat(10, 1, 1)
    places[:, 1, 1] += 1.2 * torch.arange(10)
    frames = (film(ground, look, places) * 255).round().byte().movedim(1, -1).numpy()
    tracks = track(frames, past=3, shortest=1, looks=look[None])
    where = tracks.place[-1][tracks.presence[-1]]
    assert torch.cdist(places[-1], where).amin(1).max() < 1.0
    mark = tracks.context[0][:, 28:31, 34:40]
    assert float((mark - 0.95).abs().mean()) < 0.05
