"""How fast imagination, decoding and training are, against the processor's own limit.

    python scripts/benchmark_speed.py --out docs/results/speed
    python scripts/benchmark_speed.py --out runs/speed --quick

Every figure is the median of repeats after a warm-up (`torch.utils.benchmark`); results.json states threads and
device. Ratios are of figures taken in the same run: machines differ, and are shared.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import matplotlib.pyplot as plt
import torch
import tyro
from env_speed import (
    against_the_real_task,
    busy,
    memory,
    precision_choice,
    split,
    stepping,
    tracked,
    training,
    wrapping,
)

from flam_rl.core.checkpoint import load_world
from flam_rl.evaluation.speed import (
    BATCH,
    Bench,
    compiled,
    roofline,
    scaling,
)
from flam_rl.results import made_by, write_results
from flam_rl.training.run import DeviceName, pick_device
from flam_rl.types import Json


@dataclass(frozen=True)
class SpeedConfig:
    """Measure speed and write OUT/results.json and OUT/plot.png.

    Example: python scripts/benchmark_speed.py --out docs/results/speed
    """

    out: Path
    quick: bool = False
    """Fewer sizes and repeats, nothing compiled: half a minute, for tests; the figures are rough."""
    device: DeviceName = "auto"
    world: str = "multigrid"


def main(config: SpeedConfig) -> None:
    """Measure everything."""
    device = pick_device(config.device)
    bench = Bench(0.1, rounds=2) if config.quick else Bench(2.0)
    world = load_world(config.world, device)
    sizes = (1, 16, 256) if config.quick else (1, 16, 256, 4096)
    results: Json = {"quick": config.quick}
    results["env_steps_per_second"] = {
        observation: {str(n): stepping(bench, world, observation, n) for n in sizes}
        for observation in ("factors", "pixels")
    }
    results["against_the_real_task"] = against_the_real_task(bench, world, not config.quick)
    results["busy"] = busy(world, device, config.quick)
    results["roofline"] = {
        precision: roofline(bench, world, sizes[-1], getattr(torch, precision))
        for precision in ("float32", "bfloat16")
    }
    if not config.quick:
        results["roofline"]["float32, compiled"] = roofline(bench, world, sizes[-1], torch.float32, True)
    results["precision"] = precision_choice(bench, world)
    results["compile"] = None if config.quick else compiled(bench, world)
    results["split"] = split(bench, world)
    results["wrapping"] = wrapping(bench, world)
    results["scaling"] = scaling(bench, world, sizes, config.quick)
    results["tracked"] = tracked(bench, device, config.quick)
    results["training"] = training(world, device, config.quick)
    results["memory"] = memory(world, 20_000 if config.quick else 1_000_000)
    path = write_results(config.out, results, 0)
    plot(results, config.out / "plot.png")
    print(summary(results, device))
    print(f"wrote {path}")


def summary(results: Json, device: torch.device) -> str:
    """A few lines for people."""
    made = made_by(0)
    lines = [f"{made['gpu'] if device.type == 'cuda' else made['cpu']}, {made['threads']} threads"]
    for observation, speeds in results["env_steps_per_second"].items():
        lines.append(f"{observation:<20}" + "  ".join(f"{n} envs: {v:,.0f}/s" for n, v in speeds.items()))
    against = results["against_the_real_task"]
    for name, speed in against["env_steps_per_second"].items():
        lines.append(f"{BATCH} envs, {name:<27} {speed:,.0f}/s  x{against['over_real'].get(name, 1):.1f}")
    for precision, found in results["roofline"].items():
        lines.append(
            f"roofline  {precision} {found['fraction']:.2f} of {found['peak_gflops']:.0f} GFLOP/s, "
            f"{found['env_steps_per_second']:,.0f}/s at {found['num_envs']} envs"
        )
    for name, found in results["busy"].items():
        lines.append(
            f"{name:<32}{found['quiet']:>9,.0f}/s  busy {found['busy']:>9,.0f}/s  ratio {found['ratio']:.2f}"
        )
    for name in ("precision", "compile", "split", "wrapping", "training", "memory"):
        lines.append(f"{name:<10}" + "  ".join(f"{k} {v:.3g}" for k, v in (results[name] or {}).items()))
    moving = results["tracked"]
    speeds = "  ".join(f"{k} entities: {v:,.0f}/s" for k, v in moving["env_steps_per_second"].items())
    pixels = "  ".join(f"{k}: {v:,.0f}/s" for k, v in moving["pixels_per_second"].items())
    lines.append(f"tracked   {speeds}  exponent {moving['exponent']:.2f}  pixels {pixels}")
    exponents = "  ".join(f"{name} {found['exponent']:.2f}" for name, found in results["scaling"].items())
    return "\n".join([*lines, f"exponents {exponents}"])


def plot(results: Json, path: Path) -> None:
    """Env-steps/s by worlds, and the split of a step."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.6))
    for observation, speeds in results["env_steps_per_second"].items():
        left.loglog([int(n) for n in speeds], list(speeds.values()), "o-", label=f"FLAM-v0, {observation}")
    in_turns = results["against_the_real_task"]["env_steps_per_second"]
    for name in ("factors", "factors, bfloat16"):
        if name in in_turns:
            left.plot(BATCH, in_turns[name], "*", ms=10, label=f"FLAM-v0, {name}")
    left.axhline(in_turns["real"], color="grey", ls="--", label="the real task")
    left.set(xlabel="num_envs", ylabel="env-steps/s")
    left.legend(fontsize=7)
    shares = {name: share for name, share in results["split"].items() if name != "milliseconds"}
    right.barh(list(shares), list(shares.values()), color="tab:blue")
    right.set(xlabel=f"share of a step with pixels, {BATCH} worlds")
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    main(tyro.cli(SpeedConfig))
