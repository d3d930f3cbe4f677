"""The study of mixing tasks, on next to nothing."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

import mixing
from manyheads.run_lock import RunLock
from training_setup import encoder_folder, sentences


def write_csv(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = [(" ".join(record["tokens"]), record["label"]) for record in records]
        csv.writer(file).writerows([("text", "category"), *rows])


def write_conll(path: Path, records: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blocks = ["\n".join(map("\t".join, zip(r["tokens"], r["ner"], strict=True))) for r in records]
    path.write_text("\n\t\n".join(blocks) + "\n\n", encoding="utf-8")


def data_sets(folder: Path) -> Path:
    """Small files under the names of the public data."""
    for part, seed in (("train", 1), ("dev", 2), ("test", 3)):
        records = sentences(20, seed)
        (folder / "snips" / part).mkdir(parents=True)
        for name, lines in (
            ("seq.in", [" ".join(record["tokens"]) for record in records]),
            ("seq.out", [" ".join(record["ner"]) for record in records]),
            ("label", [record["label"] for record in records]),
        ):
            (folder / "snips" / part / name).write_text("".join(f"{line}\n" for line in lines))
    write_csv(folder / "banking77" / "train.csv", sentences(40, 4))
    write_csv(folder / "banking77" / "test.csv", sentences(10, 5))
    for name, seed in (
        ("wnut17train.conll", 6), ("emerging.dev.conll", 7), ("emerging.test.annotated", 8),
    ):  # fmt: skip
        write_conll(folder / "wnut17" / name, sentences(12, seed))
    return folder


def study(folder: Path, *more: str) -> None:
    mixing.main(
        [
            "--data", str(folder / "data"), "--out", str(folder / "out"), "--seeds", "1",
            "--epochs", "1", "--threads", "1", "--records", "32",
            "--set", f"model_name={encoder_folder()}", "--set", "max_length=32",
            "--set", "batch_size=8", "--set", "precision=float32", "--set", "log_every=1", *more,
        ]
    )  # fmt: skip


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
