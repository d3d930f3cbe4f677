"""A model, a checkpoint and an interrupted run that an earlier version wrote still load.

`tests/helpers/version_0_1.tar.gz` holds what version 0.1 left: `data/`, a run in `stopped/` that
was killed after step 7 of 8 (its last checkpoint is that of step 6), and `expected.json`, with what
that version predicted and the losses that the whole run had.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

import manyheads
from training_setup import log_lines

ARCHIVE = Path(__file__).parents[1] / "helpers" / "version_0_1.tar.gz"


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path


def expected(folder: Path) -> Any:
    return json.loads((folder / "expected.json").read_text(encoding="utf-8"))


def test_its_model_answers_as_it_did(earlier: Path) -> None:
    known = expected(earlier)
    model = manyheads.load(earlier / "stopped" / "best", backend="torch")
    found = [p.to_json() for p in model.predict(known["texts"], embed=True)]
    for one, other in zip(found, known["predictions"], strict=True):
        assert one["intent"]["label"] == other["intent"]["label"]
        assert one["topics"]["labels"] == [
            {**label, "score": pytest.approx(label["score"], abs=1e-4)}
            for label in other["topics"]["labels"]
        ]
        assert [(e["start"], e["end"], e["label"]) for e in one["ner"]["entities"]] == [
            (e["start"], e["end"], e["label"]) for e in other["ner"]["entities"]
        ]
        assert one["embedding"] == pytest.approx(other["embedding"], abs=1e-5)


def test_its_checkpoint_predicts(earlier: Path) -> None:
    model = manyheads.load(earlier / "stopped" / "mtl_step6.pt")
    [prediction] = model.predict(["John lives in Paris"])
    assert list(prediction.results) == ["intent", "topics", "ner"]


def test_its_interrupted_run_goes_on_to_the_losses_that_the_whole_run_had(earlier: Path) -> None:
    known = expected(earlier)
    manyheads.train(
        {
            **known["config"],
            "model_name": "encoder",
            "train_file": str(earlier / "data" / "train.jsonl"),
            "valid_file": str(earlier / "data" / "valid.jsonl"),
            "save_dir": str(earlier / "stopped"),
        },
        resume=True,
    )
    steps = [line for line in log_lines(earlier / "stopped") if line["event"] == "step"]
    assert [line["step"] for line in steps] == [step for step, _ in known["losses"]]
    for line, (_, loss) in zip(steps, known["losses"], strict=True):
        assert line["loss"] == pytest.approx(loss, rel=1e-4)
