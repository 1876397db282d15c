"""Films as others record them: which files are films, and what is kept of damaged ones."""

from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
from films import block, boxed, error, only, scene, write_film

from flam_rl.data.reading import ReadingConfig, read


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
