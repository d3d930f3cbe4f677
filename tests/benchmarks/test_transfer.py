"""The transfer benchmark runs, on few records."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import transfer
from benchmark_data import data_sets, tiny_study

pytestmark = pytest.mark.soak


def study(folder: Path, *more: str) -> None:
    transfer.main(tiny_study(folder, "--epochs", "2", "--records", "16", *more))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transfer")
    data_sets(folder / "data")
    (folder / "data" / "stsb").mkdir()
    pairs = [("john eats", "mary eats", 4.0), ("in paris", "in rome", 2.5), ("a", "bad rain", 0.0)]
    for name in ("train", "test"):
        with (folder / "data" / "stsb" / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows(pairs)
    # The tiny encoder has two layers, of which there cannot be three.
    fit = ["--set", "lora.rank=4"]
    names = [name for name in transfer.REGIMES if name not in ("layers", "lower")]
    study(folder, "--only", *[name for name in names if name != "lora"], "--parts")
    assert not (folder / "out" / "transfer.md").exists()
    study(folder, "--only", "lora", *fit, "--parts")
    study(folder, "--only", *names)
    return folder / "out"


def runs_of(out: Path) -> dict[str, Any]:
    report = json.loads((out / "transfer.json").read_text())
    return {name: runs[0] for name, runs in report["runs"].items()}


def test_every_regime_is_trained_and_scored(out: Path) -> None:
    runs = runs_of(out)
    assert list(runs) == [name for name in transfer.REGIMES if name not in ("layers", "lower")]
    for run in runs.values():
        assert run["scores"].keys() == transfer.METRICS.keys()
        assert run["minutes"] > 0
        assert run["trained"] > 0
    assert runs["linear"]["trained"] < runs["tuned"]["trained"]
    assert runs["lora"]["trained"] < runs["tuned"]["trained"]
    assert runs["head"]["trained"] < runs["tuned"]["trained"]
    assert runs["linear"]["trained"] < runs["gradual"]["trained"] < runs["tuned"]["trained"]


def test_a_frozen_encoder_keeps_its_score_of_similarity(out: Path) -> None:
    original = json.loads((out / "transfer.json").read_text())["original_sts"]
    for name in ("linear", "strong"):
        assert runs_of(out)[name]["scores"]["sts"] == pytest.approx(original)


def test_the_report_has_a_row_for_each_regime_and_a_picture(out: Path) -> None:
    table = (out / "transfer.md").read_text()
    for name, run in runs_of(out).items():
        row = next(line for line in table.splitlines() if transfer.REGIMES[name].title in line)
        assert f"| {run['trained']:,} |" in row
        assert f"| {100 * run['scores']['frame accuracy']:.1f} |" in row
    assert (out / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_nothing_is_left_of_a_part_that_is_done(out: Path) -> None:
    left = {path.name for path in out.glob("transfer-*") if path.is_dir()}
    assert left == {"transfer-parts"}
