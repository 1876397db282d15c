"""The speed benchmark runs and its figures are possible; how fast this machine is, is no test's business."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.learning
def test_the_quick_benchmark_writes_possible_figures(tmp_path: Path) -> None:
    script = ROOT / "scripts" / "benchmark_speed.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path), "--quick"], check=True)
    found = json.loads((tmp_path / "results.json").read_text())
    assert (tmp_path / "plot.png").stat().st_size > 1000
    assert found["made_by"]["threads"] >= 1
    for observation in ("factors", "pixels"):
        assert all(speed > 0 for speed in found["env_steps_per_second"][observation].values())
    assert min(found["against_the_real_task"]["over_real"].values()) > 0
    for work in found["busy"].values():
        assert work["ratio"] == pytest.approx(work["busy"] / work["quiet"])
        assert work["ratio"] > 0
    for roofline in found["roofline"].values():
        assert 0.5 < roofline["step_mflop_per_env"] < 2  # 1.02 by hand, heads aside
        assert roofline["fraction"] > 0
    shares = {name: share for name, share in found["split"].items() if name != "milliseconds"}
    assert abs(sum(shares.values()) - 1) < 1e-6
    assert all(-0.05 < share < 1 for share in shares.values())
    assert found["precision"]["same_tokens_after_15_steps"] > 0.98
    for size in found["scaling"].values():
        assert min(size["milliseconds"].values()) > 0
    assert min(found["training"].values()) > 0
    assert found["memory"]["growth"] < 0.5
