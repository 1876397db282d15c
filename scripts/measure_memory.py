"""How much anonymous memory training takes on much video: films are made, and a small world is trained on them.

    python scripts/measure_memory.py --out runs/memory --frames 10000 100000 1000000
    python scripts/measure_memory.py --out runs/memory-tracked --frames 1000 10000 --model tracked

Each number of frames is trained on in a process of its own; what it holds is read from /proc, so this runs on Linux
only. Frames lie in a mapped file, which the system may drop from memory; a million of them take 12 GB on disk.
"""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from flam_rl.progress import progress
from flam_rl.results import write_results
from flam_rl.types import Json

FILM = 1000
"""Frames of a film."""
SIDE = 64


@dataclass(frozen=True)
class MemoryConfig:
    """What is measured."""

    out: Path
    """Folder for results.json; films and worlds are made below it and deleted again."""
    frames: tuple[int, ...] = (10_000, 100_000, 1_000_000)
    model: Literal["flam", "tracked"] = "flam"
    """Which FLAM; tracking takes 20 ms a frame or so."""


def main(config: MemoryConfig) -> None:
    """Run the script."""
    found: list[Json] = []
    for frames in config.frames:
        scratch = config.out / f"frames{frames}"
        make_films(scratch / "films", frames)
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as child:
            found.append({"frames": frames} | child.submit(train_and_watch, scratch, config.model).result())
        shutil.rmtree(scratch)
        print(found[-1], flush=True)
        write_results(config.out, {"model": config.model, "runs": found}, 0)


def make_films(folder: Path, frames: int) -> None:
    """Films of a block that moves over a drifting texture, no two patches of which are alike."""
    import av

    folder.mkdir(parents=True)
    for number in progress(range(frames // FILM), desc="making films", unit="film"):
        rng = np.random.default_rng(number)
        coarse = rng.integers(0, 256, (12, 48, 3)).astype(np.float32)
        texture = np.kron(coarse, np.ones((12, 12, 1), np.float32)).astype(np.uint8)
        texture = texture + rng.integers(0, 9, texture.shape, dtype=np.uint8)
        with av.open(str(folder / f"{number}.mp4"), "w") as out:
            film = out.add_stream("mpeg4", rate=30)
            film.height = film.width = SIDE
            film.pix_fmt, film.bit_rate = "yuv420p", 2_000_000
            for step in range(FILM):
                left, top = round(200 + 190 * np.sin(step / 90)), round(30 + 30 * np.cos(step / 50))
                frame = texture[top : top + SIDE, left : left + SIDE].copy()
                row, column = (step // 56) % 7 * 8, step % 56
                frame[row : row + 8, column : column + 8] = 255
                out.mux(film.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
            out.mux(film.encode())


FEW: dict[str, list[str]] = {
    "flam": ["--tokenizer-training.steps", "100", "--world.steps", "20", "--world.prior-steps", "20"],
    "tracked": [
        *("--tracked.looks.patch-steps", "20", "--tracked.looks.steps", "20"),
        *("--tracked.dynamics-training.steps", "20", "--tracked.prior-training.steps", "20"),
    ],
}


def train_and_watch(folder: Path, model: str) -> Json:
    """Train on `folder/films` with few steps; the peak of this process's anonymous memory in MiB, and seconds."""
    from flam_rl.cli import main as flam_rl

    peak, done = [anonymous_mib()], threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            peak[0] = max(peak[0], anonymous_mib())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    began = time.perf_counter()
    where = ["--data", str(folder / "films"), "--out", str(folder / "run")]
    flam_rl(["train", *where, "--model", model, "--labels", "0", *FEW[model]])
    done.set()
    watcher.join()
    return {"peak_anonymous_mib": peak[0], "seconds": time.perf_counter() - began}


def anonymous_mib() -> float:
    """What this process holds that no file backs."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no RssAnon; this needs Linux 4.5 or newer")


if __name__ == "__main__":
    main(tyro.cli(MemoryConfig, description=__doc__))
