"""Labels of one's own films: which frame a row is of, what is wrong with a file, and the walk from films to a policy."""

from __future__ import annotations

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from films import scene, write_film
from test_cli import TINY_TRAINING

from flam_rl.actions import ActionSpace
from flam_rl.agents import BehaviorCloning
from flam_rl.cli import main
from flam_rl.commands.labels import film_actions, label_budget, placed_labels
from flam_rl.core.checkpoint import load_world
from flam_rl.data.hold_out import Piece, Split
from flam_rl.data.labels import Placed, find_labels, read_labels, space_of
from flam_rl.data.reading import ReadingConfig, read
from flam_rl.envs import DecodedVectorEnv
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.evaluation.policies import score_policy, several
from flam_rl.grounding.adapter import fit_labels
from flam_rl.types import Video

SIZE = {"height": 48, "width": 64}


def table(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def placed(data: Path, **config) -> tuple[list[Placed | None], dict[str, tuple[int, int]]]:
    return placed_labels(read(data, ReadingConfig(**SIZE, **config)), find_labels(data))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_film(tmp_path / "film.mp4", scene(30))


def test_a_row_is_of_the_transition_from_its_frame_to_the_next(film: Path) -> None:
    table(
        film.with_suffix(".csv"), "frame,action,reward,done", "0,3,0,0", "4,1,0.5,0", "28,2,-1,1", "29,1,0,0"
    )
    (found,), counts = placed(film)
    assert found is not None
    assert found.known[:, 0].nonzero()[0].tolist() == [0, 4, 28]
    assert found.action[[0, 4, 28], 0].tolist() == [3, 1, 2]
    assert found.reward.nonzero()[0].tolist() == [4, 28]
    assert found.done.nonzero()[0].tolist() == [28]
    assert counts == {"film.mp4": (4, 1)}  # nothing follows the last frame


def test_a_white_block_that_the_action_moves_shows_every_frame_where_its_row_is(tmp_path: Path) -> None:
    """The block moves right by its action: that is plain to see in the frames, so no row can be off by one."""
    rng, left = np.random.default_rng(0), 8
    frames, rows = [], []
    for number in range(40):
        frame = scene(1)[0]
        frame[20:28, 8:56] = frame[0, 20]
        frame[20:28, left : left + 8] = 255
        frames.append(frame)
        action = int(rng.integers(3)) - 1 if 10 < left < 46 else (1 if left <= 10 else -1)
        rows.append(f"{number / 10:.3f},{action}")
        left += 2 * action
    path = write_film(tmp_path / "film.mp4", np.stack(frames))
    table(path.with_suffix(".csv"), "time_s,action", *rows)
    reading = read(path, ReadingConfig(**SIZE))
    (found,), counts = placed_labels(reading, find_labels(path))
    assert found is not None
    assert found.known[:, 0].all()
    middle = (reading.arrays[0][:, 24].astype(int).min(-1) > 150).argmax(1)
    assert np.abs(np.diff(middle) - 2 * found.action[:, 0]).max() <= 1
    assert counts["film.mp4"] == (40, 1)


@pytest.mark.parametrize("column", ["frame", "time_s"])
def test_rows_of_frames_that_are_cut_away(film: Path, column: str) -> None:
    rows = [f"{n if column == 'frame' else n / 10},{n % 4},{n},0" for n in range(30)]
    table(film.with_suffix(".csv"), f"{column},action,reward,done", *rows)
    for config in ({"stride": 3}, {"fps": 10 / 3}):
        (found,), counts = placed(film, **config)
        assert found is not None
        assert found.action[:, 0].tolist() == [n % 4 for n in range(0, 27, 3)]
        assert found.reward.tolist() == [3 * n + 3 for n in range(0, 27, 3)]  # of all frames on the way
        assert counts["film.mp4"] == (30, 21)


def test_rows_of_a_film_whose_frames_come_unevenly(tmp_path: Path) -> None:
    times = [n / 10 + (0.4 if n >= 12 else 0) for n in range(24)]  # a pause: frame 11 stands still
    path = write_film(tmp_path / "film.mkv", scene(24), times=times, codec="ffv1")
    table(path.with_suffix(".csv"), "frame,action", *(f"{n},{n}" for n in range(24)))
    reading = read(path, ReadingConfig(**SIZE))
    (found,), _ = placed_labels(reading, find_labels(path))
    assert found is not None
    numbers = reading.episodes[0].numbers
    assert len(numbers) == len(reading.arrays[0]) > 24
    for at in found.known[:, 0].nonzero()[0]:
        assert found.action[at, 0] == numbers[at] != numbers[at + 1]
    assert (~found.known[:, 0]).sum() == len(numbers) - 24


def test_nothing_follows_an_end_and_nothing_spans_a_cut(tmp_path: Path) -> None:
    other = 255 - scene(12, background=(10, 10, 10))
    path = write_film(tmp_path / "film.mp4", np.concatenate([scene(12), other]))
    ends = {5}
    rows = [f"{n},{n % 3},{int(n in ends)}" for n in range(24)]
    table(path.with_suffix(".csv"), "frame,action,done", *rows)
    found, counts = placed(path)
    assert [len(one.known) for one in found if one] == [11, 11]
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].known[:, 0].nonzero()[0].tolist() == [0, 1, 2, 3, 4, 5, 7, 8, 9, 10]
    assert found[1].action[:, 0].tolist() == [n % 3 for n in range(12, 23)]
    assert counts["film.mp4"] == (24, 3)


