"""Commands that are killed at random moments and given again: nothing that was kept is lost, and results are the same.

    python scripts/endurance.py --out runs/endurance

Each command first runs to its end. Then it is killed (SIGKILL) at moments drawn from the time that this took, and given again, until it
ends by itself; then what it made has to be the uninterrupted run's, bit by bit on one thread. An interrupted script goes on with the
next round when it is started again.
"""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import sys
import time
import traceback
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import av
import gymnasium as gym
import numpy as np
import torch
import tyro

from flam_rl.cli import main as flam_rl
from flam_rl.envs.tasks.record import record_episodes
from flam_rl.files import folder_written_whole
from flam_rl.progress import progress
from flam_rl.results import read_json, write_results
from flam_rl.types import Json

TIMES = ("wall_s", "training_s", "peak_memory_mib", "made_by")
"""What in results differs from run to run."""
SLOWER = 20
"""How many times as long as undisturbed a command may take before it counts as hanging."""
TILES = (
    "train --model flam --factors 2 --tokenizer-training.steps 120 --world.steps 40 --world.frames 64 "
    "--world.prior-steps 100 --world.checkpoint-every 5"
)
COMMANDS = {
    "collect": "collect --steps 600 --seed 3 --out {run}/run",
    "tiles": f"{TILES} --labels 0 --data {{data}}/rooms --out {{run}}/run",
    "labels": f"{TILES} --labels 100 --data {{data}}/rooms --out {{run}}/run",
    "tracked": "train --model tracked --labels 0 --world.checkpoint-every 5 --tracked.looks.patch-steps 30 "
    "--tracked.looks.steps 30 --tracked.dynamics-training.steps 30 --tracked.prior-training.steps 30 --data {data}/pucks "
    "--out {run}/run",
    "agent": "agent --episodes 1 --imagination.steps 2560 --imagination.num-envs 16 --imagination.rollout 16 "
    "--imagination.batch 128 --imagination.checks 4 --out {run}/run",
    "benchmark": "benchmark --suite entities --budget tiny --models adaworld copy --workers 1 --out {run}/run "
    "--work {run}/work",
}
"""What is killed: the folder of the run, and that of what it needs, are put in. `labels` begins with what `tiles` made."""


