"""`flam-rl inspect` shows what training reads."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from films import scene, write_film
from PIL import Image

from flam_rl.cli import main
from flam_rl.data.hold_out import hold_out
from flam_rl.data.minari_writing import write_dataset
from flam_rl.data.reading import ReadingConfig, read

FIELDS = [
    "source",
    "frames",
    "kept",
    "start_frame",
    "height",
    "width",
    "fps",
    "rotation",
    "duration_s",
    "start_s",
    "step_s",
    "warnings",
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """The kinds of film that people have, in one folder."""
    folder = tmp_path / "data"
    folder.mkdir()
    write_film(folder / "rotated.mp4", scene(20), rotation=90)
    cut = write_film(folder / "cut.mp4", scene(200), container_options={"movflags": "faststart"})
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    write_film(folder / "two scenes.mkv", np.concatenate([scene(100), scene(30, background=(150, 140, 60))]))
    write_film(folder / "pause.mp4", scene(20), times=[0.1 * n + (3 if n >= 10 else 0) for n in range(20)])
    write_film(folder / "wide.mp4", scene(20, 48, 128))
    (folder / "broken.mp4").write_bytes(b"broken")
    (folder / "numbered").mkdir()
    for number, frame in enumerate(scene(12), 1):
        Image.fromarray(frame).save(folder / "numbered" / f"{number}.png")
    return folder


def test_results_sheet_and_frames(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    main(["inspect", "--data", str(data), "--out", str(out)])
    results = json.loads((out / "results.json").read_text())
    episodes = results["episodes"]
    assert all(list(episode) == FIELDS for episode in episodes)
    sources = [
        "cut.mp4",
        "pause.mp4",
        "rotated.mp4",
        "two scenes.mkv",
        "two scenes.mkv",
        "wide.mp4",
        "numbered",
    ]
    assert [episode["source"] for episode in episodes] == sources
    cut, pause, rotated, first, second, wide, numbered = episodes
    assert [(e["frames"], e["kept"]) for e in (pause, rotated, wide, numbered)] == [
        (20, 50),
        (20, 20),
        (20, 20),
        (12, 12),
    ]
    assert (rotated["height"], rotated["width"], rotated["rotation"]) == (64, 48, 90)
    assert (wide["height"], wide["width"], wide["fps"], wide["duration_s"]) == (48, 128, 10, 2)
    assert (numbered["fps"], numbered["duration_s"]) == (None, None)
    assert [(e["start_frame"], e["frames"]) for e in (first, second)] == [(0, 100), (100, 30)]
    assert any("cut short" in warning for warning in cut["warnings"])
    assert any("pause" in warning for warning in pause["warnings"])
    assert [e["warnings"] for e in (rotated, first, wide, numbered)] == [[]] * 4
    assert results["skipped"] == [
        {"source": "broken.mp4", "reason": "Invalid data found when processing input"}
    ]

    shown = np.load(out / "frames.npz")
    assert list(shown) == [str(number) for number in range(len(episodes))]
    training = read(data).video.episodes
    for number, (frames, episode) in enumerate(zip(training, episodes, strict=True)):
        assert np.array_equal(shown[str(number)], frames[:64])
        assert len(frames) == episode["kept"]
    seen = {
        e.tobytes()
        for part in vars(hold_out(read(data).video, None, 0, 0.1)).values()
        if hasattr(part, "episodes")
        for e in part.episodes
    }
    assert seen == {e.tobytes() for e in training}

    with Image.open(out / "contact_sheet.png") as sheet:
        assert np.asarray(sheet).std() > 10
        assert sheet.height > 7 * 64
    printed = capsys.readouterr().out
    assert "7 episodes" in printed
    assert "skipped broken.mp4: Invalid data" in printed


def test_without_out_a_table_is_printed(
    data: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    main(["inspect", "--data", str(data / "rotated.mp4"), "--files.stride", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ["0", "rotated.mp4", "7", "20", "0", "48x64", "10", "90", "2"]
    assert sorted(tmp_path.rglob("*")) == before


def test_where_nothing_is_read_the_reasons_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"broken")
    with pytest.raises(SystemExit):
        main(["inspect", "--data", str(tmp_path), "--out", str(tmp_path / "out")])
    assert "broken.mp4: Invalid data" in capsys.readouterr().err
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["episodes"] == []
    assert [left["source"] for left in results["skipped"]] == ["broken.mp4"]


def test_a_minari_dataset(tmp_path: Path, task: gym.Env, episodes) -> None:
    write_dataset(tmp_path / "grid", task, episodes[:3])
    main(
        [
            "inspect",
            "--data",
            str(tmp_path / "grid"),
            "--out",
            str(tmp_path / "out"),
            "--files.max-frames",
            "80",
        ]
    )
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    kept = [episode["kept"] for episode in results["episodes"]]
    assert sum(kept) == 80
    assert results["episodes"][0]["source"] == "grid/0"
    assert (results["episodes"][0]["height"], results["episodes"][0]["fps"]) == (64, None)
    shown = np.load(tmp_path / "out" / "frames.npz")
    for number, count in enumerate(kept):
        assert np.array_equal(shown[str(number)], episodes[number].frames[: min(64, count)])
    reading = read(tmp_path / "grid", ReadingConfig(height=32, width=48))
    assert reading.arrays[0].shape[1:] == (32, 48, 3)
    entities = reading.entities()
    assert entities is not None
    assert np.array_equal(entities[2]["position"], episodes[2].entities["position"])
