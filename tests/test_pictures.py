"""Pictures as video: numbered pictures of any type, and animated ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from films import block, boxed, close, error, only, scene, write_film
from PIL import Image

from flam_rl.data.reading import ReadingConfig, read


def save_pictures(folder: Path, frames: np.ndarray, ending: str, **options) -> None:
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames, 1):
        Image.fromarray(frame).save(folder / f"{number}{ending}", **options)


@pytest.mark.parametrize(
    "ending", [".png", ".PNG", ".jpg", ".JPEG", ".webp", ".tiff", ".bmp", ".gif", ".ppm"]
)
def test_numbered_pictures_of_any_type_are_read_in_natural_order(tmp_path: Path, ending: str) -> None:
    frames = scene(12)
    save_pictures(tmp_path / "shots", frames, ending)
    found, warnings = only(read(tmp_path))
    assert not warnings
    assert block(found) == block(frames)
    lossless = ending.lower() in (".png", ".tiff", ".bmp", ".ppm")
    assert error(found, boxed(frames)) <= (0 if lossless else 6)


def test_a_broken_picture_is_named_and_the_rest_of_its_folder_kept(tmp_path: Path) -> None:
    frames = scene(12)
    save_pictures(tmp_path / "shots", frames, ".png")
    whole = (tmp_path / "shots" / "7.png").read_bytes()
    (tmp_path / "shots" / "7.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "shots" / "9.png").write_bytes(b"no picture")
    reading = read(tmp_path)
    found, warnings = only(reading)
    assert error(found, boxed(np.delete(frames, [6, 8], 0))) == 0
    assert "7.png" in warnings
    assert "9.png" in warnings
    assert [left.source for left in reading.skipped] == ["shots/7.png", "shots/9.png"]
    with pytest.raises(ValueError, match=r"7\.png"):
        read(tmp_path, ReadingConfig(strict=True))


def test_posters_beside_films_are_no_episode(tmp_path: Path) -> None:
    for name in "abc":
        write_film(tmp_path / f"{name}.mp4", scene(5))
        Image.fromarray(scene(1)[0]).save(tmp_path / f"{name}.jpg")
    (tmp_path / "._a.mp4").write_bytes(b"what a Mac leaves beside a.mp4")
    (tmp_path / "notes.txt").write_text("not a film\n" * 50)
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n")
    reading = read(tmp_path)
    assert [info.source for info in reading.episodes] == ["a.mp4", "b.mp4", "c.mp4"]
    assert [left.source for left in reading.skipped] == ["a.jpg", "b.jpg", "c.jpg"]


def test_transparency_is_blended_over_black(tmp_path: Path) -> None:
    rgba = np.zeros((6, 64, 64, 4), np.uint8)
    rgba[..., :3] = (200, 100, 50)
    rgba[:, :, :32, 3] = 255
    rgba[:, :32, 32:, 3] = 128  # below it all that is hidden is a colour
    rgba[range(6), 60, range(6)] = 255  # no two are the same
    save_pictures(tmp_path / "png", rgba, ".png")
    save_pictures(tmp_path / "webp", rgba, ".webp", lossless=True, exact=True)
    for name, codec, pixels in (("a.mov", "qtrle", "argb"), ("b.mov", "prores_ks", "yuva444p10le")):
        write_film(tmp_path / name, rgba, codec=codec, pixels=pixels, given="rgba")
    pictures = [Image.fromarray(frame) for frame in rgba]
    pictures[0].save(tmp_path / "c.png", save_all=True, append_images=pictures[1:], duration=100)
    reading = read(tmp_path, ReadingConfig(split_cuts=False))
    assert len(reading.arrays) == 5
    for frames, info in zip(reading.arrays, reading.episodes, strict=True):
        assert close(frames[0, 10, 10], (200, 100, 50), 3), info
        assert close(frames[0, 10, 50], (100, 50, 25), 3), info
        assert close(frames[0, 50, 50], (0, 0, 0), 1), info


def test_pictures_are_upright_and_16_bit_is_scaled(tmp_path: Path) -> None:
    upright = Image.Exif()
    upright[0x0112] = 6  # turn by 90 degrees clockwise
    save_pictures(tmp_path / "turned", scene(3), ".jpg", exif=upright, quality=95)
    deep = scene(3)[..., 0].astype(np.uint16) * 257
    (tmp_path / "deep").mkdir()
    for number, frame in enumerate(deep):
        Image.fromarray(frame).save(tmp_path / "deep" / f"{number}.png")
    reading = read(tmp_path)
    gray, turned = reading.arrays
    assert error(gray, boxed(scene(3)[..., :1].repeat(3, -1))) == 0
    shown = np.rot90(scene(3), -1, (1, 2))
    assert error(turned, np.pad(shown, ((0, 0), (0, 0), (8, 8), (0, 0)))) < 6


@pytest.mark.parametrize("name", ["a.gif", "a.webp", "a.png", "a.tiff"])
def test_animated_pictures_are_films(tmp_path: Path, name: str) -> None:
    frames = scene(12)
    pictures = [Image.fromarray(frame) for frame in frames]
    options = {} if name == "a.tiff" else {"duration": [100] * 6 + [300] + [100] * 5}
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], lossless=True, **options)
    reading = read(tmp_path / name)
    found, warnings = only(reading)
    if name == "a.tiff":
        assert reading.episodes[0].fps is None
        assert block(found) == block(frames)
    else:
        assert reading.episodes[0].fps == pytest.approx(10)
        assert reading.episodes[0].duration_s == pytest.approx(1.4)
        assert "2 frames repeated" in warnings
        assert block(found) == block(frames[[0, 1, 2, 3, 4, 5, 6, 6, 6, 7, 8, 9, 10, 11]])
