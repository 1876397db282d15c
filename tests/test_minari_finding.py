"""Minari datasets are found by folder, minari_root or name, and broken metadata is explained."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from minari_sets import FILMS, RGB, assert_films, broken, read

from flam_rl.data.minari import (
    action_space,
    find_dataset,
    recorded_task,
)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(eval_env|env_spec).*:UserWarning"
)  # Minari wants an environment


def test_a_dataset_is_found_by_folder_root_and_name(
    record, minari_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = record(RGB, FILMS)
    for data in (
        folder,
        folder.parent,
        minari_root / "test",
        minari_root,
        str(folder),
        "test/film-v0",
        "test/film",
        "test",
    ):
        assert find_dataset(data) == folder.resolve()
    monkeypatch.chdir(folder.parent)
    assert find_dataset("data") == find_dataset(".") == find_dataset(Path("../film-v0")) == folder.resolve()
    assert_films(read(Path("data")), FILMS)
    (minari_root.parent / "link").symlink_to(folder.parent, target_is_directory=True)
    assert find_dataset(minari_root.parent / "link") == folder.resolve()
    assert_films(read(minari_root.parent / "link" / "data"), FILMS)
    (minari_root / "test" / "again").symlink_to(minari_root, target_is_directory=True)  # a loop
    assert find_dataset(minari_root) == folder.resolve()


def test_several_datasets_are_listed(record, minari_root: Path) -> None:
    record(RGB, FILMS[:1])
    record(RGB, FILMS[:1], "test/film-v1")
    record(RGB, FILMS[:1], "other-v0")
    with pytest.raises(
        ValueError, match=r"3 Minari datasets are there; name one of .*other-v0, .*film-v0, .*film-v1"
    ):
        find_dataset(minari_root)
    with pytest.raises(
        ValueError, match=r"test/film below .*2 Minari datasets are there; name one of .*film-v0"
    ):
        find_dataset("test/film")
    assert find_dataset("test/film-v1") == (minari_root / "test/film-v1/data").resolve()


def test_a_dataset_half_written_is_not_seen(record, minari_root: Path) -> None:
    folder = record(RGB, FILMS[:1])
    shutil.copytree(folder, minari_root / ".other-x7/data")
    assert find_dataset(minari_root) == folder.resolve()


def test_what_is_no_dataset_is_left_to_others(minari_root: Path, tmp_path: Path) -> None:
    films = tmp_path / "films"
    films.mkdir()
    (films / "metadata.json").write_text('[{"file_name": "a.mp4"}]')
    (films / "a.mp4").write_bytes(b"")
    assert find_dataset(films) is find_dataset(films / "a.mp4") is find_dataset("no/such-v0") is None
    assert find_dataset("/no/such") is find_dataset("12:30:00.mp4") is find_dataset("rtsp://[x]/**") is None
    assert not minari_root.exists()  # nothing is made by looking


def test_a_dataset_beside_films_is_not_taken_for_all(record, minari_root: Path) -> None:
    folder = record(RGB, FILMS)
    (minari_root / "a.mp4").write_bytes(b"")
    with pytest.raises(ValueError, match=r"holds a Minari dataset, .* and pictures or films, as .*a\.mp4"):
        find_dataset(minari_root)
    assert find_dataset(folder.parent) == folder.resolve()


def test_an_address_is_no_name(minari_root: Path, record) -> None:
    record(RGB, FILMS)
    for address in ("https://example.org/film.mp4?token=" + "a" * 400, "rtsp://camera/1", "a" * 300, "\0"):
        assert find_dataset(address) is None


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