def test_npz_says_the_same_as_csv(film: Path) -> None:
    table(film.with_suffix(".csv"), "frame,action_0,action_1,done", "2,0.5,-1,0", "3,,,1", "5,1,0,")
    (expected,), _ = placed(film)
    film.with_suffix(".csv").unlink()
    np.savez(
        film.with_suffix(".npz"),
        frame=[2, 3, 5], action=[[0.5, -1], [np.nan] * 2, [1, 0]], done=[0, 1, np.nan],
    )  # fmt: skip
    (found,), _ = placed(film)
    assert found is not None
    assert expected is not None
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))
    assert found.known[[2, 3, 5]].tolist() == [
        [True, False, True],
        [False, False, True],
        [True, False, False],
    ]


@pytest.mark.parametrize(
    ("header", "rows", "message"),
    [
        ("frame,speed", ["0,1"], r"column 'speed' is unknown; allowed are frame or time_s, action"),
        ("frame,time_s,action", ["0,0,1"], "both frame and time_s is there; give one"),
        ("action", ["1"], "neither frame nor time_s is there"),
        ("frame", ["1"], "it labels nothing"),
        ("frame,action", [], "there are no rows"),
        ("frame,action", ["0,left"], "action is 'left' in row 1; allowed are finite numbers"),
        ("frame,action", ["0,inf"], "action is 'inf' in row 1"),
        ("frame,action", ["0,1", "1"], "row 2 has 1 values for 2 columns"),
        ("frame,action", ["0,1", ",1"], "row 2 does not say which frame"),
        ("frame,action", ["0.5,1"], "row 1 is of frame 0.5; frames are counted from 0"),
        ("frame,action", ["-1,1"], "row 1 is of frame -1"),
        ("frame,action_0,action_2", ["0,1,1"], "allowed is action alone, or action_0, action_1"),
        ("frame,action,action_0", ["0,1,1"], "allowed is action alone, or action_0, action_1"),
        ("frame,action_0,action_1", ["0,1,"], "row 1 has only a part of its action"),
        ("frame,action,action", ["0,1,1"], "each once"),
        ("frame,done", ["0,2"], "done is 2 in row 1; allowed are 0 and 1"),
        ("frame,action", ["3,1", "4,1", "3,0"], "rows 1 and 3 are both of frame 3; give one a frame"),
        ("time_s,action", ["0.1,1", "0.11,1"], "rows 1 and 2 are both of frame 1; give one a frame"),
        ("frame,action", ["3,1", "30,1"], r"row 2 is of frame 30; film.mp4 has frames 0 to 29"),
        ("time_s,action", ["3.2,1"], r"row 1 is of time_s 3.2; film.mp4 is shown from 0 to 3 s"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(film: Path, header: str, rows: list[str], message: str) -> None:
    table(film.with_suffix(".csv"), header, *rows)
    with pytest.raises(ValueError, match=message):
        placed(film)


def test_files_that_are_no_labels(film: Path) -> None:
    film.with_suffix(".csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="no table of comma-separated values"):
        find_labels(film)
    np.savez(film.with_suffix(".npz"), frame=np.array([{}], object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"film.mp4 has labels in film.csv and in film.npz; keep one"):
        find_labels(film)
    film.with_suffix(".csv").unlink()
    with pytest.raises(ValueError, match="no npz file of numbers"):
        find_labels(film)
    np.savez(film.with_suffix(".npz"), frame=[0, 1], action=[[[1]], [[2]]])
    with pytest.raises(ValueError, match=r"action is int64 \(2, 1, 1\); allowed"):
        find_labels(film)


def test_actions_are_those_of_the_task_or_as_they_look(tmp_path: Path, task: gym.Env) -> None:
    whole = read_labels(table(tmp_path / "a.csv", "frame,action", "0,2", "1,0"))
    assert space_of([whole]) == ActionSpace.discrete(3)
    assert film_actions({"a.mp4": whole}, task) == ActionSpace.discrete(4)
    several_numbers = read_labels(table(tmp_path / "b.csv", "frame,action_0,action_1", "0,2,-1", "1,0,1"))
    assert space_of([several_numbers]) == ActionSpace("discrete", (2,), (3, 3), (0, -1))
    real = read_labels(table(tmp_path / "c.csv", "frame,action_0", "0,-0.5", "1,0.25"))
    assert space_of([real]) == ActionSpace("box", (1,), low=(-0.5,), high=(0.25,))
    with pytest.raises(ValueError, match=r"films have actions of \[1, 2\] numbers"):
        space_of([whole, several_numbers])
    with pytest.raises(ValueError, match=r"no film has an action column.*--labels 0"):
        space_of([read_labels(table(tmp_path / "d.csv", "frame,reward", "0,1"))])
    far = read_labels(table(tmp_path / "e.csv", "frame,action", "0,7"))
    with pytest.raises(ValueError, match=r"e.csv: labelled actions hold .*7.*Discrete\(4\)"):
        film_actions({"e.mp4": far}, task)


def fails(args: list[str], capsys) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


def test_labels_are_checked_before_any_training(tmp_path: Path, film: Path, capsys) -> None:
    train = ["train", "--data", str(film), "--out", str(tmp_path / "run"), "--labels"]
    table(film.with_suffix(".csv"), "frame,action", *(f"{n},{n % 2}" for n in range(20)))
    assert "label budget is 1000, but the training episodes" in fails([*train, "1000"], capsys)
    table(film.with_suffix(".csv"), "frame,action", *(f"{n},1" for n in range(20)))
    assert "two different actions or more" in fails([*train, "10"], capsys)
    table(film.with_suffix(".csv"), "frame,action", "99,1", "0,0")
    assert "row 1 is of frame 99; film.mp4 has frames 0 to 29" in fails([*train, "1"], capsys)
    assert not (tmp_path / "run" / "logs").exists()


def test_inspect_counts_labels(tmp_path: Path, film: Path, capsys) -> None:
    table(film.with_suffix(".csv"), "frame,action", *(f"{n},{n % 2}" for n in range(30)))
    main(["inspect", "--data", str(film), "--out", str(tmp_path / "out")])
    assert "labels of film.mp4: 30 rows, 29 of transitions, 1 dropped" in capsys.readouterr().out
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["labels"] == {"film.mp4": {"rows": 30, "dropped": 1}}


@pytest.mark.learning
def test_train_reads_labels_of_films(tmp_path: Path, task: gym.Env) -> None:
    films = tmp_path / "films"
    films.mkdir()
    for number, episode in enumerate(record_episodes(task, 300, 0)):
        path = write_film(films / f"film{number}.mp4", episode.frames, pixels="yuv444p")
        table(path.with_suffix(".csv"), "frame,action", *(f"{n},{a}" for n, a in enumerate(episode.actions)))
    command = ["train", "--data", str(films), "--out", str(tmp_path / "run"), *TINY_TRAINING]
    main([*command, "--labels", "150", "--task", "flam_rl/MultiGrid-v0"])
    labels = load_world(tmp_path / "run").labels
    assert labels is not None
    assert (labels.budget, labels.agents.actions) == (150, ActionSpace.discrete(4))
    assert labels.reward.expected(torch.randn(50, 4, 64)).abs().max() == 0  # nobody told of any


@pytest.mark.learning
def test_from_films_and_tables_to_a_policy_on_the_task(tmp_path: Path, task: gym.Env) -> None:
    """MultiGrid filmed at high quality, experts' actions in tables; adapter, heads and a clone come from these alone."""
    rng = np.random.default_rng(0)
    expert = list(record_episodes(task, 900, 1, "expert"))
    episodes = [*record_episodes(task, 900, 0), *expert]
    for number, episode in enumerate(episodes):
        path = write_film(tmp_path / f"film{number:03}.mp4", episode.frames, pixels="yuv444p")
        rows = zip(episode.actions, episode.rewards, episode.terminations, strict=True)
        lines = [f"{n},{action},{reward},{int(end)}" for n, (action, reward, end) in enumerate(rows)]
        if number % 2 == 0 or rng.random() < 0.5:  # the others stay without
            table(path.with_suffix(".csv"), "frame,action,reward,done", *lines)
    reading, labels = read(tmp_path), find_labels(tmp_path)
    assert len(reading.episodes) == len(episodes) > len(labels)
    pieces = tuple(Piece(n, 0, len(frames)) for n, frames in enumerate(reading.arrays))
    split = Split(reading.video, reading.video, pieces, None, None)
    labelled = label_budget(reading, split, labels, film_actions(labels, task), 1000, tmp_path)
    world = load_world("multigrid")
    world.labels, adapter = fit_labels(world, labelled)
    assert adapter.accuracy[adapter.agents.factors[0]] > 0.8
    clone = BehaviorCloning.from_expert_video(world, Video(reading.arrays[-len(expert) :]))
    tasks = several(task)
    decoded = DecodedVectorEnv(tasks, world)
    cloned = score_policy(decoded, lambda seen: clone.predict(seen)[0], 40, seed=2)
    random = score_policy(tasks, lambda seen: rng.integers(4, size=len(seen)), 40, seed=2)
    assert cloned.success_rate > 0.6
    assert cloned.ci95[0] > random.ci95[1]
