"""The task-mixing benchmark runs, on few records."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import mixing
from benchmark_data import data_sets, tiny_study
from manyheads.storage import RunLock

pytestmark = pytest.mark.soak


def study(folder: Path, *more: str) -> None:
    mixing.main(tiny_study(folder, "--epochs", "1", "--records", "32", *more))


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mixing")
    data_sets(folder / "data")
    study(folder, "--only", "alone", "temperature", "--parts")
    assert not (folder / "out" / "mixing.md").exists()
    study(folder, "--only", "alone", "temperature", "joint", "together", "pcgrad")
    return folder / "out"


def test_each_way_is_scored_on_the_test_data_and_told_against_the_tasks_alone(out: Path) -> None:
    runs = json.loads((out / "mixing.json").read_text())["runs"]
    assert {data: list(mixes) for data, mixes in runs.items()} == {
        "banking77_wnut17": ["alone", "temperature", "together", "pcgrad"],
        "snips": ["alone", "joint", "together", "pcgrad"],
    }
    for data, mixes in runs.items():
        for name, ((run,)) in mixes.items():
            alone = name == "alone"
            assert run["scores"].keys() == set(mixing.METRICS[data][: 2 if alone else 3])
            assert all(0 <= score <= 1 for score in run["scores"].values())
            assert len(run["best_epoch"]) == (2 if alone else 1)
            assert ("cosine" in run) == (name == "pcgrad")
    text = (out / "mixing.md").read_text()
    assert "| size to the power 0.5 | " in text
    alone, joint = (runs["snips"][name][0]["scores"]["slots f1"] for name in ("alone", "joint"))
    assert f" {100 * joint:.1f}, {100 * (joint - alone):+.1f} |" in text
    assert (out / "mixing.png").read_bytes().startswith(b"\x89PNG")


def test_a_part_of_the_records_keeps_the_proportion_of_the_files(out: Path) -> None:
    folder = out / "mixing-data-banking77_wnut17-32"
    with (folder / "tasks.intent.train_file.csv").open(newline="") as file:
        intents = list(csv.reader(file))[1:]
    text = (folder / "tasks.entities.train_file.conll").read_text()
    # Of 36 that are not held out, and of 12.
    assert (len(intents), len(text.strip().split("\n\n"))) == (24, 8)
    assert len((out / "mixing-data-snips-32" / "train_file" / "label").read_text().split()) == 20
    assert mixing.evenly("aabbcc", 0.5) == ["a", "b", "c"]


def test_what_is_done_or_under_way_is_left_alone(
    out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mixing, "run_part", lambda *_: pytest.fail("trained again"))
    text = (out / "mixing.md").read_text()
    under_way = out / "mixing-snips-dwa-1"
    under_way.mkdir()
    with RunLock(under_way):
        study(out.parent, "--only", "alone", "temperature", "joint", "together", "pcgrad")
        study(out.parent, "--only", "dwa", "--sets", "snips", "--parts")
    assert (out / "mixing.md").read_text() == text
    assert not list(out.glob("mixing-*-1/best"))
