"""The frozen-cache benchmark runs, on few records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import frozen_cache as benchmark
import manyheads.training.loop as training_module
from benchmark_data import snips_folder
from training_setup import encoder_folder

pytestmark = pytest.mark.soak


def test_both_runs_are_timed_and_end_at_the_same_weights(tmp_path: Path) -> None:
    finish = training_module.finish_epoch
    out = tmp_path / "out"
    benchmark.main(
        [
            "--data", str(snips_folder(tmp_path / "snips")), "--out", str(out), "--threads", "1",
            "--model", str(encoder_folder()), "--precision", "float32", "--smoke",
            "--max-length", "32",
        ]
    )  # fmt: skip
    assert training_module.finish_epoch is finish
    found = json.loads((out / "frozen-cache.json").read_text())
    for epochs in found["every_epoch"].values():
        assert len(epochs) == 2
        assert all(set(epoch) == set(benchmark.PARTS) for epoch in epochs)
        assert all(seconds > 0 for epoch in epochs for seconds in epoch.values())
    later = found["later_epochs"]
    assert found["ratios"]["training"] == pytest.approx(
        later["without"]["training"] / later["with"]["training"]
    )
    assert found["differences"]["loss"] < 1e-4 < found["differences"]["first_loss"]
    assert found["differences"]["weight"] < 1e-3 < found["differences"]["largest_weight"]
    assert "times as fast" in (out / "frozen-cache.md").read_text()


def test_an_epoch_after_the_first_there_must_be(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        benchmark.main(["--data", str(tmp_path), "--epochs", "1"])
    assert "at least 2" in capsys.readouterr().err
