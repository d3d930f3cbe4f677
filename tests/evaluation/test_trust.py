"""From training to predictions whose scores mean what they say, on every backend."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import manyheads
from manyheads.api import export
from manyheads.cli import main
from manyheads.errors import ManyheadsError, ModelError
from manyheads.inference import load_predictor
from manyheads.storage import read_manifest, set_calibration
from tiny import tiny_encoder_folder

NAMES = ("john", "mary", "ravi", "anna")


def records(count: int, seed: int) -> Iterator[dict[str, Any]]:
    """Sentences of which one in ten has a wrong label, so that certainty is never right."""
    draw = random.Random(seed)
    for _ in range(count):
        name, asks = draw.choice(NAMES), draw.random() < 0.5
        tokens = ["where", "is", name] if asks else [name, "lives", "in", "paris"]
        label = "asked" if asks == (draw.random() < 0.9) else "told"
        tags = ["B-PER" if token in NAMES else "O" for token in tokens]
        yield {"tokens": tokens, "label": label, "ner": tags}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trust")
    tiny_encoder_folder(folder / "encoder")
    model = manyheads.train(
        list(records(120, 1)), valid=list(records(150, 2)), model_name=str(folder / "encoder"),
        save_dir=str(folder / "run"), num_epochs=2, learning_rate=3e-3, max_length=16,
        head_learning_rate=3e-2, precision="float32", threads=1, progress=False,
    )  # fmt: skip
    best: Path = model.best
    return best


@pytest.fixture
def model(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "model"))


def test_training_calibrates_and_says_on_what(trained: Path) -> None:
    tasks = read_manifest(trained).calibration["tasks"]
    assert tasks["classification"]["scores"]["method"] == "temperature"
    assert tasks["ner"]["scores"]["method"] in ("platt", "isotonic")
    assert "validation records" in tasks["classification"]["source"]
    assert tasks["classification"]["ece"] < tasks["classification"]["ece_before"] + 0.05
    assert "calibrated" in (trained / "README.md").read_text()
    # One label in ten is wrong, and the calibrated scores know.
    (found,) = manyheads.load(trained).predict(["where is john"])
    assert 0.8 < found["classification"].score < 0.97


def test_the_history_has_the_score_without_each_fold(trained: Path) -> None:
    lines = (trained.parent / "metrics.jsonl").read_text().splitlines()
    epochs = [e for e in map(json.loads, lines) if e["event"] == "epoch"]
    assert [len(e["score_without_fold"]) for e in epochs] == [5, 5]


def test_every_backend_gives_the_same_calibrated_scores(model: Path) -> None:
    result = export(
        model, formats=["float32"], data=list(records(60, 3)), threads=1, progress=False
    )
    assert result.kept
    texts = ["where is john", "mary lives in paris"]
    torch, onnx = (load_predictor(model, backend=b, threads=1) for b in ("torch", "onnx"))
    assert torch.scorings == onnx.scorings != {}
    for one, other in zip(torch.predict(texts), onnx.predict(texts), strict=True):
        assert one["classification"].score == pytest.approx(other["classification"].score, abs=1e-4)
        assert list(one["ner"].scores()) == pytest.approx(list(other["ner"].scores()), abs=1e-4)


def test_thresholds_are_found_and_kept_and_leave_the_rest_undecided(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "more.jsonl"
    data.write_text("".join(json.dumps(r) + "\n" for r in records(400, 4)))
    command = ["thresholds", str(model), "--file", str(data), "--precision", "0.8"]
    assert main(command) == 0
    assert "a precision of 0.8" in capsys.readouterr().out
    stored = read_manifest(model).calibration["tasks"]["classification"]["thresholds"]
    assert stored["precision"] == 0.8
    fresh = manyheads.load(model).predict([" ".join(r["tokens"]) for r in records(50, 5)])
    assert sum(p["classification"].label is not None for p in fresh) > 20
    # No score of labels that are one in ten wrong can promise this.
    assert main([*command[:-1], "0.99"]) == 1
    assert "no score of 400 records" in capsys.readouterr().out
    assert read_manifest(model).calibration["tasks"]["classification"]["thresholds"] is None


def test_a_model_of_an_earlier_version_says_that_it_is_not_calibrated(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    set_calibration(model, {})
    assert main(["info", str(model)]) == 0
    assert "not calibrated" in capsys.readouterr().out
    assert "not calibrated" in (model / "README.md").read_text()
    report = manyheads.evaluate(model, list(records(30, 6)), backend="torch")
    assert report.to_json()["tasks"]["classification"]["confidence"]["calibrated"] is False
    with pytest.raises(ModelError, match="is not calibrated"):
        manyheads.thresholds(model, list(records(30, 6)))
    manyheads.calibrate(model, list(records(60, 6)), threads=1)
    report = manyheads.evaluate(model, list(records(30, 7)), backend="torch")
    assert report.confidence["classification"]["calibrated"] is True


@pytest.mark.parametrize(
    "calibration",
    [
        {"tasks": []},
        {"tasks": {"ner": {"scores": {"method": "temperature", "temperature": 2.0}}}},
        {"tasks": {"other": {"scores": {"method": "temperature", "temperature": 2.0}}}},
        {"tasks": {"classification": {"scores": {"method": "temperature", "temperature": -1}}}},
        {
            "tasks": {
                "classification": {
                    "scores": {"method": "temperature", "temperature": 1.0},
                    "thresholds": {"precision": 2, "confidence": 0, "score": 0, "labels": {}},
                }
            }
        },
    ],
)
def test_a_hostile_calibration_is_refused(model: Path, calibration: dict[str, Any]) -> None:
    set_calibration_raw(model, calibration)
    with pytest.raises(ManyheadsError, match=r"calibration has|thresholds are"):
        load_predictor(model, backend="torch")


def set_calibration_raw(model: Path, calibration: dict[str, Any]) -> None:
    """Write a calibration as an attacker would, with a seal that is right."""
    (model / "README.md").unlink()
    set_calibration(model, calibration)
