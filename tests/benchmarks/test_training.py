"""The training benchmark runs, on few records."""

from __future__ import annotations

import json
import sys
import warnings
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import batch_sizes
import step_account
import training as benchmark
from benchmark_data import snips_folder
from training_setup import encoder_folder

pytestmark = pytest.mark.soak


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    with warnings.catch_warnings():
        # Not ours to mend: what the other libraries' training warns of.
        warnings.simplefilter("ignore")
        benchmark.main(
            [
                "--data", str(snips_folder(folder / "snips")), "--out", str(folder / "out"),
                "--model", str(encoder_folder()), "--max-length", "32", "--threads", "1",
                "--precision", "float32", "--systems", "ours", "plain", "trainer", "--smoke",
            ]
        )  # fmt: skip
    return folder / "out"


def test_all_systems_are_measured_on_the_same_sentences(report: Path) -> None:
    found = json.loads((report / "training.json").read_text())
    assert set(found["speed"]) == set(found["accuracy"]) == {"ours", "plain", "trainer"}
    runs = [run for runs in found["accuracy"].values() for run in runs]
    assert len({run["tokens"] for run in runs}) == 1
    assert [run["steps"] for run in runs] == [3, 3, 3]
    assert all(0 <= score <= 1 for run in runs for score in run["scores"].values())
    assert found["ratios"]["ours"] == 1
    assert found["share_of_rate"]["products"]["float32"] > 0


def test_what_is_called_outside_of_a_step_is_not_counted_for_it() -> None:
    watch = step_account.Account()
    with watch.stage("forward: encoder"):
        pass
    assert not watch.seconds
    with (
        watch.stage(step_account.AROUND),
        watch.stage(step_account.OUTSIDE),
        watch.stage("forward: encoder"),
    ):
        pass
    assert set(watch.seconds) == {step_account.AROUND, step_account.OUTSIDE}


def test_the_stages_of_a_step_are_all_watched_and_make_up_the_whole(report: Path) -> None:
    account = json.loads((report / "training.json").read_text())["account"]
    assert set(account["stages_ms"]) >= {
        "data", "forward: encoder", "forward: heads", "loss", "backward", "clipping", "optimiser",
        "logging",
    }  # fmt: skip
    assert min(account["stages_ms"].values()) > 0
    assert sum(account["stages_ms"].values()) == pytest.approx(account["ms_per_step"])
    assert account["operators"]


def test_what_is_measured_is_not_measured_again(
    report: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure", lambda *_: pytest.fail("measured again"))
    text = (report / "training.md").read_text()
    data = str(report.parent / "snips")
    benchmark.main(["--data", data, "--out", str(report), "--threads", "1", "--smoke",
                    "--systems", "ours", "plain", "trainer"])  # fmt: skip
    assert (report / "training.md").read_text() == text


def test_the_speed_by_batch_size_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch_sizes.main(
        [
            "--data", str(snips_folder(tmp_path)), "--model", str(encoder_folder()),
            "--device", "cpu", "--threads", "1", "--sizes", "2", "12", "--steps", "3",
            "--max-length", "32",
        ]
    )  # fmt: skip
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if "|" in line][2:]
    assert [int(row[1]) for row in rows] == [2, 12]
    assert all(float(row[2]) > 0 and 0 <= float(row[4].strip(" %")) < 100 for row in rows)
    assert float(rows[0][4].strip(" %")) < float(rows[1][4].strip(" %"))
