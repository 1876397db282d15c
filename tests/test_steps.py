"""Pictures at their times become episodes of equal steps; hard cuts start new ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from films import block, boxed, error, only, scene, write_film

from flam_rl.data.reading import ReadingConfig, read


def test_variable_rate_is_resampled_to_the_median_rate(tmp_path: Path) -> None:
    times = [0.1 * n if n < 20 else 1.9 + 0.2 * (n - 19) for n in range(30)]  # 10 frames/s, then 5
    for name in ("a.mp4", "a.mkv"):
        reading = read(write_film(tmp_path / name, scene(30), times=times))
        found, warnings = only(reading)
        assert reading.episodes[0].fps == pytest.approx(10)
        assert block(found) == [8 + n for n in range(19)] + [27, 27] + [
            8 + n for n in range(20, 29) for _ in "ab"
        ] + [37]
        assert (
            "not equally spaced in time: resampled to the median rate of 10 frames/s, 10 frames repeated"
            in warnings
        )


def test_a_pause_becomes_equal_steps_and_a_long_one_two_episodes(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.mp4", scene(20), times=[0.1 * n + (3 if n >= 10 else 0) for n in range(20)]
    )
    reading = read(path)
    found, warnings = only(reading)
    assert block(found) == [*range(8, 17), *[17] * 31, *range(18, 28)]
    assert (reading.episodes[0].frames, reading.episodes[0].kept) == (20, 50)
    assert "the longest pause, 3.10 s, is at 0.90 s" in warnings
    path = write_film(
        tmp_path / "b.mp4", scene(20), times=[0.1 * n + (60 if n >= 10 else 0) for n in range(20)]
    )
    reading = read(path)
    assert [(i.start_frame, i.frames, i.kept) for i in reading.episodes] == [(0, 10, 10), (10, 10, 10)]
    assert "a pause of 60.1 s, at 61.00 s" in reading.episodes[1].warnings[0]


@pytest.mark.learning
def test_clocks_that_round_and_jitter_lose_no_frame(tmp_path: Path) -> None:
    jitter = np.random.default_rng(0).uniform(-0.006, 0.006, 300)
    for name, times in {
        "milliseconds.mkv": [n / 30 for n in range(300)],
        "ntsc.flv": [n * 1001 / 30000 for n in range(300)],
        "phone.mp4": [max(0, n / 30 + late) for n, late in enumerate(jitter)],
    }.items():
        codec = "flv" if name.endswith("flv") else "libx264"
        reading = read(write_film(tmp_path / name, scene(300), codec=codec, times=times))
        found, warnings = only(reading)
        assert not warnings, name
        assert block(found) == block(scene(300)), name
        assert reading.episodes[0].fps == pytest.approx(30, abs=0.2)


def test_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scene(20))
    assert block(only(read(path, ReadingConfig(fps=5)))[0]) == list(range(8, 28, 2))
    assert block(only(read(path, ReadingConfig(fps=20)))[0]) == [8 + n for n in range(20) for _ in "ab"]
    assert block(only(read(path, ReadingConfig(fps=5, stride=2)))[0]) == list(range(8, 28, 4))
    reading = read(path, ReadingConfig(stride=3))
    assert block(only(reading)[0]) == list(range(8, 28, 3))
    assert (reading.episodes[0].frames, reading.episodes[0].kept, reading.episodes[0].fps) == (20, 7, 10)


def test_a_hard_cut_starts_a_new_episode(tmp_path: Path) -> None:
    scenes = [scene(15), scene(20, background=(150, 140, 60)), scene(12, background=(20, 20, 20))]
    path = write_film(tmp_path / "a.mp4", np.concatenate(scenes))
    reading = read(path)
    assert [(i.source, i.start_frame, i.frames, i.kept) for i in reading.episodes] == [
        ("a.mp4", 0, 15, 15),
        ("a.mp4", 15, 20, 20),
        ("a.mp4", 35, 12, 12),
    ]
    assert [i.duration_s for i in reading.episodes] == pytest.approx([1.5, 2, 1.2])
    for frames, true in zip(reading.arrays, scenes, strict=True):
        assert error(frames, boxed(true)) < 4
    assert len(only(read(path, ReadingConfig(split_cuts=False)))[0]) == 47


def test_motion_is_no_cut(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 48, 64, 3), dtype=np.uint8)
    wide = np.kron(rng.integers(0, 256, (8, 100, 3), dtype=np.uint8), np.ones((6, 6, 1), np.uint8))
    pan = np.stack([wide[:, 9 * n : 9 * n + 64] for n in range(40)])
    stop_and_go = np.concatenate([pan[:1].repeat(15, 0), pan[:20], pan[20:21].repeat(15, 0)])
    scrolling = np.stack([wide[:, n // 4 : n // 4 + 64] for n in range(60)])  # a pixel each fourth frame
    films = {"noise": noise, "pan": pan, "stop": stop_and_go, "scrolling": scrolling}
    for name, frames in films.items():
        assert len(only(read(write_film(tmp_path / f"{name}.mkv", frames, codec="ffv1")))[0]) == len(frames)
