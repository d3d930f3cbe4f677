"""`predict`: formats of standard input and of the output."""

from __future__ import annotations

import csv
import io
import json
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyheads
from command_line import Give, Run
from files import read
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


@pytest.mark.parametrize("ending", ["parquet", "pq"])
def test_both_endings_of_parquet_are_written_as_such(
    model: str, tmp_path: Path, ending: str
) -> None:
    rows = list(read(written(model, tmp_path, ending)))
    assert [row["text"] for row in rows] == [record["text"] for record in RECORDS]


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


def written(
    model: str, folder: Path, ending: str, *options: str, records: list[Any] = RECORDS
) -> Path:
    given = write_records(folder / "in.jsonl", records)
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


@pytest.mark.parametrize("names", [["ner", "input_ner"], ["input_ner", "ner"]])
def test_a_field_of_a_tasks_name_takes_no_other_fields_place(
    model: str, tmp_path: Path, run: Run, names: list[str]
) -> None:
    records = [{"text": "John", **{name: f"my {name}" for name in names}}]
    [row] = read(written(model, tmp_path, "jsonl", records=records))
    assert (row["input_ner"], row["input_input_ner"]) == ("my input_ner", "my ner")
    records = [{"text": "John", "ner": "a", "predicted_ner": "b"}]
    given = write_records(tmp_path / "in.jsonl", records)
    result = run("predict", model, "--file", str(given), "--output", str(tmp_path / "out.csv"))
    assert result.status == 2
    assert "the input has the columns 'ner' and 'predicted_ner' already" in result.err


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


@pytest.mark.parametrize("ending", ["jsonl", "csv"])
@pytest.mark.parametrize("name", ["x.csv", "-"])
def test_columns_without_a_name_are_not_kept_and_named_once(
    model: str, tmp_path: Path, stdin: Give, run: Run, name: str, ending: str
) -> None:
    content = b",text,id,\n0,John eats,7,x\n1,Mary sleeps,8,y\n"
    file = name if name == "-" else str(tmp_path / name)
    if name == "-":
        stdin(content)
    else:
        Path(file).write_bytes(content)
    output = tmp_path / f"out.{ending}"
    options = ["--input-format", "csv", "--output", str(output)]
    result = run("predict", model, "--file", file, *options)
    assert result.status == 0
    assert [str(row["id"]) for row in read(output)] == ["7", "8"]
    place = "standard input" if name == "-" else file
    assert result.err.count(f"{place}: not read: columns without a name in the header (2)") == 1


class KnownScope:
    """A scope to which every text belongs alike."""

    task = "intent"

    def probabilities(self, embeddings: Any, logits: Any) -> Any:
        return np.full(len(logits), 0.12345678)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_a_table_has_the_scope_of_a_model_that_has_one(
    model: str, tmp_path: Path, ending: str
) -> None:
    pandas = pytest.importorskip("pandas")
    if ending == "parquet":
        pytest.importorskip("pyarrow")
    loaded = manyheads.load(model, threads=1)
    loaded.predictor.scope = KnownScope()  # type: ignore[assignment]
    records = [{"text": "\u200b", "in_scope": "mine"}, {"text": "John eats", "in_scope": "too"}]
    given = write_records(tmp_path / "in.jsonl", records)
    output = tmp_path / f"out.{ending}"
    loaded.predict_file(given, output)
    read_table = pandas.read_csv if ending == "csv" else pandas.read_parquet
    table = read_table(output)
    assert list(table["in_scope"]) == ["mine", "too"]
    assert table["predicted_in_scope"].isna().tolist() == [True, False]
    assert table["predicted_in_scope"][1] == pytest.approx(0.12345678, abs=1e-5)
    answers = ["intent"] if ending == "parquet" else ["intent", "intent_score"]
    names = ["text", "in_scope", *answers, "ner", "predicted_in_scope"]
    assert list(table.columns) == [*names, *(["empty"] if ending == "parquet" else [])]
    frame = loaded.predict(pandas.DataFrame({"text": ["John eats"]}))
    assert list(frame["in_scope"]) == [0.12345678]
    # Without the tasks there is none.
    output = tmp_path / f"other.{ending}"
    loaded.predict_file(given, output, tasks=[])
    assert not any("predicted" in name for name in read_table(output).columns)


