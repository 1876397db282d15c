"""Commands that are killed at random moments and given again: a short form of scripts/endurance.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "endurance.py"


@pytest.mark.learning
def test_killed_commands_go_on_to_the_same_results(tmp_path: Path) -> None:
    command = [sys.executable, str(SCRIPT), "--out", str(tmp_path), "--kills", "2"]
    subprocess.run(
        [*command, "--parts", "collect", "tiles", "agent"],
        check=True,
        capture_output=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    found = json.loads((tmp_path / "results.json").read_text())
    assert found["kills"] == 6
    assert {name: found[name] for name in ("lost", "crashes", "hangs")} == {
        "lost": 0,
        "crashes": 0,
        "hangs": 0,
    }
    assert all(one["different"] == [] for part in found["rounds"].values() for one in part)
    assert {path.name for path in tmp_path.iterdir()} == {"results.json"}
