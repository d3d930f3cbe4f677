"""A repeatedly killed training run gives the result of an undisturbed one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "helpers" / "kill_rounds.py"
SOAK_KILLS = 200


def kill_rounds(kills: int, seed: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--kills", str(kills), "--seed", str(seed)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    report: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return report


def test_killed_processes_lose_nothing() -> None:
    report = kill_rounds(kills=5, seed=4)
    assert report["kills"] >= 5
    assert report["different"] == 0


@pytest.mark.soak
def test_hundreds_of_kills_lose_nothing_whatever_the_process_was_doing() -> None:
    report = kill_rounds(SOAK_KILLS, seed=0)
    print(json.dumps(report))
    assert report["kills"] >= SOAK_KILLS
    assert min(report["during"].values()) >= SOAK_KILLS // 10
