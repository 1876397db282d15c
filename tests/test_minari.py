"""Minari datasets as others record them: found, and read as the pictures that they hold."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import h5py
import minari
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Text, Tuple
from gymnasium.wrappers import (
    AddRenderObservation,
    DtypeObservation,
    FrameStackObservation,
    GrayscaleObservation,
    RescaleObservation,
    TransformObservation,
)
from minari.data_collector.episode_buffer import EpisodeBuffer

from flam_rl.actions import ActionSpace
from flam_rl.data.minari import (
    action_space,
    episodes,
    find_dataset,
    pieces,
    read_entities,
    read_labels,
    recorded_task,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(eval_env|env_spec).*:UserWarning"
)  # Minari wants an environment
H, W = 32, 48
RGB = Box(0, 255, (H, W, 3), np.uint8)
FORMATS = ("parquet", "hdf5", "arrow")


def film(steps: int, seed: int = 0) -> np.ndarray:
    """A bright block that moves over a ground of many colours: uint8 `(steps, H, W, 3)`."""
    ground = np.random.default_rng(seed).integers(0, 200, (H, W, 3), np.uint8)
    frames = np.repeat(ground[None], steps, 0)
    for step, frame in enumerate(frames):
        frame[8:16, 2 * step % (W - 8) : 2 * step % (W - 8) + 8] = 255, 220, 10
    return frames


FILMS = [film(5, 0), film(9, 1), film(3, 2)]


def grey(frames: np.ndarray) -> np.ndarray:
    return frames[..., 1]


def stacked(frames: np.ndarray, count: int) -> np.ndarray:
    """`(T, count, ...)`, each frame after the `count - 1` before it, as gymnasium's FrameStackObservation."""
    padded = np.concatenate([np.repeat(frames[:1], count - 1, 0), frames])
    return np.stack([padded[i : i + len(frames)] for i in range(count)], 1)


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "root"))
    return tmp_path / "root"


@pytest.fixture
def record(root: Path) -> Callable[..., Path]:
    """Minari's own writer; gives the folder of the data."""

    def write(
        space: gym.Space,
        observations: list[Any],
        name: str = "test/film-v0",
        data_format: str = "parquet",
        jpeg: bool = False,
        actions: gym.Space = Discrete(5000),
        infos: Callable[[int], dict] = lambda steps: {},
        taken: list[np.ndarray] | None = None,
    ) -> Path:
        steps = [_rows(o) - 1 for o in observations]
        taken = taken or [
            list(range(n)) if isinstance(actions, Discrete) else [actions.sample() for _ in range(n)]
            for n in steps
        ]
        buffers = [
            EpisodeBuffer(
                observations=o,
                actions=list(a),
                rewards=list(np.arange(n) / 2),
                terminations=[False] * n,
                truncations=[False] * (n - 1) + [True],
                infos=infos(n + 1),
            )
            for o, a, n in zip(observations, taken, steps, strict=True)
        ]
        minari.create_dataset_from_buffers(
            name, buffers, observation_space=space, action_space=actions, data_format=data_format, jpeg_encoding=jpeg,
            algorithm_name="none", author="a", author_email="a@b.c", code_permalink="c", description="d",
        )  # fmt: skip
        return root / name / "data"

    return write


def _rows(observations: Any) -> int:
    while isinstance(observations, (dict, tuple)):
        observations = next(iter(observations.values() if isinstance(observations, dict) else observations))
    return len(observations)


def read(folder: Path, key: str | None = None) -> list[np.ndarray]:
    found = [frames for frames, _ in episodes(folder, key)]
    assert all(frames.dtype == np.uint8 and frames.shape[1:] == (H, W, 3) for frames in found)
    assert all(frames.flags.writeable and frames.flags.c_contiguous for frames in found)
    return found


def assert_films(found: list[np.ndarray], expected: list[np.ndarray], within: int = 0) -> None:
    assert [len(frames) for frames in found] == [len(frames) for frames in expected]
    for frames, frames_expected in zip(found, expected, strict=True):
        assert np.abs(frames.astype(int) - frames_expected).max(initial=0) <= within


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


