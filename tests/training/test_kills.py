"""A repeatedly killed training run gives the result of an undisturbed one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import forked
import kill_rounds

SOAK_KILLS = 200


def report_of(folder: Path, kills: int, seed: int) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(forked.run(folder, kill_rounds.rounds, kills, seed))
    return report


def test_killed_processes_lose_nothing(tmp_path: Path) -> None:
    report = report_of(tmp_path, kills=5, seed=4)
    assert report["kills"] >= 5
    assert report["different"] == 0


@pytest.mark.soak
def test_hundreds_of_kills_lose_nothing_whatever_the_process_was_doing(
    tmp_path: Path,
) -> None:
    report = report_of(tmp_path, SOAK_KILLS, seed=0)
    print(json.dumps(report))
    assert report["kills"] >= SOAK_KILLS
    assert min(report["during"].values()) >= SOAK_KILLS // 10
