"""The data-scale benchmark runs, on few records."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import data_scale as benchmark
import manyheads.training.setup as run_setup
from benchmark_data import snips_folder
from manyheads.training.data.ragged import zeros
from training_setup import encoder_folder

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(not benchmark.STATUS.exists(), reason="there is no /proc"),
]


def test_each_size_is_measured_by_itself(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load = run_setup.load_training_data
    out = tmp_path / "out"
    benchmark.main(
        [
            "--data", str(snips_folder(tmp_path / "snips")), "--out", str(out), "--threads", "1",
            "--model", str(encoder_folder()), "--max-length", "32", "--batch-size", "4",
            "--records", "20", "40", "--steps", "3",
        ]
    )  # fmt: skip
    assert run_setup.load_training_data is load
    few, many = json.loads((out / "data-scale.json").read_text())["parts"]
    assert (few["records"], many["records"]) == (20, 40)
    assert 1.5 * few["file_bytes"] < many["file_bytes"]
    for part in (few, many):
        assert all(seconds > 0 for seconds in part["seconds"].values())
        assert all(size > 10_000_000 for size in part["private_bytes"].values())
        assert part["mapped_bytes"] == 0
    table = (out / "data-scale.md").read_text()
    assert "| 40 | 0 MB |" in table
    assert "From 20 to 40:" in table
    assert table.strip() in capsys.readouterr().out


def test_what_is_mapped_from_disk_is_counted() -> None:
    before = benchmark.mapped_bytes()
    array = zeros(1 << 20, int, limit=0)
    assert benchmark.mapped_bytes() - before >= array.nbytes
