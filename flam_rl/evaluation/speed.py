"""Speed of the model alone: timing in turns, against the processor's own limit, and against size."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch._inductor.utils import fresh_cache
from torch.utils.benchmark import Timer
from torch.utils.flop_counter import FlopCounterMode

from ..core.stepping import Imagined, Stepper
from ..core.threads import one_core
from ..core.world import World
from ..models.tiles.code_model import CodeFacts, FLAMConfig
from ..models.tiles.dynamics import DynamicsConfig
from ..models.tiles.factorizer import FactorizerConfig
from ..models.tiles.flam import FLAM
from ..models.tiles.stepper import Imagination
from ..models.tiles.tokenizer import TokenizerConfig
from ..types import Json

BATCH = 256
"""Batch of worlds at which the model's speed is quoted."""


@dataclass(frozen=True)
class Bench:
    """Seconds for which a call is repeated to take its median."""

    seconds: float
    rounds: int = 5
    """How often calls that are compared take turns."""

    def __call__(self, function: Callable[[], Any]) -> float:
        """Median seconds of a call, without gradients."""
        return replace(self, rounds=1).compare({"": function})[""]

    def compare(self, functions: dict[str, Callable[[], Any]]) -> dict[str, float]:
        """Median seconds of a call of each, taken in turns, so that a slow minute of the machine affects all alike."""
        seconds: dict[str, list[float]] = {name: [] for name in functions}
        with torch.inference_mode():
            for function in functions.values():
                function()
            for _ in range(self.rounds):
                for name, function in functions.items():
                    timer = Timer(
                        "function()", globals={"function": function}, num_threads=torch.get_num_threads()
                    )
                    took = timer.blocked_autorange(min_run_time=self.seconds / self.rounds).median
                    seconds[name].append(float(took))
        return {name: float(np.median(took)) for name, took in seconds.items()}


def beside_busy_neighbours(works: dict[str, Callable[[], int]], seconds: float, rounds: int = 3) -> Json:
    """Work per second, alone and beside as many busy processes as there are cores, in turns; and the ratio of both.

    Args:
        works: each does a piece of work and returns its amount.
        seconds: length of each turn; a piece of work that has begun is finished.
    """

    def rate(work: Callable[[], int]) -> float:
        began, done = time.perf_counter(), 0
        while (took := time.perf_counter() - began) < seconds or not done:
            done += work()
        return done / took

    result = {}
    for name, work in works.items():
        work()
        rates: dict[str, list[float]] = {"quiet": [], "busy": []}
        for _ in range(rounds):
            rates["quiet"].append(rate(work))
            with _busy_neighbours():
                rates["busy"].append(rate(work))
        found = {key: float(np.median(values)) for key, values in rates.items()}
        result[name] = found | {"ratio": found["busy"] / found["quiet"]}
    return result


@contextmanager
def _busy_neighbours() -> Iterator[None]:
    busy = [
        subprocess.Popen(
            [sys.executable, "-c", "print(flush=True)\nwhile True: pass"], stdout=subprocess.PIPE
        )
        for _ in range(os.cpu_count() or 1)
    ]
    try:
        for process in busy:
            assert process.stdout is not None
            process.stdout.readline()  # the busy process is running
        yield
    finally:
        for process in busy:
            process.kill()
            process.communicate()


def roofline(bench: Bench, world: World, worlds: int, dtype: torch.dtype, compile: bool = False) -> Json:
    """FLOP/s of a step against those of a large matmul in the same precision."""
    side = 2048
    left = torch.randn(side, side, device=world.device, dtype=dtype)
    imagination, state, wanted = ready(world, worlds, dtype)
    with (
        one_core(),
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
    ):  # the profiler sees its own thread only
        imagination.step(state, wanted)
    imagination, *_ = ready(world, worlds, dtype, compile)
    seconds = bench.compare({"peak": lambda: left @ left, "step": lambda: imagination.step(state, wanted)})
    flops, peak = counter.get_total_flops(), 2 * side**3 / seconds["peak"]
    return {
        "num_envs": worlds,
        "peak_gflops": peak / 1e9,
        "step_mflop_per_env": flops / worlds / 1e6,
        "achieved_gflops": flops / seconds["step"] / 1e9,
        "fraction": flops / seconds["step"] / peak,
        "env_steps_per_second": worlds / seconds["step"],
    }


def ready(
    world: World, worlds: int, dtype: torch.dtype = torch.float32, compile: bool = False
) -> tuple[Stepper, Imagined, torch.Tensor]:
    """The inputs of a step, the same for every call: a stepper that controls factor 0, B imagined worlds, and latent
    actions."""
    with torch.inference_mode():
        imagination = world.imagination([0], dtype, compile)
        state = imagination.begin(world.start(worlds, torch.Generator(world.device).manual_seed(0)).factors)
        wanted = torch.randn(worlds, 1, world.latent_action_dim, device=world.device)
    return imagination, state, wanted


def compiled(bench: Bench, world: World) -> Json:
    """The compiled step: seconds of its first call without a cache, and its speed relative to the plain step's."""
    plain, state, wanted = ready(world, BATCH)
    fused, *_ = ready(world, BATCH, compile=True)
    with torch.inference_mode(), fresh_cache():
        began = time.perf_counter()
        fused.step(state, wanted)
        warm_up = time.perf_counter() - began
        seconds = bench.compare(
            {"plain": lambda: plain.step(state, wanted), "fused": lambda: fused.step(state, wanted)}
        )
    return {"warm_up_s": warm_up, "compiled_over_plain": seconds["plain"] / seconds["fused"]}


def scaling(bench: Bench, world: World, sizes: tuple[int, ...], quick: bool) -> dict[str, Json]:
    """Seconds of a step while one size varies at a time, and the slope of the line through their logarithms."""
    factors = (2, 8, 32) if quick else (2, 4, 8, 16, 32)
    grids = (4, 8) if quick else (4, 8, 16)
    horizons = (8, 32) if quick else (8, 16, 32, 64, 128)

    def step_of(count: int, side: int, worlds: int = BATCH) -> float:
        torch.manual_seed(0)
        config = FLAMConfig(FactorizerConfig(factors=count), DynamicsConfig())
        tokenizer = TokenizerConfig()
        flam = FLAM(
            config, CodeFacts.blank(config, (side, side), tokenizer.codebook_size, 192, tokenizer.code_dim)
        )
        flam = flam.to(world.device).eval().requires_grad_(False)
        with torch.inference_mode():
            imagination = Imagination(flam)
            dim = config.factorizer.factor_dim
            start = torch.randn(worlds, count, dim, device=world.device)
            state = imagination.begin(torch.nn.functional.rms_norm(start, (dim,)))
        return bench(lambda: imagination.step(state))

    start = world.start(BATCH)
    return {
        "factors": exponent({k: step_of(k, 8) for k in factors}),
        "tokens": exponent({side**2: step_of(4, side) for side in grids}),
        "horizon": exponent(
            {t: bench(partial(world.imagine, lambda seen: seen, start, t)) for t in horizons}
        ),
        "num_envs": exponent({n: step_of(4, 8, n) for n in sizes}),
    }


def exponent(seconds: dict[int, float]) -> Json:
    """The exponent of the line through the logarithms of sizes and seconds, and these in milliseconds."""
    sizes, values = np.log(list(seconds)), np.log(list(seconds.values()))
    return {
        "exponent": float(np.polyfit(sizes, values, 1)[0]),
        "milliseconds": {str(size): 1e3 * value for size, value in seconds.items()},
    }