def made_files(folder: Path) -> Json:
    """Every file of a recording, and what lies beside it."""
    beside: Json = {path.name: b"" for path in folder.iterdir() if path.suffix != ".txt"}
    files = (path for path in (folder / "run").rglob("*") if path.is_file())
    return beside | {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def made_world(folder: Path) -> Json:
    """Weights, starts and labels of a world, and results."""
    tensors = {path.name: path.read_bytes() for path in (folder / "run" / "world").glob("*.safetensors")}
    return tensors | {"results": without_times(read_json(folder / "run" / "results.json"))}


def made_agent(folder: Path) -> Json:
    """Weights of a policy, and results."""
    with zipfile.ZipFile(folder / "run" / "policy.zip") as found, found.open("policy.pth") as file:
        weights = torch.load(file, weights_only=True)
    results = without_times(read_json(folder / "run" / "results.json"))
    return {name: tensor.numpy().tobytes() for name, tensor in weights.items()} | {"results": results}


def made_report(folder: Path) -> Json:
    """Figures of all cells, and their worlds."""
    worlds = sorted((folder / "work").glob("*/*/world/*.safetensors"))
    tensors = {path.relative_to(folder).as_posix(): path.read_bytes() for path in worlds}
    return tensors | {"results": without_times(read_json(folder / "run" / "entities" / "results.json"))}


def without_times(value: Any) -> Any:
    """Results as they have to be the same again."""
    if isinstance(value, dict):
        return {key: without_times(entry) for key, entry in value.items() if key not in TIMES}
    return [without_times(entry) for entry in value] if isinstance(value, list) else value


MADE: dict[str, Callable[[Path], Json]] = {
    "collect": made_files,
    "tiles": made_world,
    "labels": made_world,
    "tracked": made_world,
    "agent": made_agent,
    "benchmark": made_report,
}
"""What the commands make."""


@dataclass(frozen=True)
class EnduranceConfig:
    """What is killed, and how often."""

    out: Path
    """Folder for results.json, and for runs and logs below OUT/work."""
    parts: tuple[Literal["collect", "tiles", "labels", "tracked", "agent", "benchmark"], ...] = (
        *("collect", "tiles", "labels", "tracked", "agent", "benchmark"),
    )
    """Commands that are killed: `tiles` and `tracked` are training without labels, `labels` their fitting to the world of `tiles`."""
    kills: int = 10
    """Of each command."""
    seed: int = 0


def main(config: EnduranceConfig) -> None:
    """Run the script."""
    torch.set_num_threads(1)
    for module in ("collect", "train", "agent", "benchmark"):  # once, not in every child
        importlib.import_module(f"flam_rl.commands.{module}")
    for module in ("tiles.build", "tracked.build"):
        importlib.import_module(f"flam_rl.models.{module}")
    path = config.out / "results.json"
    asked = {"kills_of_each": config.kills, "seed": config.seed}
    found = read_json(path) if path.is_file() else {}
    rounds: dict[str, list[Json]] = found.get("rounds", {}) if found.get("asked") == asked else {}
    data = config.out / "work" / "data"
    if not data.exists():
        with folder_written_whole(data) as scratch:
            make_films(scratch)
    for name in config.parts:
        whole = config.out / "work" / name / "whole"
        seconds = undisturbed(name, whole, data)
        done = rounds.setdefault(name, [])
        with progress(total=config.kills, desc=name, unit="kill") as bar:
            while (count := sum(len(one["kills"]) for one in done)) < config.kills:
                bar.update(count - bar.n)
                rng = np.random.default_rng([config.seed, list(COMMANDS).index(name), len(done)])
                left = config.kills - count
                done.append(round_of(name, whole.with_name("killed"), whole, data, seconds, left, rng))
                write_results(config.out, summary(rounds) | {"asked": asked, "rounds": rounds}, config.seed)
            bar.update(config.kills - bar.n)
    print({key: value for key, value in summary(rounds).items() if key != "kept"})
    shutil.rmtree(config.out / "work")


def make_films(folder: Path) -> None:
    """Labelled films of rooms, in `folder/rooms`, and films of pucks in `folder/pucks`."""
    rooms = gym.make("flam_rl/MultiGrid-v0", agents=3)
    for number, episode in enumerate(record_episodes(rooms, 240, 0)):
        path = folder / "rooms" / f"{number}.mp4"
        write_film(path, episode.frames)
        rows = zip(episode.actions, episode.rewards, episode.terminations, strict=True)
        lines = [f"{frame},{action},{reward},{int(end)}" for frame, (action, reward, end) in enumerate(rows)]
        path.with_suffix(".csv").write_text("\n".join(["frame,action,reward,done", *lines, ""]))
    pucks = gym.make("flam_rl/Pucks-v0", pucks=2, looks=2)
    for number, episode in enumerate(record_episodes(pucks, 300, 0)):
        write_film(folder / "pucks" / f"{number}.mp4", episode.frames)


def write_film(path: Path, frames: np.ndarray) -> None:
    """Frames uint8 `(T, H, W, 3)` as a film of 15 a second."""
    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as out:
        film = out.add_stream("mpeg4", rate=15)
        film.height, film.width = frames.shape[1:3]
        film.pix_fmt, film.bit_rate = "yuv420p", 4_000_000
        for frame in frames:
            out.mux(film.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), "rgb24")))
        out.mux(film.encode())


def summary(rounds: dict[str, list[Json]]) -> Json:
    """All rounds together; `kept` says what the killed commands had kept, by the latest of it."""
    every = [one for part in rounds.values() for one in part]
    kept = {
        name: dict(Counter(kill["kept"] for one in part for kill in one["kills"]))
        for name, part in rounds.items()
    }
    return {
        "kills": sum(len(one["kills"]) for one in every),
        "rounds_run": len(every),
        "lost": sum(one["lost"] + bool(one["different"]) for one in every),
        "crashes": sum(one["crashed"] for one in every),
        "hangs": sum(one["hung"] for one in every),
        "kept": kept,
    }


