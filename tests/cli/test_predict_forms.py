"""`predict`: formats of standard input and of the output."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from command_line import Give, Run
from manyheads.cli import main
from training_setup import run as train
from training_setup import write_records


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    tasks = {"intent": {"kind": "classification"}, "ner": {"kind": "tagging"}}
    return str(train(tmp_path_factory.mktemp("run"), tasks=tasks)[0].save_dir)


@pytest.mark.parametrize(
    ("format", "data"),
    [
        ("jsonl", b'{"text": "John eats"}\n{"tokens": ["Mary", "sleeps"]}\n'),
        ("json", b'[{"text": "John eats"}, {"text": "Mary sleeps"}]'),
        ("csv", b"id,text\n1,John eats\n2,Mary sleeps\n"),
        ("text", b"John eats\nMary sleeps\n"),
    ],
)
def test_the_format_of_standard_input_is_the_one_that_is_named(
    model: str, format: str, data: bytes, tmp_path: Path, stdin: Give
) -> None:
    stdin(data)
    output = tmp_path / "out.jsonl"
    options = ["--file", "-", "--input-format", format, "--output", str(output)]
    assert main(["predict", model, *options]) == 0
    found = [json.loads(line)["text"] for line in output.read_text().splitlines()]
    assert found == ["John eats", "Mary sleeps"]


@pytest.mark.parametrize(
    ("format", "message"),
    [("jsonl", "standard input:1: "), ("seq", "cannot be of the format"), ("x", "unknown format")],
)
def test_input_of_another_format_is_refused_with_its_place(
    model: str, format: str, message: str, stdin: Give, run: Run
) -> None:
    stdin(b"John eats\n")
    result = run("predict", model, "--file", "-", "--input-format", format)
    assert result.status == 2
    assert message in result.err


def predicted(model: str, output: Path, *options: str) -> str:
    texts = output.with_name("in.txt")
    texts.write_text("John lives in Paris\n\nwhere is Mary?\n")
    command = ["predict", model, "--file", str(texts), "--when-empty", "flag"]
    assert main([*command, "--output", str(output), *options]) == 0
    return output.read_text()


def test_the_ending_of_the_output_determines_its_form(model: str, tmp_path: Path) -> None:
    lines = predicted(model, tmp_path / "out.jsonl").splitlines()
    expected: list[Any] = [json.loads(line) for line in lines]
    rows = list(csv.DictReader(io.StringIO(predicted(model, tmp_path / "out.csv"))))
    assert [row["text"] for row in rows] == [one["text"] for one in expected]
    for row, one in zip(rows, expected, strict=True):
        assert row["intent"] == (one["intent"]["label"] or "")
        assert row["intent_score"] == ("" if one["intent"]["score"] is None
                                       else str(one["intent"]["score"]))  # fmt: skip
        assert json.loads(row["ner"]) == one["ner"]
    assert predicted(model, tmp_path / "out.txt").startswith("In words: ")
    # What is asked for comes first.
    assert predicted(model, tmp_path / "out.csv", "--format", "text").startswith("In words: ")


def test_a_table_has_the_same_columns_in_every_row(model: str, tmp_path: Path) -> None:
    rows = list(csv.reader(io.StringIO(predicted(model, tmp_path / "out.csv", "--embed"))))
    assert rows[0] == ["text", "intent", "intent_score", "ner", "embedding"]
    assert {len(row) for row in rows} == {5}
    assert rows[2][-1] == ""
    assert len(json.loads(rows[1][-1])) == 32


RECORDS = [
    {"id": 7, "text": "John lives in Paris", "ner": ["O", "O", "O", "O"], "more": {"a": 1}},
    {"id": 8, "text": "where is Mary?", "lang": "en"},
]


def written(model: str, folder: Path, ending: str, *options: str) -> Path:
    given = write_records(folder / "in.jsonl", RECORDS)
    output = folder / f"out.{ending}"
    command = ["predict", model, "--file", str(given), "--output", str(output)]
    assert main([*command, *options]) == 0
    return output


def test_lines_of_json_keep_the_other_fields(model: str, tmp_path: Path) -> None:
    text = written(model, tmp_path, "jsonl").read_text(encoding="utf-8")
    first, second = map(json.loads, text.splitlines())
    assert list(first) == ["text", "intent", "ner", "id", "input_ner", "more"]
    assert first["input_ner"] == RECORDS[0]["ner"]
    assert second["id"] == 8
    assert second["lang"] == "en"


def test_a_table_keeps_the_columns_of_all_records(model: str, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(written(model, tmp_path, "csv").read_text())))
    assert list(rows[0]) == [
        "text", "id", "ner", "more", "lang", "intent", "intent_score", "predicted_ner",
    ]  # fmt: skip
    assert [row["id"] for row in rows] == ["7", "8"]
    assert json.loads(rows[0]["more"]) == {"a": 1}
    assert (rows[0]["lang"], rows[1]["lang"]) == ("", "en")


def test_parquet_keeps_the_columns_with_their_types(model: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    table = parquet.read_table(written(model, tmp_path, "parquet", "--embed"))
    assert table.column_names == [
        "text", "id", "ner", "more", "lang", "intent", "predicted_ner", "empty", "embedding",
    ]  # fmt: skip
    rows = table.to_pylist()
    assert [row["id"] for row in rows] == [7, 8]
    assert rows[0]["intent"].keys() == {"label", "id", "score"}
    assert len(rows[1]["embedding"]) == 32


def test_parquet_goes_to_a_file_in_one_go(model: str, run: Run) -> None:
    result = run("predict", model, "John", "--format", "parquet")
    assert result.status == 2
    assert "cannot be written to standard output" in result.err


def test_a_stream_whose_records_differ_is_no_table(model: str, stdin: Give, run: Run) -> None:
    stdin(b'{"text": "John eats"}\n{"text": "Mary sleeps", "id": 2}\n')
    options = ["--file", "-", "--input-format", "jsonl", "--format", "csv"]
    result = run("predict", model, *options)
    assert result.status == 2
    assert "has the fields id, which the first record lacks" in result.err