def test_a_dataset_is_found_by_folder_root_and_name(
    record, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(RGB, FILMS)
    for data in (
        folder,
        folder.parent,
        root / "test",
        root,
        str(folder),
        "test/film-v0",
        "test/film",
        "test",
    ):
        assert find_dataset(data) == folder.resolve()
    monkeypatch.chdir(folder.parent)
    assert find_dataset("data") == find_dataset(".") == find_dataset(Path("../film-v0")) == folder.resolve()
    assert_films(read(Path("data")), FILMS)
    (root.parent / "link").symlink_to(folder.parent, target_is_directory=True)
    assert find_dataset(root.parent / "link") == folder.resolve()
    assert_films(read(root.parent / "link" / "data"), FILMS)
    (root / "test" / "again").symlink_to(root, target_is_directory=True)  # a loop
    assert find_dataset(root) == folder.resolve()


def test_several_datasets_are_listed(record, root: Path) -> None:
    record(RGB, FILMS[:1])
    record(RGB, FILMS[:1], "test/film-v1")
    record(RGB, FILMS[:1], "other-v0")
    with pytest.raises(
        ValueError, match=r"3 Minari datasets are there; name one of .*other-v0, .*film-v0, .*film-v1"
    ):
        find_dataset(root)
    with pytest.raises(
        ValueError, match=r"test/film below .*2 Minari datasets are there; name one of .*film-v0"
    ):
        find_dataset("test/film")
    assert find_dataset("test/film-v1") == (root / "test/film-v1/data").resolve()


def test_a_dataset_half_written_is_not_seen(record, root: Path) -> None:
    folder = record(RGB, FILMS[:1])
    shutil.copytree(folder, root / ".other-x7/data")
    assert find_dataset(root) == folder.resolve()


def test_what_is_no_dataset_is_left_to_others(root: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "metadata.json").write_text('[{"file_name": "a.mp4"}]')
    (films / "a.mp4").write_bytes(b"")
    assert find_dataset(films) is find_dataset(films / "a.mp4") is find_dataset("no/such-v0") is None
    assert find_dataset("/no/such") is find_dataset("12:30:00.mp4") is find_dataset("rtsp://[x]/**") is None
    assert not root.exists()  # nothing is made by looking


def test_a_dataset_beside_films_is_not_taken_for_all(record, root: Path) -> None:
    folder = record(RGB, FILMS)
    (root / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds a Minari dataset, .* and pictures or films, as .*a\.mp4"):
        find_dataset(root)
    assert find_dataset(folder.parent) == folder.resolve()


def test_an_address_is_no_name(root: Path, record) -> None:
    record(RGB, FILMS)
    for address in ("https://example.org/film.mp4?token=" + "a" * 400, "rtsp://camera/1", "a" * 300, "\0"):
        assert find_dataset(address) is None


def broken(folder: Path, **fields: Any) -> None:
    path = folder / "metadata.json"
    metadata = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in metadata.items() if v is not None}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"total_episodes": "many"}, "total_episodes is 'many'; a dataset to read has 1 or more"),
        ({"total_episodes": 0}, "total_episodes is 0"),
        ({"total_episodes": None}, "total_episodes is None"),
        ({"data_format": "zarr"}, "data_format is 'zarr'; allowed are parquet, arrow, hdf5"),
        ({"data_format": ["a"]}, "data_format is"),
        ({"data_format": "hdf5"}, r"main_data\.hdf5 is missing"),
        ({"observation_space": "{"}, "observation_space is no space that Minari writes"),
        ({"observation_space": '{"type": "Graph"}'}, "observation_space is no space"),
        ({"observation_space": '{"type": "Box", "low": 0}'}, "observation_space is no space"),
        ({"observation_space": 7}, "observation_space is no space"),
        ({"action_space": "[" * 200_000}, "action_space is no space"),
        (
            {"observation_space": None, "env_spec": '{"id": "nobody:Evil-v0"}'},
            "has no observation_space, and the environment that would tell is not made",
        ),
    ],
)
def test_broken_metadata_gives_one_clear_error(record, fields: dict, message: str) -> None:
    folder = record(RGB, FILMS)
    broken(folder, **fields)
    assert find_dataset(folder.parent) == folder.resolve()
    for call in (read, action_space):
        with pytest.raises(ValueError, match=rf"metadata\.json.*{message}"):
            call(folder)


