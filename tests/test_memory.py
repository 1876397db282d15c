"""Data larger than memory: what training holds does not grow with the video."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "measure_memory.py"


@pytest.mark.learning
@pytest.mark.timeout(1800)
@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_ten_times_the_video_takes_no_more_memory(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, str(SCRIPT), "--frames", "10000", "100000", "--out", str(tmp_path)],
        check=True,
        capture_output=True,
    )
    small, large = json.loads((tmp_path / "results.json").read_text())["runs"]
    assert large["frames"] == 10 * small["frames"] == 100_000
    assert large["peak_anonymous_mib"] - small["peak_anonymous_mib"] < 200 / 1.048576
