"""Which model suits a video."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest

from flam_rl.models.choosing import MOST, choose_model, different_patches
from flam_rl.types import Video


def film_of(task: str, frames: int = 150, **options: Any) -> np.ndarray:
    env = gym.make(task, **options)
    film = [env.reset(seed=0)[0]]
    env.action_space.seed(0)
    while len(film) < frames:
        frame, _, terminated, truncated, _ = env.step(env.action_space.sample())
        film.append(env.reset()[0] if terminated or truncated else frame)
    return np.stack(film)


def test_a_grid_of_tiles_gets_the_model_of_tiles(video: Video) -> None:
    choice = choose_model(video, 8)
    assert choice.model == "flam"
    assert "a grid of tiles" in choice.reason
    assert different_patches(video, 8) < 40
    rng = np.random.default_rng(0)
    lossy = tuple((e + rng.normal(0, 4, e.shape)).clip(0, 255).astype(np.uint8) for e in video.episodes[:4])
    assert choose_model(Video(lossy), 8).model == "flam"


@pytest.mark.parametrize(
    "options", [{}, {"background": "texture"}, {"looks": 1, "background": "new_texture"}]
)
def test_what_moves_continuously_is_tracked(options: dict[str, Any]) -> None:
    choice = choose_model(Video((film_of("flam_rl/Pucks-v0", **options),)), 8)
    assert choice.model == "tracked"
    assert f"more than {MOST} different patches" in choice.reason


def test_frames_that_are_no_grid_are_tracked(video: Video) -> None:
    cut = Video(tuple(episode[:, :60] for episode in video.episodes[:3]))
    assert choose_model(cut, 8).reason == "frames of 60x64 are no grid of 8x8 patches"