def test_parquet_goes_to_a_file_in_one_go(model: str, run: Run) -> None:
    result = run("predict", model, "John", "--format", "parquet")
    assert result.status == 2
    assert "cannot be written to standard output" in result.err


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_a_stream_whose_records_differ_is_no_table(
    model: str, stdin: Give, run: Run, tmp_path: Path, format: str
) -> None:
    stdin(b'{"text": "John eats"}\n{"text": "Mary sleeps", "id": 2}\n')
    output = tmp_path / f"out.{format}"
    options = ["--file", "-", "--input-format", "jsonl", "--output", str(output)]
    result = run("predict", model, *options)
    assert result.status == 2
    message = "standard input:2: the record has the fields id, which the first record lacks"
    assert message in result.err
    assert not output.exists()


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("1", '"a"', "`id` is 'a'; expected a whole number of 64 bits"),
        ("1", str(2**64 - 1), f"`id` is {2**64 - 1}; expected a whole number of 64 bits"),
        ("1", "1.5", "`id` is 1.5; expected a whole number"),
        ("1.5", str(2**53 + 1), f"`id` is {2**53 + 1}; expected a number"),
        ("true", "1", "`id` is 1; expected true or false"),
    ],
)
def test_a_stream_whose_values_do_not_fit_the_first_record_is_no_parquet(
    model: str, stdin: Give, run: Run, tmp_path: Path, first: str, second: str, expected: str
) -> None:
    pytest.importorskip("pyarrow")
    stdin(f'{{"text": "John", "id": {first}}}\n{{"text": "Mary", "id": {second}}}\n'.encode())
    options = ["--file", "-", "--input-format", "jsonl", "--output", str(tmp_path / "out.parquet")]
    result = run("predict", model, *options)
    assert result.status == 2
    assert f"standard input:2: {expected}" in result.err
    assert "--format jsonl" in result.err


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ([7, None, 2**63 - 1], [7, None, 2**63 - 1]),
        ([7, 2**64 - 1], ["7", str(2**64 - 1)]),
        ([1, "a", [2]], ["1", "a", "[2]"]),
        ([1, 2.5], [1.0, 2.5]),
        ([2**53 + 1, 2.5], [str(2**53 + 1), "2.5"]),
        ([True, False], [True, False]),
        ([True, 1], ["true", "1"]),
        ([["\ud800"]], ['["\\ud800"]']),
    ],
)
def test_a_column_of_parquet_holds_all_values_without_loss(
    model: str, tmp_path: Path, given: list[Any], kept: list[Any]
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    records = [{"text": "John eats", "id": value} for value in given]
    table = parquet.read_table(written(model, tmp_path, "parquet", records=records))
    assert table.column("id").to_pylist() == kept


def test_dates_and_decimal_numbers_are_kept_in_every_form(model: str, tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"text": ["John"], "day": [date(2024, 1, 2)], "price": [Decimal("3.50")]}
    given = tmp_path / "in.parquet"
    parquet.write_table(arrow.table(columns), given)
    kept = {}
    for ending in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        assert main(["predict", model, "--file", str(given), "--output", str(output)]) == 0
        [row] = read(output)
        kept[ending] = (row["day"], row["price"])
    assert kept == {
        "jsonl": ("2024-01-02", 3.5), "csv": ("2024-01-02", "3.5"), "parquet": ("2024-01-02", 3.5)
    }  # fmt: skip


def test_lines_of_json_keep_half_a_character_and_tables_refuse_it(
    model: str, tmp_path: Path, run: Run
) -> None:
    records = [{"text": "John"}, {"text": "Mary", "note": "half \ud800"}]
    [_, second] = read(written(model, tmp_path, "jsonl", records=records))
    assert second["note"] == "half \ud800"
    for ending in ("csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        result = run(
            "predict", model, "--file", str(tmp_path / "in.jsonl"), "--output", str(output)
        )
        assert result.status == 2
        assert "in.jsonl:2: the field 'note' has half a character" in result.err
        assert sorted(path.name for path in tmp_path.iterdir()) == ["in.jsonl", "out.jsonl"]


def test_a_field_that_json_lacks_is_refused_by_record_and_nothing_is_left(
    model: str, tmp_path: Path, run: Run
) -> None:
    arrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    given = tmp_path / "in.parquet"
    parquet.write_table(arrow.table({"text": ["John"], "scan": [b"\0"]}), given)
    for ending in ("jsonl", "csv", "parquet"):
        output = tmp_path / f"out.{ending}"
        result = run("predict", model, "--file", str(given), "--output", str(output))
        assert result.status == 2
        assert "in.parquet row 1: `scan` cannot be written as JSON" in result.err
        assert list(tmp_path.iterdir()) == [given]
