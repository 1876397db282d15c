"""The speed benchmark runs and its figures are possible; how fast this machine is, is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_quick_benchmark_writes_possible_figures(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "benchmark_speed.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path), "--quick"], check=True)
    found = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert found["machine"]["threads"] >= 1
    for observation in ("factors", "pixels"):
        speeds = found["env_steps_per_second"][observation]
        assert speeds["256"] > speeds["16"] > speeds["1"] > 0
    assert min(found["against_the_real_task"]["over_real"].values()) > 1
    assert all(work["busy"] > 0 and work["quiet"] > 0 for work in found["busy"].values())
    for roofline in found["roofline"].values():
        assert 0 < roofline["fraction"] < 1.2
    shares = {name: share for name, share in found["split"].items() if name != "milliseconds"}
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert all(-0.05 < share < 1 for share in shares.values())
    assert shares["overhead"] < 0.5
    assert found["precision"]["same_tokens_after_15_steps"] > 0.98
    assert found["wrapping"]["sb3_overhead"] > -0.5
    assert 0 < found["scaling"]["factors"]["exponent"] < 2
    assert 0.4 < found["scaling"]["horizon"]["exponent"] < 1.6  # two horizons, on a machine that may be busy
    assert min(found["training"].values()) > 0
    assert found["memory"]["growth"] < 0.5
