"""A run's folder knows what it is of: it goes on, is kept, or is refused with the reason; nothing is used silently."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from failing import fails, names
from films import scene, write_film

from flam_rl.cli import main
from flam_rl.commands.runs import Run
from flam_rl.core.checkpoint import load_world
from flam_rl.data.fingerprints import differences, fingerprints
from flam_rl.data.minari_writing import write_dataset
from flam_rl.results import read_json

TINY = (
    "--model flam --tokenizer-training.steps 20 --world.steps 4 --world.prior-steps 4 --world.frames 64",
    "--world.checkpoint-every 2 --episodes 2",
)


def a_run(out: Path, **changed) -> Run:
    given = {"settings": {"seed": 0, "labels": 5, "net": {"width": 8}}, "made_from": {"a.mp4": "1"}} | changed
    return Run(out, product="product", later=("labels",), **given)


def begun(run: Run) -> Run:
    with run.locked():
        run.begin()
        (run.unfinished / "checkpoint").write_text("2 of 3 steps")
    return run


def finished(run: Run) -> Run:
    with run.locked():
        run.begin()
        (run.out / "product").write_text("all of it")
        run.finish()
    return run


def test_a_run_is_new_then_unfinished_then_finished(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert run.state() == "new"
    assert not run.out.exists()
    begun(run)
    assert run.state() == "unfinished"
    with run.locked():
        run.begin()
        assert names(run.unfinished) == {"checkpoint"}
    finished(run)
    assert run.state() == "finished"
    assert names(run.out) == {"product", "config.json"}


@pytest.mark.parametrize("made", [begun, finished])
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"settings": {"seed": 1, "labels": 5, "net": {"width": 8}}}, r"seed was 0 and is 1"),
        ({"settings": {"seed": 0, "labels": 5, "net": {"width": 9}}}, r"net\.width was 8 and is 9"),
        ({"made_from": {"a.mp4": "2"}}, r"other data \(changed: a\.mp4\)"),
        ({"made_from": {"a.mp4": "1", "b.mp4": "1"}}, r"other data \(new: b\.mp4\)"),
        ({"made_from": {"b.mp4": "1"}}, r"other data \(new: b\.mp4; gone: a\.mp4\)"),
    ],
)
def test_another_run_is_refused_with_what_differs(tmp_path: Path, made, changed, message: str) -> None:
    made(a_run(tmp_path))
    before = {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)}
    with pytest.raises(ValueError, match=message) as error:
        a_run(tmp_path, **changed).state()
    assert str(error.value).endswith("give another --out, or --overwrite to start anew")
    with pytest.raises(ValueError, match=message), a_run(tmp_path, **changed).locked():
        pytest.fail("it was let in")
    assert before == {name: (tmp_path / name).stat().st_mtime_ns for name in names(tmp_path)}
    assert a_run(tmp_path, overwrite=True, **changed).state() == "new"


def test_overwriting_keeps_the_old_product_until_the_new_one_is_there_and_goes_on_itself(
    tmp_path: Path,
) -> None:
    finished(a_run(tmp_path))
    other = a_run(tmp_path, overwrite=True, made_from={"b.mp4": "1"})
    begun(other)
    assert (tmp_path / "product").read_text() == "all of it"
    assert other.state() == "unfinished"
    assert (other.unfinished / "checkpoint").exists()
    with pytest.raises(ValueError, match="an interrupted run made from other data"):
        a_run(tmp_path).state()


def test_what_only_concerns_the_product_keeps_it(tmp_path: Path) -> None:
    more = {"seed": 0, "labels": 9, "net": {"width": 8}}
    begun(a_run(tmp_path / "interrupted"))
    assert a_run(tmp_path / "interrupted", settings=more).state() == "unfinished"
    finished(a_run(tmp_path))
    run = a_run(tmp_path, settings=more)
    assert run.state() == "kept"
    with run.locked():
        run.begin()
        assert (run.unfinished / "product").read_text() == "all of it"
    assert run.state() == "unfinished"
    assert read_json(tmp_path / "config.json")["labels"] == 9


def test_a_folder_that_does_not_say_of_what_is_refused(tmp_path: Path) -> None:
    (tmp_path / "product").touch()
    with pytest.raises(ValueError, match=r"a finished run, product, but no config\.json"):
        a_run(tmp_path).state()
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: damaged"):
        a_run(tmp_path).state()
    assert a_run(tmp_path, overwrite=True).state() == "new"


def test_two_processes_do_not_work_in_one_folder(tmp_path: Path) -> None:
    with (
        a_run(tmp_path).locked(),
        pytest.raises(ValueError, match="in use by another process"),
        a_run(tmp_path).locked(),
    ):
        pytest.fail("both are in")
    with a_run(tmp_path).locked():
        pass


def test_what_a_killed_process_was_writing_is_deleted_and_what_it_moved_aside_comes_back(
    tmp_path: Path,
) -> None:
    run = finished(a_run(tmp_path))
    os.replace(tmp_path / "product", tmp_path / ".product-old")
    for name in (".results.part.json", ".product-ab12", ".unfinished-gone/checkpoint", ".frames.bin.part"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with run.locked():
        assert names(tmp_path) == {"product", "config.json"}
        assert (tmp_path / "product").read_text() == "all of it"


def test_fingerprints_see_every_byte_and_no_time(tmp_path: Path) -> None:
    paths = [tmp_path / "set" / name for name in ("a.mp4", "b.mp4")]
    paths[0].parent.mkdir()
    for path in paths:
        path.write_bytes(bytes(1000))
    before = fingerprints(paths, tmp_path / "set")
    assert list(before) == ["a.mp4", "b.mp4"]
    facts = paths[1].stat()
    content = bytearray(1000)
    content[700] = 1
    paths[1].write_bytes(content)
    os.utime(paths[1], ns=(facts.st_atime_ns, facts.st_mtime_ns))  # the same size and time
    assert differences(before, fingerprints(paths, tmp_path / "set")) == "changed: b.mp4"
    paths[1].write_bytes(bytes(1000))
    shutil.copytree(tmp_path / "set", tmp_path / "copy")
    copied = fingerprints([tmp_path / "copy" / path.name for path in paths], tmp_path / "copy")
    assert differences(before, copied) == ""
    many = {f"{number}.png": "1" for number in range(9)}
    assert differences({}, many) == "new: 0.png, 1.png, 2.png, 3.png, 4.png and 4 more"


def train(data: Path, out: Path, *more: str) -> list[str]:
    return ["train", "--data", str(data), "--out", str(out), *" ".join(TINY).split(), *more]


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_world(out).model.state_dict()


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.learning
def test_a_changed_film_is_named_and_refused(tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch) -> None:
    data, out = tmp_path / "films", tmp_path / "run"
    data.mkdir()
    for name in ("a.mp4", "b.mp4"):
        write_film(data / name, scene(12))

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("flam_rl.models.tiles.build.train_prior", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(train(data, out, "--labels", "0"))
    assert stopped.value.code == 130
    capsys.readouterr()
    kept = names(out)
    assert {"unfinished/tokenizer.pt", "unfinished/world.pt", "frames.bin"} <= kept
    facts = (data / "b.mp4").stat()
    original = (data / "b.mp4").read_bytes()
    changed = bytearray(original)
    changed[len(changed) // 2] ^= 1
    (data / "b.mp4").write_bytes(changed)
    os.utime(data / "b.mp4", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    said = fails(train(data, out, "--labels", "0"), capsys)
    assert "holds an interrupted run made from other data (changed: b.mp4); restore it" in said
    assert names(out) == kept
    said = fails(train(data, out, "--labels", "0", "--seed", "1"), capsys)
    assert "changed: b.mp4" in said
    (data / "b.mp4").write_bytes(original)
    said = fails(train(data, out, "--labels", "0", "--seed", "1"), capsys)
    assert "other settings (seed was 0 and is 1)" in said
    assert names(out) == kept
    monkeypatch.undo()
    data = data.rename(tmp_path / "moved")
    main(train(data, out, "--labels", "0"))
    assert names(out) & {"unfinished", "frames.bin", "frames.json"} == set()
    said = fails(train(data, out, "--labels", "0", "--preview"), capsys)
    assert "holds a world; give another --out for its preview" in said


@pytest.mark.learning
def test_labels_of_another_budget_are_added_to_a_finished_run(
    tmp_path: Path, task, episodes, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data", tmp_path / "run"
    write_dataset(data, task, episodes[:12])
    failing = replace(episodes[0], actions=np.full_like(episodes[0].actions, 2))
    write_dataset(tmp_path / "other", task, [failing, *episodes[:12]])

    def fails_late(*_: object, **__: object) -> None:
        raise ValueError("labels tell nothing")

    monkeypatch.setattr("flam_rl.commands.train.fit_labels", fails_late)
    assert "labels tell nothing" in fails(train(data, out, "--labels", "100"), capsys)
    monkeypatch.undo()

    def trains(*_: object, **__: object) -> None:
        pytest.fail("the world is trained again")

    monkeypatch.setattr("flam_rl.commands.train.build_world", trains)
    main(train(data, out, "--labels", "0"))
    assert load_world(out).labels is None
    world, results = weights(out), (out / "results.json").read_bytes()
    main(train(data, out, "--labels", "0"))
    assert "holds this run, finished" in capsys.readouterr().out
    assert (out / "results.json").read_bytes() == results
    main(train(data, out, "--labels", "100"))
    labelled = load_world(out)
    assert labelled.labels is not None
    assert labelled.labels.budget == 100
    assert same(weights(out), world)
    assert json.loads((out / "config.json").read_text())["labels"] == 100
    assert "--labels 100" in labelled.info.origin.command
    assert labelled.info.training["labels"] == 100
    said = fails(train(tmp_path / "other", out, "--labels", "50"), capsys)
    assert "holds a finished run, world made from other data" in said
    said = fails(train(data, out, "--seed", "1", "--labels", "50"), capsys)
    assert "other settings (seed was 0 and is 1)" in said
