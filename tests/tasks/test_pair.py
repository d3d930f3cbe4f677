"""The kind `pair`: one class for two texts, both of which are read."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import pytest
import torch

from manyheads.api import evaluate, load
from manyheads.cli import main
from manyheads.config import TaskConfig
from manyheads.data.records import discover_labels, read_records
from manyheads.errors import DataError
from manyheads.exporting import export_model
from manyheads.inference import TextPair
from manyheads.modeling import EncoderShape, make_head
from manyheads.tasks import ClassResult, LabelSet, Pair, Prediction, decode
from training_setup import NAMES, PLACES, run, write_records

TASK = TaskConfig(kind="pair")


def duplicates(count: int, seed: int) -> list[dict[str, Any]]:
    """Pairs about the same place or about two; neither text alone determines the class."""
    draw = random.Random(seed)
    records: list[dict[str, Any]] = []
    for i in range(count):
        names, places = draw.sample(list(NAMES), 2), draw.sample(list(PLACES), 2)
        same = i % 2 == 0
        records.append(
            {
                "text": f"{names[0]} lives in {places[0]}",
                "text2": f"where is {names[1]} ? in {places[0] if same else places[1]}",
                "label": "same" if same else "other",
            }
        )
    return records


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_records(folder / "train.jsonl", duplicates(120, 1))
    write_records(folder / "valid.jsonl", duplicates(40, 2))
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    tasks = {"same": {"kind": "pair"}}
    result, _ = run(data, tasks=tasks, num_epochs=12, batch_size=8)
    assert result.best_score > 0.8
    return result.best


def class_of(prediction: Prediction) -> ClassResult:
    result = prediction.results["same"]
    assert isinstance(result, ClassResult)
    return result


def test_both_texts_are_read(trained: Path, data: Path) -> None:
    report = evaluate(trained, data / "valid.jsonl")
    assert report.evaluation["tasks"]["same"]["accuracy"] > 0.8
    pairs = [(r["text"], r["text2"]) for r in duplicates(40, 2)]
    predictor = load(trained, backend="torch")
    answers = {class_of(p).label for p in predictor.predict(pairs)}
    assert answers == {"same", "other"}
    (alone,) = predictor.predict([pairs[0]])
    assert class_of(alone) == class_of(predictor.predict(pairs)[0])
    assert alone.to_json()["text2"] == pairs[0][1]


def test_a_single_text_has_no_answer_and_an_empty_one_no_label(trained: Path) -> None:
    predictor = load(trained, backend="torch")
    single, tokens, empty = predictor.predict(["a text", ["a", "text"], TextPair("a", " ")])
    assert single.results == tokens.results == {}
    assert single.text2 is None
    assert class_of(empty) == ClassResult(None, None, None)
    (both,) = predictor.predict([TextPair("a", "b")], embed=True)
    assert both.embedding is not None
    assert both.embedding2 is not None
    assert set(both.to_json()) == {"text", "text2", "same", "embedding", "embedding2"}


def test_files_with_pairs_are_predicted(
    trained: Path, data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["predict", str(trained), "--file", str(data / "valid.jsonl"), "--format", "jsonl"]
    assert main(args) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    records = duplicates(40, 2)
    assert [line["text2"] for line in lines] == [record["text2"] for record in records]
    right = sum(x["same"]["label"] == r["label"] for x, r in zip(lines, records, strict=True))
    assert right > 30


@pytest.mark.parametrize("seconds", [("", "where is Mary ?"), ("where is Mary ?", "")])
def test_all_rows_of_a_table_have_the_columns_of_pairs(
    trained: Path, tmp_path: Path, seconds: tuple[str, str]
) -> None:
    given, output = tmp_path / "in.csv", tmp_path / "out.csv"
    rows = [f"{number},John eats,{second}\n" for number, second in enumerate(seconds)]
    given.write_text("".join(["id,text,text2\n", *rows]))
    assert main(["predict", str(trained), "--file", str(given), "--output", str(output)]) == 0
    with output.open(newline="") as file:
        header, *answers = csv.reader(file)
    assert header == ["text", "text2", "id", "same", "same_score"]
    for number, (second, row) in enumerate(zip(seconds, answers, strict=True)):
        assert row[:3] == ["John eats", second, str(number)]
        assert [bool(cell) for cell in row[3:]] == [bool(second)] * 2


def test_its_export_predicts_the_same(trained: Path) -> None:
    pairs = [(r["text"], r["text2"]) for r in duplicates(12, 3)]
    expected = [class_of(p) for p in load(trained, backend="torch").predict(pairs)]
    assert not export_model(trained, formats=["float32"], threads=1).refused
    found = [class_of(p) for p in load(trained, backend="onnx").predict(pairs)]
    assert [r.id for r in found] == [r.id for r in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_pairs_and_scored_pairs_of_one_file_keep_their_own_second_texts(tmp_path: Path) -> None:
    records = duplicates(24, 1)
    for i, record in enumerate(records):
        if i % 3:
            record["score"] = float(record["label"] == "same")
        if i % 3 == 1:
            del record["label"]
    write_records(tmp_path / "train.jsonl", records)
    write_records(tmp_path / "valid.jsonl", records)
    tasks = {"same": {"kind": "pair"}, "near": {"kind": "similarity"}}
    result, spy = run(tmp_path, tasks=tasks, schedule="joint", num_epochs=2)
    assert {task for task, _ in spy.losses} == {"same", "near"}
    found = evaluate(result.best, tmp_path / "valid.jsonl").evaluation["tasks"]
    assert set(found) == {"same", "near"}


def test_the_loss_takes_each_pairs_second_text_from_the_row_it_names() -> None:
    torch.manual_seed(0)
    head = make_head(TASK, LabelSet(("a", "b")), EncoderShape(4, 1)).eval()
    texts = torch.randn(5, 4)
    targets = torch.tensor([[1, 3], [-100, -100], [0, 4], [-100, -100], [-100, -100]])
    learned = head.learned()
    logits = texts[[0, 2]], texts[[3, 4]]
    scored = decode(head.spec("p"), torch.stack(logits, dim=1).numpy(), None, learned)
    probabilities = [s if i == t else 1 - s for i, s, t in zip(*scored, (1, 0), strict=True)]
    expected = -torch.tensor(probabilities).log().mean()
    torch.testing.assert_close(head.loss(texts, targets), expected.float())
    assert head.loss(texts, torch.full((5, 2), -100)).item() == 0.0


def test_a_label_needs_its_second_text(tmp_path: Path) -> None:
    path = write_records(tmp_path / "pairs.jsonl", [{"text": "a", "label": "x"}])
    for read in (
        lambda: discover_labels({"same": TASK}, [str(path)]),
        lambda: list(read_records(path, {"same": TASK}, {"same": LabelSet(("x",))})),
    ):
        with pytest.raises(DataError, match=r"pairs.jsonl:1: a label, but no `text2`"):
            read()
    path = write_records(path, [{"text": "a", "text2": "b", "label": "x"}])
    (record,) = read_records(path, {"same": TASK}, {"same": LabelSet(("x", "y"))})
    assert record.labels == {"same": Pair("b", "x")}
    with pytest.raises(DataError, match="`label` is 'x', which is not a label"):
        list(read_records(path, {"same": TASK}, {"same": LabelSet(("y", "z"))}))