def test_the_recorded_task_is_told_and_not_made(record) -> None:
    folder = record(RGB, FILMS)
    assert recorded_task(folder) == ("", {})
    broken(folder, env_spec=json.dumps({"id": "nobody:Evil-v0", "kwargs": {"n": 3, "render_mode": "human"}}))
    assert recorded_task(folder) == ("nobody:Evil-v0", {"n": 3})
    assert_films(read(folder), FILMS)
    for damaged in ("{", "[1]", '{"kwargs": 7}', '{"id": 7}', 7, "[" * 200_000):
        broken(folder, env_spec=damaged)
        with pytest.raises(ValueError, match=r"metadata\.json: env_spec"):
            recorded_task(folder)


@pytest.mark.parametrize("text", ["", '{"total_episodes"', "[" * 200_000, "\xff\xfe"])
def test_metadata_that_is_no_json_is_explained(record, text: str) -> None:
    folder = record(RGB, FILMS)
    (folder / "metadata.json").write_text(text, encoding="latin-1")
    for call in (find_dataset, read):
        with pytest.raises(ValueError, match=r"metadata\.json cannot be read as JSON"):
            call(folder)


def test_data_without_metadata_is_explained(record) -> None:
    folder = record(RGB, FILMS, data_format="hdf5")
    (folder / "metadata.json").unlink()
    assert find_dataset(folder.parent) == folder.resolve()
    with pytest.raises(
        FileNotFoundError, match=r"metadata\.json is missing; Minari writes it beside the data"
    ):
        read(folder)


def test_a_damaged_episode_is_left_out_and_said(record) -> None:
    folder = record(RGB, [*FILMS, FILMS[0]], infos=lambda rows: {"entities_heading": np.arange(rows)})
    shutil.rmtree(folder / "0")
    damaged = next((folder / "2").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-400])
    found = list(episodes(folder))
    assert_films([frames for frames, _ in found], [FILMS[0][:0], FILMS[1], FILMS[2][:0], FILMS[0]])
    assert "episode 0 of" in found[0][1][0]
    assert "episode 2 of" in found[2][1][0]
    assert found[1][1] == found[3][1] == []
    assert [len(entities.get("heading", [])) for entities in read_entities(folder)] == [0, 9, 0, 5]
    with pytest.raises(ValueError, match="episode 2 of"):
        list(read_labels(folder, [1, 2]))


def test_episodes_are_read_once_and_one_at_a_time(record) -> None:
    films = [film(3000, seed) for seed in range(5)]
    folder = record(RGB, films)
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    for index, (frames, _) in enumerate(episodes(folder)):
        assert np.array_equal(frames, films[index])
        assert tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - before < 3 * films[0].nbytes
        shutil.rmtree(folder / str(index))  # gone before the next is asked for
    tracemalloc.stop()
    assert index == 4


@pytest.mark.parametrize("data_format", FORMATS)
def test_memory_does_not_grow_with_the_episode(record, data_format: str) -> None:
    peaks = []
    for steps in (1000, 4000):
        films = [film(steps, 0), FILMS[1]]
        folder = record(RGB, films, f"test/{steps}-v0", data_format)
        found: list[list[np.ndarray]] = [[], []]
        held, peak = pa.total_allocated_bytes(), 0
        tracemalloc.start()
        for index, frames, warnings in pieces(folder):
            peak = max(peak, pa.total_allocated_bytes() - held + tracemalloc.get_traced_memory()[1])
            tracemalloc.reset_peak()
            found[index].append(frames)
            assert warnings == []
        tracemalloc.stop()
        peaks.append(peak - sum(frames.nbytes for frames in found[0]))
        assert_films([np.concatenate(piece) for piece in found], films)
    assert peaks[1] < peaks[0] + 4e6  # the longer film has 14 MB more