def undisturbed(name: str, folder: Path, data: Path) -> float:
    """Seconds that the command takes; what it makes stays in `folder`."""
    took = folder / "seconds.txt"
    if not took.exists():
        prepare(name, folder, data)
        began = time.monotonic()
        run(command(name, folder, data), folder / "log.txt")
        took.write_text(str(time.monotonic() - began))
    return float(took.read_text())


def round_of(
    name: str, folder: Path, whole: Path, data: Path, seconds: float, kills: int, rng: np.random.Generator
) -> Json:
    """The command from nothing to its end, killed so often at most."""
    prepare(name, folder, data)
    found: Json = {"kills": [], "lost": 0, "crashed": 0, "hung": 0, "different": []}
    before: dict[str, int] = {}
    while True:
        # Half of it at most: what was kept has the next attempt begin later, and several fit into one round.
        after = float(rng.uniform(0, seconds / 2)) if len(found["kills"]) < kills else None
        alone = bool(rng.integers(2))
        status = attempt(command(name, folder, data), folder / "log.txt", after, alone, SLOWER * seconds + 60)
        now = kept(folder)
        found["lost"] += sum(now[path] < step for path, step in before.items() if path in now)
        if status == "killed":
            latest = max(now, key=lambda path: (folder / path).stat().st_mtime_ns, default="nothing")
            found["kills"].append({"after_s": after, "alone": alone, "kept": Path(latest).name})
            before = now
            continue
        found["crashed"], found["hung"] = int(status == "crashed"), int(status == "hung")
        if status == "ended":
            made, expected = MADE[name](folder), MADE[name](whole)
            every = sorted(made.keys() | expected.keys())
            found["different"] = [one for one in every if made.get(one) != expected.get(one)]
        return found


def kept(folder: Path) -> dict[str, int]:
    """How far each loop, recording and cell is, of what is on the disk."""
    found = {path: int(torch.load(path, weights_only=True)["step"]) for path in folder.rglob("*.pt")}
    found |= {path: read_json(path)["episodes"] for path in folder.rglob("progress.json")}
    return {path.relative_to(folder).as_posix(): step for path, step in found.items()}


def prepare(name: str, folder: Path, data: Path) -> None:
    """An empty folder, or one with what the command begins with."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if name == "labels":
        trained = folder.parent.parent / "tiles" / "whole"
        undisturbed("tiles", trained, data)
        shutil.copytree(trained / "run", folder / "run")


def command(name: str, folder: Path, data: Path) -> list[str]:
    """Of flam-rl, to run in `folder`."""
    return [word.format(run=folder, data=data) for word in COMMANDS[name].split()]


def run(arguments: list[str], log: Path) -> None:
    """Run a command to its end.

    Raises:
        RuntimeError: it fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    if attempt(arguments, log, None, True, 3600) != "ended":
        raise RuntimeError(f"flam-rl {' '.join(arguments)} fails undisturbed: {log}")


def attempt(
    arguments: list[str], log: Path, after: float | None, alone: bool, limit: float
) -> Literal["ended", "killed", "crashed", "hung"]:
    """Run a command in a child of this process, killed after so many seconds, alone or with the processes that it started."""
    child = os.fork()
    if child == 0:
        _become(arguments, log)
    began = time.monotonic()
    try:
        while True:
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                return "ended" if os.waitstatus_to_exitcode(status) == 0 else "crashed"
            waited = time.monotonic() - began
            if waited > limit or (after is not None and waited >= after):
                (os.kill if alone else os.killpg)(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return "hung" if waited > limit else "killed"
            time.sleep(0.005)
    except BaseException:
        os.killpg(child, signal.SIGKILL)
        raise


def _become(arguments: list[str], log: Path) -> None:
    """Be the command, in a group of processes of its own; never returns."""
    status = 1
    try:
        os.setpgid(0, 0)
        with log.open("ab") as file:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
                os.dup2(file.fileno(), stream.fileno())
        flam_rl(arguments)
        status = 0
    except SystemExit as stopped:
        status = int(stopped.code or 0)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    main(tyro.cli(EnduranceConfig, description=__doc__))
