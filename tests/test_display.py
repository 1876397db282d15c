"""Frames as a player shows them: rotation, shape of pixels, colours, interlacing, any size."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from films import BACKGROUND, GREEN, RED, boxed, close, error, only, scene, write_film

from flam_rl.data.reading import ReadingConfig, frame_size, read

KR_KB = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722), "bt2020": (0.2627, 0.0593)}
COLOURSPACE = {"bt601": 6, "bt709": 1, "bt2020": 9}
LIMITED, FULL = 1, 2


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
