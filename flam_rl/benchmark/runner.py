"""Run cells side by side, each in a process of its own, here or on a Ray cluster."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from ..types import Json
from .suites import Cell

Command = Callable[[Cell], list[str]]
"""The command line that runs one cell and writes `results.json` to its folder."""


def finished(folder: Path) -> Json | None:
    """What a cell that ran to its end has written; None for all others."""
    path = folder / "results.json"
    return json.loads(path.read_text()) if path.is_file() else None


def run_cells(
    cells: list[Cell],
    root: Path,
    command: Command,
    workers: int,
    address: str | None,
    on_done: Callable[[], None],
) -> dict[str, str]:
    """Run the cells that have not finished; a failed one loses no other.

    Args:
        root: each cell's folder is `root / cell.name`; on a cluster, one that all nodes see.
        workers: how many at once, the cores shared out among them; on a cluster Ray decides by cores.
        address: of the Ray cluster, `local` for one that is started here; None for processes of this machine.
        on_done: called after each cell.

    Returns:
        the last line that each failed cell said, by its name.
    """
    todo = [cell for cell in cells if finished(root / cell.name) is None]
    threads = max(1, (os.cpu_count() or 1) // workers)
    failed: dict[str, str] = {}
    with (
        tqdm(total=len(cells), initial=len(cells) - len(todo), desc=cells[0].suite, unit="cell") as bar,
        _submitter(workers, threads, address) as submit,
    ):
        jobs = [(cell.name, (command(cell), str(root / cell.name), threads)) for cell in todo]
        for name, error in submit(jobs):
            bar.update()
            if error:
                failed[name] = error
                bar.write(f"{name} failed: {error} (all of it in {root / name / 'output.txt'})")
            on_done()
    return failed


def run_process(command: list[str], folder: str, threads: int) -> str:
    """Run one cell; what it says goes to `folder/output.txt`. The last line of that if it fails, else nothing."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    output = Path(folder, "output.txt")
    with output.open("w") as file:
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, env=environment, check=False)
    if done.returncode == 0 and finished(Path(folder)) is not None:
        return ""
    said = output.read_text(errors="replace").strip().splitlines()
    return said[-1] if said else f"ended with status {done.returncode} and said nothing"


Job = tuple[str, tuple[list[str], str, int]]


@contextmanager
def _submitter(
    workers: int, threads: int, address: str | None
) -> Iterator[Callable[[list[Job]], Iterator[tuple[str, str]]]]:
    """Something that runs jobs `(name, arguments of run_process)` and yields names and errors as they end."""
    if address is None:
        with ThreadPoolExecutor(workers) as pool:

            def here(jobs: list[Job]) -> Iterator[tuple[str, str]]:
                running = {pool.submit(run_process, *arguments): name for name, arguments in jobs}
                try:
                    for future in as_completed(running):
                        yield running[future], future.result()
                finally:
                    pool.shutdown(cancel_futures=True)

            yield here
        return
    try:
        import ray
    except ImportError as error:
        raise ImportError("--address needs Ray: pip install 'flam_rl[cluster]'") from error
    options: dict[str, Any] = {"num_cpus": workers * threads} if address == "local" else {"address": address}
    ray.init(**options, log_to_driver=False, include_dashboard=False)
    try:

        def there(jobs: list[Job]) -> Iterator[tuple[str, str]]:
            gpus = 1 if "GPU" in ray.cluster_resources() else 0
            remote = ray.remote(num_cpus=threads, num_gpus=gpus, max_retries=0)(run_process)
            running = {remote.remote(*arguments): name for name, arguments in jobs}
            while running:
                (done,), _ = ray.wait(list(running))
                try:
                    error = ray.get(done)
                except ray.exceptions.RayError as lost:
                    error = f"lost by the cluster: {type(lost).__name__}"
                yield running.pop(done), error

        yield there
    finally:
        ray.shutdown()


def python_command(arguments: list[str]) -> list[str]:
    """`flam-rl` with these arguments, by this Python."""
    return [sys.executable, "-m", "flam_rl.cli", *arguments]
