"""What counts as a picture in a Minari dataset: any layout of colours, stacks, dicts and wrappers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import minari
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, Text, Tuple
from gymnasium.wrappers import (
    AddRenderObservation,
    DtypeObservation,
    FrameStackObservation,
    GrayscaleObservation,
    RescaleObservation,
    TransformObservation,
)
from minari_sets import FILMS, FORMATS, RGB, H, W, assert_films, film, grey, read, stacked

from flam_rl.data.minari import (
    episodes,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(eval_env|env_spec).*:UserWarning"
)  # Minari wants an environment


AS_GREY = [np.repeat(grey(f)[..., None], 3, -1) for f in FILMS]
ALPHA = [np.concatenate([f, np.full((*f.shape[:3], 1), 255, np.uint8)], -1) for f in FILMS]
LAYOUTS: dict[str, tuple[Box, list[np.ndarray], list[np.ndarray]]] = {
    "rgb": (RGB, FILMS, FILMS),
    "rgb first": (Box(0, 255, (3, H, W), np.uint8), [f.transpose(0, 3, 1, 2) for f in FILMS], FILMS),
    "grey": (Box(0, 255, (H, W), np.uint8), [grey(f) for f in FILMS], AS_GREY),
    "grey last": (Box(0, 255, (H, W, 1), np.uint8), [grey(f)[..., None] for f in FILMS], AS_GREY),
    "grey first": (Box(0, 255, (1, H, W), np.uint8), [grey(f)[:, None] for f in FILMS], AS_GREY),
    "rgba": (Box(0, 255, (H, W, 4), np.uint8), ALPHA, FILMS),
    "whole numbers": (Box(0, 255, (H, W, 3), np.int64), [f.astype(np.int64) for f in FILMS], FILMS),
    "floats to 1": (Box(0, 1, (H, W, 3), np.float32), [np.float32(f / 255) for f in FILMS], FILMS),
    "floats to 1, first": (
        Box(0, 1, (3, H, W), np.float64), [f.transpose(0, 3, 1, 2) / 255 for f in FILMS], FILMS,
    ),
    "floats to 255": (Box(0, 255, (H, W, 3), np.float32), [np.float32(f) for f in FILMS], FILMS),
    "floats to 1 of a space to 255": (
        Box(0, 255, (H, W, 3), np.float32), [np.float32(f / 255) for f in FILMS], FILMS,
    ),
    "floats to 1 without bounds": (
        Box(-np.inf, np.inf, (H, W, 3), np.float32), [np.float32(f / 255) for f in FILMS], FILMS,
    ),
    "floats to 255 without bounds": (
        Box(-np.inf, np.inf, (H, W), np.float32), [np.float32(grey(f)) for f in FILMS], AS_GREY,
    ),
    "floats of -0.5 to 0.5": (Box(-0.5, 0.5, (H, W, 3), np.float32), [np.float32(f / 255 - 0.5) for f in FILMS], FILMS),
    "floats of -1 to 1 without bounds": (
        Box(-np.inf, np.inf, (H, W, 3), np.float32), [np.float32(f / 127.5 - 1) for f in FILMS], FILMS,
    ),
    "floats of -1 to 1, bright": (
        Box(-1, 1, (H, W, 3), np.float32),
        [np.float32(np.maximum(f, 200) / 127.5 - 1) for f in FILMS],
        [np.maximum(f, 200) for f in FILMS],
    ),
    "floats to 1 that overshoot": (
        Box(-np.inf, np.inf, (H, W, 3), np.float32),
        [np.float32(np.where(f == 255, 1.015, np.where(f < 3, -0.015, f / 255))) for f in FILMS],
        [np.where(f < 3, 0, f) for f in FILMS],
    ),
    "floats of -1 to 1": (Box(-1, 1, (H, W, 3), np.float32), [np.float32(f / 127.5 - 1) for f in FILMS], FILMS),
}  # fmt: skip
STACKS: dict[str, tuple[Box, list[np.ndarray], list[np.ndarray]]] = {
    "4 grey first": (Box(0, 255, (4, H, W), np.uint8), [stacked(grey(f), 4) for f in FILMS], AS_GREY),
    "3 grey first": (Box(0, 255, (3, H, W), np.uint8), [stacked(grey(f), 3) for f in FILMS], AS_GREY),
    "4 grey last": (
        Box(0, 255, (H, W, 4), np.uint8), [np.moveaxis(stacked(grey(f), 4), 1, -1) for f in FILMS], AS_GREY,
    ),
    "4 grey last, newest first": (
        Box(0, 255, (H, W, 4), np.uint8), [np.moveaxis(stacked(grey(f), 4), 1, -1)[..., ::-1] for f in FILMS], AS_GREY,
    ),
    "4 grey with an axis": (
        Box(0, 255, (4, H, W, 1), np.uint8), [stacked(grey(f)[..., None], 4) for f in FILMS], AS_GREY,
    ),
    "4 floats": (Box(0, 1, (4, H, W), np.float32), [np.float32(stacked(grey(f), 4) / 255) for f in FILMS], AS_GREY),
    "3 rgb": (Box(0, 255, (3, H, W, 3), np.uint8), [stacked(f, 3) for f in FILMS], FILMS),
    "4 rgb": (Box(0, 255, (4, H, W, 3), np.uint8), [stacked(f, 4) for f in FILMS], FILMS),
    "4 rgb first": (
        Box(0, 255, (4, 3, H, W), np.uint8), [stacked(f, 4).transpose(0, 1, 4, 2, 3) for f in FILMS], FILMS,
    ),
    "3 rgb joined": (
        Box(0, 255, (9, H, W), np.uint8),
        [stacked(f, 3).transpose(0, 1, 4, 2, 3).reshape(-1, 9, H, W) for f in FILMS],
        FILMS,
    ),
    "2 rgb joined": (
        Box(0, 255, (H, W, 6), np.uint8),
        [stacked(f, 2).transpose(0, 2, 3, 1, 4).reshape(-1, H, W, 6) for f in FILMS],
        FILMS,
    ),
}  # fmt: skip


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_layout_of_a_picture_is_read_as_rgb(record, layout: str, data_format: str) -> None:
    space, observations, expected = LAYOUTS[layout]
    folder = record(space, observations, data_format=data_format)
    assert_films(read(folder), expected)
    assert all(warnings == [] for _, warnings in episodes(folder))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("layout", STACKS)
def test_the_newest_frame_of_a_stack_is_taken_and_said(record, layout: str, data_format: str) -> None:
    space, observations, expected = STACKS[layout]
    folder = record(space, observations, data_format=data_format)
    assert_films(read(folder), expected)
    for _, (warning,) in episodes(folder):
        assert f"stacks of {layout[0]} {'grey' if expected is AS_GREY else 'colour'} frames" in warning
        assert "assumed" not in warning


def test_a_stack_that_does_not_move_on_by_a_frame_a_step_is_said_to_be_assumed(record) -> None:
    skipping = [stacked(grey(np.repeat(f, 2, 0)), 4)[::3] for f in [film(20, 3), film(20, 4)]]
    folder = record(Box(0, 255, (4, H, W), np.uint8), skipping)
    assert_films(read(folder), [np.repeat(s[:, -1, ..., None], 3, -1) for s in skipping])
    assert all("assumed to be the last" in warning for _, (warning,) in episodes(folder))


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("layout", ["rgb", "grey"])
def test_jpeg_is_read_and_said_to_be_lossy(record, layout: str, data_format: str) -> None:
    space, observations, expected = LAYOUTS[layout]
    smooth = [np.full_like(o, 90) for o in observations]
    for o in smooth:
        o[:, : H // 2] = 200
    folder = record(space, smooth, data_format=data_format, jpeg=True)
    want = [
        np.broadcast_to(o if o.ndim == 4 else o[..., None], e.shape)
        for o, e in zip(smooth, expected, strict=True)
    ]
    assert_films(read(folder), want, within=8)
    assert all("JPEG, which is lossy" in warning for _, (warning,) in episodes(folder))
    stored = minari.MinariDataset(folder)[1].observations
    assert np.array_equal(
        read(folder)[1], np.broadcast_to(stored.reshape(*stored.shape[:3], -1), (*stored.shape[:3], 3))
    )


NESTED = Dict(
    {
        "image": RGB,
        "direction": Discrete(4),
        "mission": Text(20),
        "view": Dict({"symbols": Box(0, 255, (7, 7, 3), np.uint8), "state": Box(-1, 1, (6,), np.float32)}),
        "both": Tuple((Box(0, 1, (2,), np.float32), Discrete(3))),
    }
)


def nested(frames: np.ndarray) -> dict[str, Any]:
    n = len(frames)
    return {
        "image": frames,
        "direction": np.zeros(n, np.int64),
        "mission": ["go to the goal"] * n,
        "view": {"symbols": np.ones((n, 7, 7, 3), np.uint8), "state": np.zeros((n, 6), np.float32)},
        "both": (np.zeros((n, 2), np.float32), np.zeros(n, np.int64)),
    }


@pytest.mark.parametrize("data_format", FORMATS)
def test_the_only_picture_of_a_dict_is_found(record, data_format: str) -> None:
    folder = record(NESTED, [nested(f) for f in FILMS], data_format=data_format)
    assert_films(read(folder), FILMS)
    assert_films(read(folder, "image"), FILMS)
    with pytest.raises(
        ValueError, match=r"view\.symbols is Box.*not the shape of a picture: height and width of 16"
    ):
        read(folder, "view.symbols")
    with pytest.raises(
        ValueError, match=r"no observation is named 'rgb'; allowed is --files\.key image \(Box"
    ):
        read(folder, "rgb")


@pytest.mark.parametrize("data_format", FORMATS)
def test_of_several_pictures_the_key_picks_one(record, data_format: str) -> None:
    space = Dict(
        {"front": RGB, "robot": Dict({"hand": Box(0, 255, (3, H, W), np.uint8)}), "two": Tuple((RGB, RGB))}
    )
    other = [f[:, ::-1] for f in FILMS]
    folder = record(
        space,
        [
            {"front": f, "robot": {"hand": o.transpose(0, 3, 1, 2)}, "two": (o, f)}
            for f, o in zip(FILMS, other, strict=True)
        ],
        data_format=data_format,
    )
    assert_films(read(folder, "front"), FILMS)
    assert_films(read(folder, "robot.hand"), other)
    assert_films(read(folder, "two.0"), other)
    assert_films(read(folder, "two.1"), FILMS)
    with pytest.raises(
        ValueError, match=r"several .*--files\.key front .*--files\.key robot\.hand .*--files\.key two\.0"
    ):
        episodes(folder)
    assert np.array_equal(read(folder, "robot.hand")[1], other[1])


def test_a_single_array_has_no_key(record) -> None:
    folder = record(RGB, FILMS)
    with pytest.raises(ValueError, match=r"no observation is named 'image'; leave --files\.key out"):
        episodes(folder, "image")


def walk(task: gym.Env, steps: int) -> tuple[Any, list[np.ndarray]]:
    """The observations of a random walk, columns as Minari wants them, and the pictures beside them."""
    task.action_space.seed(0)
    seen, pictures = [task.reset(seed=0)[0]], [task.render()]
    for _ in range(steps):
        seen.append(task.step(task.action_space.sample())[0])
        pictures.append(task.render())
    task.close()
    if isinstance(seen[0], dict):
        return {key: np.stack([o[key] for o in seen]) for key in seen[0]}, pictures
    return np.stack(seen), pictures


WRAPPED: dict[str, Callable[[gym.Env], gym.Env]] = {
    "rgb": lambda task: task,
    "rgb stacks": lambda task: FrameStackObservation(task, 3),
    "grey": GrayscaleObservation,
    "grey stacks": lambda task: FrameStackObservation(GrayscaleObservation(task), 4),
    "floats": lambda task: DtypeObservation(task, np.float32),
    "-1 to 1": lambda task: RescaleObservation(
        DtypeObservation(task, np.float32), np.float32(-1), np.float32(1)
    ),
    "channels first": lambda task: TransformObservation(
        task, lambda o: o.transpose(2, 0, 1), Box(0, 255, (3, 64, 64), np.uint8)
    ),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
def test_what_gymnasiums_wrappers_make_of_frames_is_read(record, wrapped: str) -> None:
    env = WRAPPED[wrapped](gym.make("flam_rl/MultiGrid-v0", render_mode="rgb_array"))
    seen, pictures = walk(env, 6)
    ((frames, warnings),) = episodes(record(env.observation_space, [seen]))
    assert frames.shape == (7, 64, 64, 3)
    want = np.stack(pictures).astype(float)
    if "grey" in wrapped:
        want = np.repeat((want @ [0.2125, 0.7154, 0.0721])[..., None], 3, -1)
    assert np.abs(frames - want).max() <= 1
    assert len(warnings) == ("stacks" in wrapped)


@pytest.mark.learning
def test_a_state_rendered_beside_itself_is_read(record) -> None:
    env = AddRenderObservation(
        gym.make("CartPole-v1", render_mode="rgb_array"),
        render_only=False,
        render_key="pixels",
        obs_key="state",
    )
    seen, pictures = walk(env, 5)
    ((frames, _),) = episodes(record(env.observation_space, [seen]))
    assert np.array_equal(frames, pictures)


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_the_symbols_of_a_grid_are_refused_at_any_size(record) -> None:
    from multigrid.envs import EmptyEnv

    env = EmptyEnv(size=20, agents=2)
    seen = env.reset(seed=0)[0]
    views = np.repeat(seen[0]["image"][None], 5, 0)
    whole = np.repeat(env.grid.state[None], 5, 0)
    with pytest.raises(ValueError, match=r"7, 7, 3.* height and width of 16 or more"):
        read(record(Box(0, 255, views.shape[1:], views.dtype), [views], "test/views-v0"))
    with pytest.raises(ValueError, match="they number things"):
        read(record(Box(0, 255, whole.shape[1:], np.int64), [whole.astype(np.int64)], "test/whole-v0"))


def symbols(size: int, most: int = 10) -> np.ndarray:
    return np.random.default_rng(0).integers(0, most + 1, (6, size, size, 3)).astype(np.uint8)


@pytest.mark.parametrize(
    ("space", "observations", "message"),
    [
        (Box(0, 255, (7, 7, 3), np.uint8), symbols(7), "not the shape of a picture: height and width of 16 or more"),
        (Box(0, 255, (25, 25, 3), np.uint8), symbols(25), "never exceed 10 where white is 255: they number things"),
        (Box(0, 255, (25, 25, 3), np.float32), np.float32(symbols(25)), "never exceed 10 where white is 255"),
        (Box(0, 10, (25, 25, 3), np.uint8), symbols(25), "values end at 10: they number things"),
        (Box(0, 5976, (21, 79), np.int16), np.full((6, 21, 79), 2359, np.int16), "go up to 5976"),
        (Box(-np.inf, np.inf, (39,), np.float64), np.zeros((6, 39)), "not the shape of a picture"),
        (Box(-9, 9, (H, W, 2), np.float32), np.float32(film(6)[..., :2] / 20 - 6), "values from -6 to 6.75; .*floats of 0 to 1"),
        (Box(-np.inf, np.inf, (H, W, 3), np.float32), np.float32(film(6) / 50 - 2), "values from -2 to 3.1"),
        (Box(-np.inf, np.inf, (H, W), np.float32), np.full((6, H, W), np.nan, np.float32), "no numbers or infinite"),
        (Box(0, 255, (20, 64, 64), np.uint8), np.zeros((6, 20, 64, 64), np.uint8), "not the shape of a picture"),
        (Discrete(9), np.arange(6), "holds no pixels"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_with_the_reason(record, space, observations, message: str) -> None:
    folder = record(space, [observations])
    with pytest.raises(ValueError, match=rf"no picture to learn from(?s:.*){message}"):
        read(folder)


def test_a_film_may_begin_dark(record) -> None:
    dark = [f * 0 for f in FILMS]
    assert_films(read(record(RGB, [dark[0], *FILMS])), [dark[0], *FILMS])
    floats = Box(-np.inf, np.inf, (H, W, 3), np.float32)
    folder = record(floats, [np.float32(f) for f in [dark[0], *FILMS]], "test/floats-v0")
    assert_films(read(folder), [dark[0], *FILMS])


def test_a_later_episode_that_leaves_the_range_is_left_out_and_said(record) -> None:
    floats = [np.float32(f / 255) for f in FILMS]
    floats[1] = floats[1] * 100
    floats[2][1, 2, 3] = np.nan
    found = list(episodes(record(Box(-np.inf, np.inf, (H, W, 3), np.float32), floats)))
    assert_films([frames for frames, _ in found], [FILMS[0], FILMS[1][:0], FILMS[2][:0]])
    assert all(
        "leaves the range 0 to 1 that its data set began with" in warnings[0] for _, warnings in found[1:]
    )


def test_a_grey_film_that_stands_still_at_first_is_no_stack(record) -> None:
    late = np.concatenate([np.repeat(AS_GREY[0][:1], 4, 0), FILMS[1]])
    assert_films(read(record(RGB, [late, FILMS[0]])), [late, FILMS[0]])
