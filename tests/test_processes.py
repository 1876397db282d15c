"""FLAM-v0 in processes of its own: whatever forked or spawned them, and whatever torch did before."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 240
"""A program that waits for ever fails its test after so long; on two quiet cores it takes 15 s."""
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


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("before", ["used", "unused"])
def test_no_process_waits_for_threads_that_it_does_not_have(
    before: str, threads: int, tmp_path: Path
) -> None:
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    program = subprocess.Popen(
        [sys.executable, str(path), before, str(threads)],
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = program.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(program.pid, signal.SIGKILL)  # its children too
        pytest.fail(f"hangs after: {program.communicate()[0]}")
    assert program.returncode == 0, output
    assert len(output.splitlines()) == 6, output
