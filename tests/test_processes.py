"""FLAM-v0 in processes of its own: whatever forked or spawned them, and whatever torch did before."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

LIMIT_S = 240
"""A program that waits for ever fails its test after so long; on two quiet cores all take half a minute."""
PROGRAM = """
import sys

import gymnasium as gym
import numpy as np


def make():
    return gym.make("flam_rl:FLAM-v0")  # imports flam_rl, in the child


def stable_baselines(method, worlds):
    from stable_baselines3.common.vec_env import SubprocVecEnv

    env = SubprocVecEnv([make] * worlds, start_method=method)
    env.seed(5)
    observations = env.reset()
    for _ in range(3):
        env.step(np.zeros((worlds, *env.action_space.shape), np.float32))
    env.close()
    return observations


def asynchronous(method, worlds):
    import flam_rl

    env = gym.make_vec("FLAM-v0", worlds, vectorization_mode="async", vector_kwargs={"context": method})
    observations, _ = env.reset(seed=5)
    for _ in range(3):
        env.step(np.zeros(env.action_space.shape, np.float32))
    env.close()
    return observations


if __name__ == "__main__":
    import torch

    torch.set_num_threads(int(sys.argv[2]))
    if sys.argv[1] == "used":
        torch.ones(2000, 2000).exp().sum()  # large enough for every thread
    assert "flam_rl" not in sys.modules
    seen = []
    for kind in (stable_baselines, asynchronous):
        for method, worlds in (("fork", 2), ("spawn", 1), ("forkserver", 1)):
            seen.append(kind(method, worlds))
            print(kind.__name__, method, flush=True)
    assert all(np.allclose(seen[0][: len(other)], other, atol=1e-4) for other in seen)
"""


CASES = [(before, threads) for before in ("used", "unused") for threads in (1, 2)]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, int], subprocess.Popen]]:
    """The program of each case; all of them run at once."""
    path = tmp_path_factory.mktemp("processes") / "program.py"
    path.write_text(PROGRAM)
    running = {
        (before, threads): subprocess.Popen(
            [sys.executable, str(path), before, str(threads)],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        for before, threads in CASES
    }
    yield running
    for program in running.values():
        with contextlib.suppress(ProcessLookupError):  # nothing of it is left
            os.killpg(program.pid, signal.SIGKILL)  # its children too
        program.communicate()


@pytest.mark.learning
@pytest.mark.parametrize(("before", "threads"), CASES)
def test_no_process_waits_for_threads_that_it_does_not_have(programs, before: str, threads: int) -> None:
    program = programs[before, threads]
    try:
        output, _ = program.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired as expired:
        pytest.fail(f"hangs after: {expired.stdout!r}")
    assert program.returncode == 0, output
    assert len(output.splitlines()) == 6, output