def test_what_decodes_of_a_damaged_episode_is_kept(record) -> None:
    films = [film(4000, 0), FILMS[1]]
    folder = record(RGB, films)
    file = folder / "0" / "part-0.parquet"
    stored = bytearray(file.read_bytes())
    stored[len(stored) // 2 : len(stored) // 2 + 400] = bytes(400)
    file.write_bytes(stored)
    (kept, warnings), (frames, none) = episodes(folder)
    assert 0 < len(kept) < 4000
    assert np.array_equal(kept, films[0][: len(kept)])
    assert f"its first {len(kept)} frames are kept" in warnings[0]
    assert np.array_equal(frames, films[1])
    assert none == []


@pytest.mark.parametrize("data_format", ["parquet", "hdf5"])
def test_labels_and_entities_are_read_without_the_frames(record, data_format: str) -> None:
    infos = {"entities_position": np.arange(18).reshape(9, 2), "else": np.ones(9)}
    folder = record(RGB, [FILMS[1]], data_format=data_format, infos=lambda steps: infos)
    if data_format == "parquet":
        (file,) = folder.glob("**/*.parquet")
        group = pq.ParquetFile(file).metadata.row_group(0)
        (frames,) = (
            column
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema.startswith("observations")
        )
        stored = bytearray(file.read_bytes())
        at = frames.dictionary_page_offset or frames.data_page_offset
        stored[at : at + frames.total_compressed_size] = bytes(frames.total_compressed_size)
        file.write_bytes(stored)
    else:
        with h5py.File(folder / "main_data.hdf5", "a") as opened:
            del opened["episode_0/observations"]
    with pytest.raises(ValueError, match="cannot be read"):
        read(folder)
    assert next(read_labels(folder, [0]))[0].tolist() == list(range(8))
    (entities,) = read_entities(folder)
    assert list(entities) == ["position"]
    assert np.array_equal(entities["position"], infos["entities_position"])


def test_an_episode_without_frames_is_left_out_and_said(record) -> None:
    folder = record(RGB, FILMS, data_format="hdf5")
    with h5py.File(folder / "main_data.hdf5", "a") as opened:
        for episode in range(2):
            opened[f"episode_{episode}/observations"].resize(0, axis=0)
    found = list(episodes(folder))
    assert_films([frames for frames, _ in found], [FILMS[0][:0], FILMS[1][:0], FILMS[2]])
    assert "episode 1 of" in found[1][1][0]
    assert "has no frames" in found[1][1][0]


def test_damaged_hdf5_is_explained(record) -> None:
    folder = record(RGB, FILMS, data_format="hdf5")
    file = folder / "main_data.hdf5"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"no picture to learn from.*episode [0-2] of .* cannot be read"):
        read(folder)


@pytest.mark.parametrize("data_format", FORMATS)
def test_labels_are_read_as_recorded(record, data_format: str) -> None:
    films = [film(n) for n in (4, 6, 3)]
    floats = [np.float32(f / 255) for f in films]
    folder = record(Box(0, 1, (H, W, 3), np.float32), floats, data_format=data_format, actions=Discrete(9))
    assert action_space(folder) == ActionSpace.discrete(9)  # the last actions never occurred
    for (actions, rewards, terminations), n in zip(read_labels(folder, [1, 0]), (5, 3), strict=True):
        assert actions.tolist() == list(range(n))
        assert rewards.tolist() == [0, 0.5, 1, 1.5, 2][:n]
        assert terminations.tolist() == [False] * n


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "actions",
    [
        Box(-1, 1, (2,), np.float32),
        Box(-1, 1, (2, 3), np.float64),
        Box(-np.inf, 1, (1,), np.float32),
        MultiDiscrete([3, 2]),
        Discrete(3, start=-1),
    ],
    ids=str,
)
def test_actions_of_every_kind_are_read(record, actions: gym.Space, data_format: str) -> None:
    actions.seed(0)
    taken = [np.array([actions.sample() for _ in range(n - 1)]) for n in (5, 9, 3)]
    folder = record(RGB, FILMS, data_format=data_format, actions=actions, taken=taken)
    space = action_space(folder)
    assert space.space == actions or actions.dtype == np.float64
    for number, (given, rewards, _) in zip([2, 0, 1], read_labels(folder, [2, 0, 1]), strict=True):
        assert given.shape == (len(rewards), *actions.shape)
        assert given.dtype == (np.float32 if space.kind == "box" else np.int64)
        assert np.allclose(given, taken[number])


@pytest.mark.parametrize("actions", [Dict({"a": Discrete(2)}), MultiBinary(3), Discrete(70_000)], ids=str)
def test_actions_that_labels_cannot_name_are_refused(record, actions: gym.Space, root: Path) -> None:
    storage = minari.dataset.minari_storage.MinariStorage
    root.mkdir()
    storage.new(root / "data", RGB, actions, data_format="parquet")
    broken(root / "data", total_episodes=1)
    kind = str(actions).split("(")[0]
    said = (
        "allowed is 1 to 65536"
        if kind == "Discrete"
        else f"actions are {kind}.*allowed are Discrete, MultiDiscrete"
    )
    for call in (action_space, lambda folder: next(read_labels(folder, [0]))):
        with pytest.raises(ValueError, match=rf"{said}.*--labels 0 trains"):
            call(root / "data")
