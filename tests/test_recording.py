"""A recording that was interrupted goes on with the next episode, and is the one that nothing interrupted."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import gymnasium as gym
import pytest
from failing import fails, names

from flam_rl.cli import main
from flam_rl.data.minari_writing import record_dataset
from flam_rl.envs.tasks.record import Recording
from flam_rl.types import Episode


class Killed(Exception):
    pass


class Cut(Recording):
    """A recording that ends when so many episodes were given."""

    left = 10**9

    def __iter__(self) -> Iterator[Episode]:
        for episode in super().__iter__():
            yield episode
            self.left -= 1
            if self.left == 0:
                raise Killed


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("task", "kwargs", "policy", "steps"),
    [
        ("flam_rl/MultiGrid-v0", {"agents": 2}, None, 300),
        ("flam_rl/MultiGrid-v0", {"agents": 2}, "random", 300),
        ("flam_rl/Pucks-v0", {"pucks": 2}, "random", 500),
    ],
)
def test_an_interrupted_recording_goes_on_as_if_it_had_not_been(
    tmp_path: Path, task: str, kwargs: dict, policy: str | None, steps: int
) -> None:
    def recording(kind: type[Recording] = Recording) -> Recording:
        return kind(gym.make(task, **kwargs), steps, 5, policy)

    (tmp_path / "whole").mkdir()
    whole = record_dataset(tmp_path / "whole" / "data", recording().task, recording(), {"seed": 5})
    out = tmp_path / "data"
    for cut in (2, 1):
        partial = recording(Cut)
        partial.left = cut
        with pytest.raises(Killed):
            record_dataset(out, partial.task, partial, {"seed": 5})
        assert not out.exists()
    done = tmp_path / ".data-unfinished" / "data"
    assert {"0", "1", "2", "metadata.json"} == {path.name for path in done.iterdir()}
    (done / "3").mkdir()
    (done / "3" / "metadata.json").write_text("{")  # killed while these were written
    (done / "metadata.json").write_text("{")
    again = recording()
    record_dataset(out, again.task, again, {"seed": 5})
    assert names(tmp_path) & {".data-unfinished"} == set()
    assert whole.total_episodes > 3
    assert contents(out) == contents(tmp_path / "whole" / "data")


def test_the_command_goes_on_and_names_other_settings(
    tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ["collect", "--out", str(tmp_path / "data"), "--steps", "150"]
    main(given)
    whole = contents(tmp_path / "data")
    shutil.rmtree(tmp_path / "data")
    monkeypatch.setattr("flam_rl.commands.collect.Recording", Cut)
    monkeypatch.setattr(Cut, "left", 2)
    with pytest.raises(Killed):
        main(given)
    monkeypatch.undo()
    capsys.readouterr()
    said = fails([*given, "--seed", "1"], capsys)
    assert (
        "holds an interrupted recording with other settings (seed); delete it, or give another --out" in said
    )
    main(given)
    assert contents(tmp_path / "data") == whole
    assert names(tmp_path) == {"data"} | {f"data/{name}" for name in names(tmp_path / "data")}
