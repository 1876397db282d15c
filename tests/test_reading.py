"""Reading a video: bounds, the mapped cache, and which frames are held out."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from films import boxed, error, only, scene, write_film
from PIL import Image

from flam_rl.data import cache
from flam_rl.data.hold_out import ENOUGH, hold_out
from flam_rl.data.reading import ReadingConfig, read
from flam_rl.types import Video


def test_the_bound_holds_inside_a_file(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", scene(300))
    write_film(tmp_path / "b.mp4", scene(10))
    reading = read(tmp_path, ReadingConfig(max_frames=50))
    found, warnings = only(reading)
    assert len(found) == 50
    assert reading.episodes[0].frames == 300
    assert "its last 250 frames are left out: files.max_frames is 50" in warnings
    assert [left.source for left in reading.skipped] == ["b.mp4"]
    reading = read(tmp_path, ReadingConfig(max_frames=305))
    assert [i.kept for i in reading.episodes] == [300, 5]


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    for setting in ({"height": 0}, {"stride": 0}, {"max_frames": 1}, {"fps": 0.0}):
        name = next(iter(setting))
        with pytest.raises(ValueError, match=rf"files\.{name} is 0|files\.{name} is 1"):
            read(tmp_path, ReadingConfig(**setting))


def test_frames_are_mapped_and_decoded_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, run = tmp_path / "data", tmp_path / "data" / "run"
    data.mkdir()
    write_film(data / "a.mp4", np.concatenate([scene(8), scene(8, background=(150, 140, 60))]))
    (data / "b.mp4").write_bytes(b"broken")
    first = read(data, folder=run)
    assert isinstance(first.arrays[0].base, np.memmap)
    assert (run / cache.FRAMES).stat().st_size == first.video.frames * 64 * 64 * 3
    Image.fromarray(scene(1)[0]).save(run / "1.png")  # what a run writes is not its data
    Image.fromarray(scene(1)[0]).save(run / "2.png")
    before = (run / cache.FRAMES).stat().st_mtime_ns
    with caplog.at_level(logging.INFO):
        again = read(data, folder=run)
    assert "are taken from" in caplog.text
    assert (run / cache.FRAMES).stat().st_mtime_ns == before
    assert (again.episodes, again.skipped) == (first.episodes, first.skipped)
    assert all(np.array_equal(a, b) for a, b in zip(again.arrays, first.arrays, strict=True))

    assert read(data, ReadingConfig(stride=2), run).arrays[0].shape[0] == 4  # other settings
    write_film(data / "c.mp4", scene(5))
    assert len(read(data, folder=run).episodes) == 3  # other data
    os.truncate(run / cache.FRAMES, 1000)  # a file that is not whole
    assert len(read(data, folder=run).video.episodes[2]) == 5
    cache.remove(run)
    assert not list(run.glob("*frames*"))


def test_an_interrupted_reading_leaves_nothing(tmp_path: Path) -> None:
    write_film(tmp_path / "a.mp4", scene(10))
    (tmp_path / "b.mp4").write_bytes(b"broken")
    with pytest.raises(ValueError, match=r"b\.mp4"):
        read(tmp_path, ReadingConfig(strict=True), tmp_path / "run")
    assert not any((tmp_path / "run").iterdir())


def test_a_temporary_cache_goes_with_its_arrays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    (tmp_path / "scratch").mkdir()
    reading = read(write_film(tmp_path / "a.mp4", scene(10)))
    assert not any((tmp_path / "scratch").iterdir())
    shutil.rmtree(tmp_path / "scratch")
    assert error(reading.arrays[0], boxed(scene(10))) < 3


def test_the_last_part_of_a_single_film_is_held_out() -> None:
    film = np.arange(100, dtype=np.uint8)[:, None, None, None].repeat(3, -1)
    split = hold_out(Video((film,)), [{"action": np.arange(100)}], 0, 0.1)
    assert split.training.episodes[0].ravel()[::3].tolist() == list(range(90))
    assert split.held_out.episodes[0].ravel()[::3].tolist() == list(range(90, 100))
    assert split.held_out_entities[0]["action"].tolist() == list(range(90, 100))
    with pytest.raises(ValueError, match="4 frames or more"):
        hold_out(Video((film[:3],)), None, 0, 0.1)


def test_whole_episodes_are_held_out_unless_that_is_most_of_the_video() -> None:
    films = tuple(np.full((10, 1, 1, 3), number, np.uint8) for number in range(20))
    split = hold_out(Video(films), None, 0, 0.1)
    assert (len(split.training.episodes), len(split.held_out.episodes)) == (18, 2)
    assert not {int(e[0, 0, 0, 0]) for e in split.training.episodes} & {
        int(e[0, 0, 0, 0]) for e in split.held_out.episodes
    }
    for seed in range(4):
        uneven = hold_out(Video((films[0].repeat(50, 0), films[1])), None, seed, 0.1)
        assert uneven.training.frames >= 450


def test_long_episodes_go_to_training_in_pieces() -> None:
    film = np.arange(2500, dtype=np.int64).astype(np.uint8)[:, None, None, None].repeat(3, -1)
    split = hold_out(Video((film, film[:7])), [{"action": np.arange(2500)}, {"action": np.arange(7)}], 0, 0.1)
    assert max(map(len, split.training.episodes)) <= 1000
    pieces = sorted(p for p in split.pieces if p.episode == 0)
    assert [piece.start for piece in pieces] == [0, 750, 1500]
    assert pieces[-1].stop == 2250
    for frames, piece, truth in zip(
        split.training.episodes, split.pieces, split.training_entities, strict=True
    ):
        assert truth["action"].tolist() == list(range(piece.start, piece.stop))
        assert np.array_equal(frames[:, 0, 0, 0], truth["action"] % 256)


def test_of_a_large_video_no_more_is_held_out_than_evaluation_needs() -> None:
    films = tuple(np.broadcast_to(np.uint8(0), (500, 8, 8, 3)) for _ in range(1000))
    split = hold_out(Video(films), None, 0, 0.1)
    assert split.held_out.frames == ENOUGH
    assert split.training.frames == 500_000 - ENOUGH
    alone = hold_out(Video((np.broadcast_to(np.uint8(0), (500_000, 8, 8, 3)),)), None, 0, 0.1)
    assert (alone.held_out.frames, alone.training.frames) == (ENOUGH, 500_000 - ENOUGH)
