"""Run cells side by side, each in a process of its own, here or on a Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..progress import progress, shown_while_waiting
from ..results import read_json
from ..types import Json
from .suites import Cell

Command = Callable[[Cell], list[str]]
"""The command line that runs one cell and writes `results.json` to its folder."""


def finished(folder: Path, config: Json | None = None) -> Json | None:
    """What a cell that ran to its end has written, with this `config` if one is given; None for all others."""
    path = folder / "results.json"
    found = read_json(path) if path.is_file() else None
    return found if found is not None and config in (None, found.get("config")) else None


def run_cells(
    cells: list[Cell],
    root: Path,
    config: Callable[[Cell], Json],
    command: Command,
    workers: int,
    address: str | None,
    on_done: Callable[[dict[str, str]], object],
) -> dict[str, str]:
    """Run the cells that have not finished with what they are to run with; a failed one loses no other.

    Args:
        root: each cell's folder is `root / cell.name`; on a cluster, one that all nodes see.
        config: of a cell, what it says in its results that it ran with.
        workers: how many at once, the cores shared out among them; on a cluster Ray decides by cores.
        address: of the Ray cluster, `local` for one that is started here; None for processes of this machine.
        on_done: called after each cell, with what is returned in the end.

    Returns:
        why each failed cell failed, by its name.
    """
    todo = [cell for cell in cells if finished(root / cell.name, config(cell)) is None]
    failed: dict[str, str] = {}
    with (
        progress(total=len(cells), initial=len(cells) - len(todo), desc=cells[0].suite, unit="cell") as bar,
        shown_while_waiting(bar),
        _on_ray(workers, address) if address else _here(workers) as run,
    ):
        for name, error in run([(cell.name, command(cell), str(root / cell.name)) for cell in todo]):
            bar.update()
            if error:
                failed[name] = error
                bar.write(f"{name} failed, {error} (all of it in {root / name / 'output.txt'})")
            on_done(failed)
    return failed


def run_process(
    command: list[str], folder: str, threads: int, running: set[subprocess.Popen] | None = None
) -> str:
    """Run one cell; what it says goes to `folder/output.txt`. Why it failed, or nothing.

    Args:
        running: where the process is while it runs, for whoever may have to end it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    Path(folder, "results.json").unlink(missing_ok=True)  # of other settings
    output = Path(folder, "output.txt")
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    with (
        output.open("w") as file,
        subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        running = set() if running is None else running
        running.add(process)
        try:
            status = process.wait()
        finally:
            process.kill()
            running.discard(process)
    if status == 0 and finished(Path(folder)) is not None:
        return ""
    said = output.read_text(errors="replace").strip().splitlines()
    return f"status {status}: {said[-1] if said else 'it said nothing'}"


Job = tuple[str, list[str], str]
Run = Callable[[list[Job]], Iterator[tuple[str, str]]]
"""Runs jobs (name, command, folder) and yields name and error of each as it ends."""


@contextmanager
def _here(workers: int) -> Iterator[Run]:
    threads = max(1, _cores() // workers)
    running: set[subprocess.Popen] = set()

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    pool = ThreadPoolExecutor(workers)

    def run(jobs: list[Job]) -> Iterator[tuple[str, str]]:
        futures = {
            pool.submit(run_process, command, folder, threads, running): name
            for name, command, folder in jobs
        }
        for future in as_completed(futures):
            error = future.exception()
            yield futures[future], future.result() if error is None else repr(error)

    try:
        yield run
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in list(running):
            process.terminate()
        pool.shutdown()
        signal.signal(signal.SIGTERM, before)


def _cores() -> int:
    """How many this process may use, which may be fewer than there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _on_ray(workers: int, address: str) -> Iterator[Run]:
    try:
        import ray
    except ImportError as error:
        raise ImportError("--address needs Ray: pip install 'flam_rl[cluster]'") from error
    try:
        ray.init(address, log_to_driver=False, include_dashboard=False)
    except ConnectionError as error:
        raise ValueError(
            f"address is {address!r}, and no Ray cluster is there ({error}); "
            "allowed are that of a running one, auto, or local to start one here"
        ) from error

    def run(jobs: list[Job]) -> Iterator[tuple[str, str]]:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        cores = [int(node["CPU"]) for node in nodes if "CPU" in node]  # a head may have none
        threads = max(1, min(cores, default=1) // workers)
        gpus = 1 if any(node.get("GPU") for node in nodes) else 0
        remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(run_process)
        futures = {remote.remote(command, folder, threads): name for name, command, folder in jobs}
        while futures:
            (done,), _ = ray.wait(list(futures))
            try:
                error = ray.get(done)
            except ray.exceptions.RayError as lost:
                error = f"lost by the cluster: {type(lost).__name__}"
            yield futures.pop(done), error

    try:
        yield run
    finally:
        ray.shutdown()


def python_command(arguments: list[str]) -> list[str]:
    """`flam-rl` with these arguments, by this Python."""
    return [sys.executable, "-m", "flam_rl.cli", *arguments]
