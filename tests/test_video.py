"""Anyone's video: real films and pictures of many kinds, each with the reading that a player shows."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from films import BACKGROUND, GREEN, RED, scene, write_film
from PIL import Image

from flam_rl.data import cache
from flam_rl.data.hold_out import hold_out
from flam_rl.data.reading import Reading, ReadingConfig, frame_size, read
from flam_rl.types import Video

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
COLOURSPACE = {"bt601": 6, "bt709": 1, "bt2020": 9}
LIMITED, FULL = 1, 2


def boxed(frames: np.ndarray) -> np.ndarray:
    """48x64 as it is letterboxed to 64x64."""
    return np.pad(frames, ((0, 0), (8, 8), (0, 0), (0, 0)))


def block(frames: np.ndarray) -> list[int]:
    """Column of the white block's left side in each frame."""
    return [int(np.argwhere(frame.min(-1) > 150)[:, 1].min()) for frame in frames]


def error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    return float(np.abs(found.astype(int) - expected).mean())


def close(pixel: np.ndarray, colour: tuple[int, ...], within: int = 25) -> bool:
    return bool(np.abs(pixel.astype(int) - colour).max() <= within)


def only(reading: Reading) -> tuple[np.ndarray, str]:
    """The frames of the only episode and all its warnings."""
    assert len(reading.episodes) == 1, reading.episodes
    assert reading.episodes[0].kept == len(reading.arrays[0])
    return reading.arrays[0], "\n".join(reading.episodes[0].warnings)


# Pictures


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


# What is a film, and where it is


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.m4v", "mpeg4"),
        ("a.mpg", "mpeg2video"),
        ("a.ts", "libx264"),
        ("a.wmv", "wmv2"),
        ("a.flv", "flv"),
        ("a.avi", "mpeg4"),
        ("a.webm", "libvpx-vp9"),
        ("a.mkv", "ffv1"),
        ("a.mov", "libx264"),
        ("a.3gp", "mpeg4"),
        ("a.vob", "mpeg2video"),
        ("a.nut", "ffv1"),
        ("a.y4m", "wrapped_avframe"),
    ],
)
def test_the_demuxer_says_what_is_a_film(tmp_path: Path, name: str, codec: str) -> None:
    path = write_film(tmp_path / name, scene(12), codec=codec, rate=25)
    for other in (name, "no-ending", "wrong-ending.dat"):
        path = path.rename(tmp_path / other)
        found, warnings = only(read(path))
        assert not warnings
        assert block(found) == block(scene(12))
        assert error(found, boxed(scene(12))) < 3
    assert len(read(tmp_path).episodes) == 1


def test_a_name_with_colons_or_percents_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("12:30:00.mp4", "take%02d.mp4", "http:a.mp4"):
        write_film(tmp_path / "x.mp4", scene(4)).rename(tmp_path / name)
    assert len(read(tmp_path).episodes) == 3
    monkeypatch.chdir(tmp_path)
    only(read(Path("12:30:00.mp4")))


def test_linked_folders_are_followed_without_going_round(tmp_path: Path) -> None:
    data, elsewhere = tmp_path / "data", tmp_path / "elsewhere"
    data.mkdir()
    elsewhere.mkdir()
    write_film(elsewhere / "a.mp4", scene(4))
    write_film(data / "b.mp4", scene(5))
    (data / "linked").symlink_to(elsewhere, target_is_directory=True)
    (elsewhere / "round").symlink_to(data, target_is_directory=True)
    (data / "nowhere.mp4").symlink_to(data / "gone.mp4")
    assert [(i.source, i.kept) for i in read(data).episodes] == [("b.mp4", 5), ("linked/a.mp4", 4)]


