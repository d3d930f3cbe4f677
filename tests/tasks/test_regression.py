"""The kind `regression`: one number per sentence."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from manyheads.api import evaluate, load
from manyheads.config import TaskConfig
from manyheads.data.records import discover_labels
from manyheads.errors import DataError, ModelError
from manyheads.exporting import export_model
from manyheads.modeling import EncoderShape, make_head
from manyheads.tasks import Prediction, TaskSpec, ValueResult, kind_of
from manyheads.tasks.kinds.regression import Numbers
from training_setup import PLACES, run, sentences, write_records

TASK = TaskConfig(kind="regression")


def priced(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences with a price that depends on their place; the last one has none."""
    prices = dict(zip(PLACES, (1000, 1500, 2000, 2500, 4000), strict=True))
    records = sentences(count, seed, fields=("label",))
    for record in records[:-1]:
        record["value"] = sum(prices.get(token, 0) for token in record["tokens"])
    return records


def value_of(prediction: Prediction) -> float:
    result = prediction.results["price"]
    assert isinstance(result, ValueResult)
    assert result.value is not None
    return result.value


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("prices")
    write_records(folder / "train.jsonl", priced(60, 1))
    write_records(folder / "valid.jsonl", priced(24, 2))
    tasks = {"price": {"kind": "regression"}, "intent": {"kind": "classification"}}
    result, _ = run(folder, tasks=tasks, num_epochs=6, best_metric="price")
    return result.best


def test_numbers_with_little_deviation_from_a_large_mean_are_ranked() -> None:
    times = [1_700_000_000.0 + second for second in range(3600)]
    spec = TaskSpec("when", "regression", (), details={"mean": 1_700_001_800, "deviation": 1039.2})
    metrics = kind_of("regression").measure(spec, times, times)
    assert metrics["spearman"] == pytest.approx(1.0)
    # A head's float32 outputs for equal texts differ by less than a millionth of a deviation.
    repeated = [time // 60 for time in times]
    noisy = [minute + (i % 2) * 3e-7 * 1039.2 for i, minute in enumerate(repeated)]
    assert kind_of("regression").measure(spec, repeated, noisy)["spearman"] == pytest.approx(1.0)


def test_it_learns_numbers_in_their_own_unit(trained: Path) -> None:
    price = evaluate(trained).evaluation["tasks"]["price"]
    assert price["spearman"] > 0.7
    assert price["mae"] < 800
    predictor = load(trained, backend="torch")
    low, high = map(value_of, predictor.predict(["john lives in london", "john lives in york"]))
    assert 0 < low < high < 6000
    (empty,) = predictor.predict([""])
    assert empty.results["price"].to_json() == {"value": None}


def test_the_moments_of_the_training_data_are_stored_with_the_model(trained: Path) -> None:
    (spec,) = [s for s in load(trained, backend="torch").specs if s.name == "price"]
    values = [r["value"] for r in priced(60, 1)[:-1]]
    assert spec.details["mean"] == pytest.approx(sum(values) / len(values))
    assert TaskSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    for stored in ({"mean": 1.0}, {"mean": 0, "deviation": 0}, {"mean": "x", "deviation": 1}):
        with pytest.raises(ModelError, match="price"):
            TaskSpec.from_json({"name": "price", "kind": "regression", "labels": [], **stored})


def test_its_export_predicts_the_same(trained: Path) -> None:
    texts = ["john lives in london", "where is mary ?"]
    expected = [value_of(p) for p in load(trained, backend="torch").predict(texts)]
    assert not export_model(trained, formats=["float32"], threads=1).refused
    found = [value_of(p) for p in load(trained, backend="onnx").predict(texts)]
    assert found == pytest.approx(expected, abs=0.1)


def test_discovery_computes_mean_and_deviation_and_refuses_other_values(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": "a", "value": v} for v in (1, 2.5, "4", None)]
    path = write_records(tmp_path / "train.jsonl", rows)
    found = discover_labels({"price": TASK}, [str(path)])["price"]
    assert isinstance(found, Numbers)
    assert (found.mean, found.deviation) == pytest.approx((2.5, 1.5**0.5))
    constant = write_records(tmp_path / "constant.jsonl", rows[:1])
    assert discover_labels({"price": TASK}, [str(constant)])["price"] == Numbers((), 1.0, 1.0)
    for value in ("many", True, [1], float("inf")):
        bad = write_records(tmp_path / "bad.jsonl", [{"text": "a", "value": value}])
        with pytest.raises(DataError, match=r"bad.jsonl:1: `value` is .*expected a number"):
            discover_labels({"price": TASK}, [str(bad)])


def test_missing_labels_do_not_change_the_loss() -> None:
    head = make_head(TASK, Numbers((), 10.0, 2.0), EncoderShape(4, 1))
    logits, targets = torch.tensor([[1.0], [5.0]]), torch.tensor([2.0, -100.0])
    assert head.loss(logits, targets).item() == 1.0
    assert head.loss(logits[1:], targets[1:]).item() == 0.0
    spec = head.spec("price")
    assert kind_of("regression").decode(spec, logits.numpy(), None, None).tolist() == [12.0, 20.0]