def test_films_that_cannot_be_read_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_film(tmp_path / "good.mp4", scene(4))
    whole = (tmp_path / "good.mp4").read_bytes()
    (tmp_path / "bad.mp4").write_bytes(b"not a film")
    (tmp_path / "headless.mp4").write_bytes(whole[: len(whole) // 3])  # its index was at the end
    write_film(tmp_path / "short.mkv", scene(1))
    reading = read(tmp_path)
    assert [info.source for info in reading.episodes] == ["good.mp4"]
    assert {left.source for left in reading.skipped} == {"bad.mp4", "headless.mp4", "short.mkv"}
    assert "skipped bad.mp4: Invalid data" in caplog.text
    with pytest.raises(ValueError, match=r"bad\.mp4"):
        read(tmp_path, ReadingConfig(strict=True))
    (tmp_path / "good.mp4").unlink()
    with pytest.raises(FileNotFoundError, match=r"no readable video below .*\n  bad\.mp4: Invalid data"):
        _ = read(tmp_path).video
    with pytest.raises(FileNotFoundError, match="no such file or folder"):
        read(tmp_path / "nowhere")


# Damage


def damaged(path: Path, share: float, count: int = 40) -> Path:
    """`count` bytes at `share` of the file overwritten with noise."""
    content = bytearray(path.read_bytes())
    start = int(len(content) * share)
    content[start : start + count] = np.random.default_rng(0).bytes(count)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mp4", "mpeg4"),
        ("a.mp4", "libx265"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx-vp9"),
        ("a.avi", "mjpeg"),
        ("a.flv", "flv"),
    ],
)
def test_a_film_cut_short_is_kept_as_far_as_it_decodes(tmp_path: Path, name: str, codec: str) -> None:
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    pixels = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_film(tmp_path / name, scene(200), codec=codec, pixels=pixels, container_options=options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    reading = read(path)
    found, warnings = only(reading)
    info = reading.episodes[0]
    assert 40 < info.frames < 160
    assert f"cut short: {info.frames} of 200 frames decode; the end is missing after " in warnings
    broke = float(warnings.partition("missing after ")[2].partition(" s")[0])
    assert broke == pytest.approx(info.frames / 10, abs=0.5)
    good = min(info.frames, len(found)) - 5  # the last ones may be blocks of what was cut
    assert block(found[:good]) == block(scene(200)[:good])


def test_frames_before_and_after_damage_are_kept(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scene(200), options={"g": "10"})
    reading = read(damaged(path, 0.5))
    found, warnings = only(reading)
    info = reading.episodes[0]
    assert 185 <= info.frames < 200
    assert info.kept == 200  # the frames that are missing are held, so that steps stay equal
    assert "damaged " in warnings
    where = float(warnings.partition("damaged ")[2].replace("from ", "at ").partition("at ")[2].split(" ")[0])
    wrong = [n for n, (a, b) in enumerate(zip(block(found), block(scene(200)), strict=True)) if a != b]
    assert wrong
    assert len(wrong) <= 20
    assert wrong[0] / 10 - 1 <= where <= wrong[-1] / 10 + 1
    assert read(path).arrays[0].tobytes() == found.tobytes()


def test_a_film_whose_end_does_not_decode_says_so(tmp_path: Path) -> None:
    path = write_film(
        tmp_path / "a.mp4", scene(200), codec="libx265"
    )  # one key frame: what follows damage is lost
    reading = read(damaged(path, 0.4, 100))
    _, warnings = only(reading)
    assert reading.episodes[0].frames < 150
    assert f"cut short: {reading.episodes[0].frames} of 200 frames decode" in warnings


def test_a_whole_film_beside_longer_sound_is_not_cut_short(tmp_path: Path) -> None:
    for name, codec in (("a.mp4", "aac"), ("b.mkv", "aac")):
        with av.open(str(tmp_path / name), "w") as out:
            film, sound = out.add_stream("libx264", rate=10), out.add_stream(codec, rate=8000)
            film.height, film.width, film.pix_fmt = 48, 64, "yuv420p"
            for frame in scene(20):
                out.mux(film.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            out.mux(film.encode())
            quiet = av.AudioFrame.from_ndarray(np.zeros((1, 8000 * 4), np.float32), "fltp", "mono")
            quiet.rate = 8000
            out.mux(sound.encode(quiet))
            out.mux(sound.encode())
        found, warnings = only(read(tmp_path / name))
        assert len(found) == 20
        assert not warnings


# What a player shows


@pytest.mark.parametrize("name", ["a.mp4", "a.mov", "a.mkv"])
@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_is_applied(tmp_path: Path, name: str, rotation: int) -> None:
    stored = scene(12)
    reading = read(write_film(tmp_path / name, stored, rotation=rotation))
    found, _ = only(reading)
    info = reading.episodes[0]
    shown = np.rot90(stored, -rotation // 90, (1, 2))
    assert (info.rotation, info.height, info.width) == (rotation, *shown.shape[1:3])
    bars = [(64 - side) // 2 for side in shown.shape[1:3]]
    assert error(found, np.pad(shown, ((0, 0), (bars[0],) * 2, (bars[1],) * 2, (0, 0)))) < 3


def test_a_mirrored_film_is_mirrored(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=10)
        film.height, film.width, film.pix_fmt = 48, 64, "yuv420p"
        film.set_display_matrix((-(1 << 16), 0, 0, 0, 1 << 16, 0, 64 << 16, 0, 1 << 30))
        for frame in scene(6):
            out.mux(film.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        out.mux(film.encode())
    assert error(only(read(path))[0], boxed(scene(6)[:, :, ::-1])) < 4


@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "libx264"), ("a.mpg", "mpeg2video"), ("a.avi", "mpeg4")]
)
def test_pixels_that_are_not_square_are_shown_so(tmp_path: Path, name: str, codec: str) -> None:
    narrow = scene(10, 48, 36)
    path = write_film(tmp_path / name, narrow, codec=codec, rate=25, sample_aspect_ratio=Fraction(16, 9))
    reading = read(path)
    assert (reading.episodes[0].height, reading.episodes[0].width) == (48, 64)
    frame = only(reading)[0][0]
    assert close(frame[10, 12], RED)  # the red block is 8 columns, shown as 14
    assert close(frame[10, 17], BACKGROUND)


@pytest.mark.parametrize("bits", [8, 10])
@pytest.mark.parametrize("colours", [LIMITED, FULL])
@pytest.mark.parametrize("matrix", KR_KB)
def test_range_and_colour_matrix_are_what_the_film_says(
    tmp_path: Path, matrix: str, colours: int, bits: int
) -> None:
    planes = yuv(scene(4), matrix, colours, bits)
    path = tmp_path / "a.mp4"
    pixels = "yuv444p" if bits == 8 else "yuv444p10le"
    with av.open(str(path), "w") as out:
        film = out.add_stream("libx264", rate=10, options={"qp": "0"})
        film.height, film.width, film.pix_fmt = 48, 64, pixels
        film.codec_context.colorspace, film.codec_context.color_range = COLOURSPACE[matrix], colours
        for three in planes:
            out.mux(film.encode(frame_from_planes(three, pixels)))
        out.mux(film.encode())
    found = only(read(path))[0]
    assert np.abs(found.astype(int) - boxed(scene(4))).max() <= 1


def yuv(frames: np.ndarray, matrix: str, colours: int, bits: int) -> np.ndarray:
    """`(T, 3, H, W)` by the definition of ITU-R BT.601, 709 and 2020."""
    kr, kb = KR_KB[matrix]
    red, green, blue = np.moveaxis(frames / 255, -1, 0)
    luma = kr * red + (1 - kr - kb) * green + kb * blue
    chroma = [(blue - luma) / (2 * (1 - kb)), (red - luma) / (2 * (1 - kr))]
    unit, middle = 2 ** (bits - 8), 2 ** (bits - 1)
    low, luma_span, chroma_span = (16 * unit, 219 * unit, 224 * unit)
    if colours == FULL:
        low, luma_span, chroma_span = 0, 2**bits - 1, 2**bits - 1
    planes = [low + luma_span * luma, *(middle + chroma_span * c for c in chroma)]
    return np.stack(planes, 1).round().astype(np.uint8 if bits == 8 else "<u2")


def frame_from_planes(planes: np.ndarray, pixels: str) -> av.VideoFrame:
    frame = av.VideoFrame(planes.shape[2], planes.shape[1], pixels)
    for plane, values in zip(frame.planes, planes, strict=True):
        row = plane.line_size // values.itemsize
        plane.update(np.pad(values, ((0, 0), (0, row - values.shape[1]))).tobytes())
    return frame


@pytest.mark.parametrize(("height", "width", "matrix"), [(48, 64, "bt601"), (720, 1280, "bt709")])
def test_a_film_that_names_no_matrix_has_that_of_its_size(
    tmp_path: Path, height: int, width: int, matrix: str
) -> None:
    frames = scene(2, height, width)
    planes = yuv(frames, matrix, LIMITED, 8)
    path = write_film(
        tmp_path / "a.mkv",
        planes,
        pixels="yuv444p",
        given="yuv444p",
        size=(height, width),
        options={"qp": "0"},
    )
    found, _ = only(read(path, ReadingConfig(height=height, width=width)))
    assert np.abs(found.astype(int) - frames).max() <= 1


@pytest.mark.parametrize(
    ("name", "codec", "pixels"),
    [
        ("a.mpg", "mpeg2video", "yuv420p"),
        ("a.mp4", "libx264", "yuv420p"),
        ("a.mkv", "libx264", "yuv422p10le"),
    ],
)
def test_interlaced_films_lose_their_combs(tmp_path: Path, name: str, codec: str, pixels: str) -> None:
    fields = scene(40)
    fields[:, 20:28] = fields[:, 24:25]  # the rows around the block alike, so that combs are all there is
    woven = fields[::2].copy()
    woven[:, 1::2] = fields[1::2, 1::2]  # top field first
    options = {"flags": "+ilme+ildct"}
    found, _ = only(
        read(write_film(tmp_path / name, woven, codec=codec, pixels=pixels, rate=25, options=options))
    )
    assert len(found) == 20

    def combs(frames: np.ndarray) -> float:
        return float(np.abs(np.diff(frames[:, 21:27].astype(int), axis=1)).mean())

    assert combs(woven) > 4
    assert combs(found[:, 8:56]) < 0.3 * combs(woven)
    plain = write_film(tmp_path / "plain.mkv", woven, codec="ffv1", rate=25)  # not flagged: left as it is
    assert combs(only(read(plain))[0][:, 8:56]) > 0.8 * combs(woven)


@pytest.mark.parametrize(("height", "width"), [(47, 63), (49, 64), (48, 65), (33, 21)])
def test_odd_sizes(tmp_path: Path, height: int, width: int) -> None:
    frames = scene(6, height, width)
    for name, codec in (("a.mkv", "ffv1"), ("a.webm", "libvpx-vp9")):
        reading = read(
            write_film(tmp_path / name, frames, codec=codec), ReadingConfig(height=height, width=width)
        )
        found, _ = only(reading)
        assert (reading.episodes[0].height, reading.episodes[0].width) == (height, width)
        assert close(found[0, 2, 2], RED, 6)
        assert close(found[0, -3, 2], GREEN, 6)
        assert close(found[0, 2, -1], BACKGROUND, 6)
        assert error(found, frames) < 6


# Time


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


# Size


def test_wide_video_keeps_its_aspect(tmp_path: Path) -> None:
    path = write_film(tmp_path / "a.mp4", scene(6, 48, 128))
    letterboxed, _ = only(read(path))
    assert letterboxed.shape == (6, 64, 64, 3)
    assert not letterboxed[:, :18].any()
    assert not letterboxed[:, -18:].any()
    assert close(letterboxed[0, 21, 1], RED)  # 4x4, as high as wide
    assert close(letterboxed[0, 25, 1], BACKGROUND)
    assert close(letterboxed[0, 21, 5], BACKGROUND)
    cropped, _ = only(read(path, ReadingConfig(fit="crop")))
    assert close(cropped[0, 2, 2], BACKGROUND)  # the red corner is cropped away
    assert close(cropped[0, 62, 62], BACKGROUND)
    native, _ = only(read(path, ReadingConfig(height=48, width=128)))
    assert error(native, scene(6, 48, 128)) < 3
    assert frame_size(path, ReadingConfig(height=48)) == (48, 64)


def test_settings_out_of_range_are_refused(tmp_path: Path) -> None:
    for setting in ({"height": 0}, {"stride": 0}, {"max_frames": 1}, {"fps": 0.0}):
        name = next(iter(setting))
        with pytest.raises(ValueError, match=rf"files\.{name} is 0|files\.{name} is 1"):
            read(tmp_path, ReadingConfig(**setting))


# The cache


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


# Held out


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
