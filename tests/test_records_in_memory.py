"""Data in memory: records, pairs, columns, frames and data sets in place of files."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from enum import Enum, IntEnum
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import manyheads
from manyheads.api.arguments import named_texts
from manyheads.data.readers import in_memory, read_rows
from manyheads.errors import ConfigError, DataError, RequestError
from training_setup import sentences, settings, without_files, write_records

RECORDS = [
    {"text": "will anna eat ?", "label": "question"},
    {"text": "anna lives in rome", "label": "statement"},
]


@pytest.mark.parametrize(
    "form", ["dicts", "pairs", "columns", "series", "generator", "frame", "arrow", "dataset"]
)
def test_records_in_memory_are_read_like_those_of_a_file(form: str, tmp_path: Path) -> None:
    frame = pd.DataFrame(RECORDS)
    forms: dict[str, Any] = {
        "dicts": RECORDS,
        "pairs": [(record["text"], record["label"]) for record in RECORDS],
        "columns": {key: [record[key] for record in RECORDS] for key in ("text", "label")},
        "series": {"text": frame["text"], "label": frame["label"].to_numpy()},
        "generator": (record for record in RECORDS),
        "frame": frame,
        "arrow": pa.Table.from_pylist(RECORDS),
        "dataset": datasets.Dataset.from_list(RECORDS),
    }
    with in_memory(forms[form], "train") as name:
        for _ in range(2):
            rows = list(read_rows(name))
            assert [dict(row.fields) for row in rows] == RECORDS
            assert [row.where for row in rows] == [f"records:train record {n}" for n in (1, 2)]
    with pytest.raises(DataError, match="the records were in memory and no longer exist"):
        list(read_rows(name))


def in_rows(records: Any) -> list[dict[str, Any]]:
    with in_memory(records, "train") as name:
        return [dict(row.fields) for row in read_rows(name)]


def test_pairs_with_annotations_are_read_as_spacy_has_them() -> None:
    span = {"start": 0, "end": 4, "label": "PERSON"}
    anna = ("Anna eats", {"entities": [(0, 4, "PERSON")], "cats": {"a": 1.0, "b": 0.0}})
    assert in_rows([anna, ("hello", {"entities": []})]) == [
        {"text": "Anna eats", "entities": [span], "label": "a"}, {"text": "hello", "entities": []}
    ]  # fmt: skip
    several = ("both", {"cats": {"a": 1.0, "b": 0.5}})
    assert [row["labels"] for row in in_rows([several, ("none", {"cats": {"a": 0.1}})])] == [
        ["a", "b"], []
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"record 2: an entity is \[0, 4\]; expected a list such"):
        in_rows([anna, ("Anna", {"entities": [(0, 4)]})])
    assert in_rows([("Anna", {"text": "other", "entities": []})])[0]["text"] == "Anna"


def test_pairs_have_labels_of_every_kind() -> None:
    texts, labels = np.array(["a", "b"]), np.array([1, 0])
    assert in_rows(list(zip(texts, labels, strict=True))) == [
        {"text": "a", "label": 1}, {"text": "b", "label": 0}
    ]  # fmt: skip
    assert in_rows([("a", None), ("b", "x")])[0] == {"text": "a", "label": None}
    assert in_rows([("a", ["x", "y"])]) == [{"text": "a", "labels": ["x", "y"]}]


def test_pairs_of_texts_without_labels_stay_pairs() -> None:
    with ExitStack() as named:
        name = named_texts([("a", "b"), ("c", "d")], "pool", named)
        assert [dict(row.fields) for row in read_rows(name)] == [
            {"text": "a", "text2": "b"}, {"text": "c", "text2": "d"}
        ]  # fmt: skip


def test_columns_may_hold_dicts_and_have_the_names_of_settings() -> None:
    columns = {"text": ["a", "b"], "device": ["x", "y"], "meta": [{"n": 1}, {"n": 2}]}
    assert in_rows(columns)[1] == {"text": "b", "device": "y", "meta": {"n": 2}}
    with pytest.raises(RequestError, match="the records are of the type dict"):
        in_rows({"text": ["a"], "label": np.int64(1)})


def test_columns_of_several_lengths_and_splits_are_refused() -> None:
    with pytest.raises(RequestError, match=r"have 2 values \(text\), 1 value \(label\)"):
        manyheads.train({"text": ["a", "b"], "label": ["x"]})
    for records in (RECORDS, pd.DataFrame(RECORDS), [("a", "x")]):
        with pytest.raises(RequestError, match=r"dict.*Choose a split, such as data\['train'\]"):
            manyheads.train({"train": records, "test": records})


def test_columns_of_one_name_are_refused() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    twice = pd.concat([frame, frame[["label"]]], axis=1)
    for records in (twice, pa.Table.from_arrays([["a"], ["x"], ["y"]], ["text", "label", "label"])):
        with pytest.raises(RequestError, match=r"2 columns 'label'; .* Rename or leave out"):
            manyheads.check(records)


@pytest.mark.parametrize("form", ["pandas", "arrow", "numpy"])
def test_a_data_set_is_read_whatever_form_its_rows_have(form: str) -> None:
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": ["x", "y"], "other": [1, 2]})
    formatted = data.with_format(form, columns=["text", "label"])
    with in_memory(formatted, "train") as name:
        assert [row.fields for row in read_rows(name)] == [
            {"text": "a", "label": "x"}, {"text": "b", "label": "y"},
        ]  # fmt: skip


def test_a_data_set_keeps_its_transform_and_all_columns_that_it_shows() -> None:
    data = datasets.Dataset.from_dict({"raw": ["a", "b"], "label": [1, 0]})
    made = data.with_transform(
        lambda rows: {"text": rows["raw"], "label": ["x"] * len(rows["raw"])}
    )
    shown = data.rename_column("raw", "text").with_format(
        "numpy", columns=["label"], output_all_columns=True
    )
    for given, expected in (
        (made, {"text": "a", "label": "x"}),
        (shown, {"text": "a", "label": 1}),
    ):
        with in_memory(given, "train") as name:
            assert next(iter(read_rows(name))).fields == expected


def test_a_reader_of_arrow_batches_is_read() -> None:
    table = pa.table({"text": ["a", "b"], "label": ["x", "y"]})
    with in_memory(table.to_reader(max_chunksize=1), "train") as name:
        assert [row.fields["label"] for row in read_rows(name)] == ["x", "y"]


def test_members_of_enumerations_are_their_values() -> None:
    class Animal(str, Enum):
        CAT = "cat"

    class Level(IntEnum):
        LOW = 3

    with in_memory([{"text": "a", "label": Animal.CAT, "level": Level.LOW}], "train") as name:
        [row] = read_rows(name)
    assert row.fields == {"text": "a", "label": "cat", "level": 3}
    assert (type(row.fields["label"]), type(row.fields["level"])) == (str, int)


@pytest.mark.parametrize("form", [np.array, pd.Series, iter])
def test_texts_are_strings_in_any_sequence(form: Any) -> None:
    with ExitStack() as named:
        name = named_texts(form(["a", "b"]), "pool", named)
        assert [row.fields for row in read_rows(name)] == [{"text": "a"}, {"text": "b"}]


def test_a_mapping_of_settings_is_not_taken_for_columns() -> None:
    with pytest.raises(ConfigError, match=r"unknown key `fies` \(did you mean"):
        manyheads.train({"fies": ["a.csv"]})
    with pytest.raises(ConfigError, match="unknown key `vali_files`"):
        manyheads.train({"fies": ["a.csv"], "vali_files": ["b.csv"]})
    with pytest.raises(ConfigError, match="`tasks`"):
        manyheads.train({"files": ["a.csv"], "tasks": [{"kind": "classification"}]})
    with pytest.raises(DataError, match=r"a\.csv: there is no such file"):
        manyheads.train({"files": ["a.csv"]})


def test_values_of_numpy_and_missing_ones_are_plain() -> None:
    frame = pd.DataFrame({"text": ["a b", "c"], "label": ["x", None], "n": [1.5, float("nan")]})
    frame["tags"] = [np.array(["O", "O"]), np.array(["O"])]
    with in_memory(frame, "train") as name:
        first, second = [row.fields for row in read_rows(name)]
    assert first == {"text": "a b", "label": "x", "n": 1.5, "tags": ["O", "O"]}
    assert second == {"text": "c", "label": None, "n": None, "tags": ["O"]}
    with in_memory([{"label": np.int64(3), "deep": [{"x": np.float32(0.5)}]}], "train") as name:
        [row] = read_rows(name)
    assert row.fields == {"label": 3, "deep": [{"x": 0.5}]}
    assert type(row.fields["label"]) is int


def test_class_names_of_a_data_set_replace_its_indices() -> None:
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    data = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features)
    for form in (data, data.data.table):
        with in_memory(form, "train") as name:
            assert [row.fields["label"] for row in read_rows(name)] == ["yes", "no"]


def test_other_objects_than_records_are_refused(tmp_path: Path) -> None:
    splits = datasets.DatasetDict(a=datasets.Dataset.from_list(RECORDS))
    with pytest.raises(RequestError, match=r"the type DatasetDict.*such as data\['train'\]"):
        manyheads.train(splits)
    with pytest.raises(RequestError, match="record 1 is of the type int; expected a dict, or a pa"):
        manyheads.train([7, RECORDS[0]])
    with pytest.raises(RequestError, match="record 1 is of the type int"):
        manyheads.train(RECORDS, valid=[7], progress=False, **without_files(tmp_path))
    with pytest.raises(
        RequestError, match=r"a list of strings, such as 'put on jazz', and.* pairs"
    ):
        manyheads.train(["put on jazz", "turn it off."])
    with pytest.raises(DataError, match=r"missing\.jsonl: there is no such file"):
        manyheads.train([str(tmp_path / "missing.jsonl"), "other.jsonl"])
    with pytest.raises(DataError, match="records:train record 2: 7 is not a record"):
        manyheads.train([RECORDS[0], 7], valid=RECORDS, progress=False, **without_files(tmp_path))
    with pytest.raises(DataError, match="records:train record 1: `text` has no value"):
        manyheads.train(pd.DataFrame([{"text": None, "label": "a"}]), progress=False)
    with pytest.raises(DataError, match="records:train record 1: neither `text` nor `tokens`"):
        manyheads.train([{"label": "a"}], valid=RECORDS, progress=False, **without_files(tmp_path))


def test_a_layout_replaces_that_of_a_configuration_or_a_teacher(tmp_path: Path) -> None:
    def renamed(count: int, seed: int, text: str, label: str) -> str:
        rows = [{text: " ".join(r["tokens"]), label: r["label"]} for r in sentences(count, seed)]
        return str(write_records(tmp_path / f"{text}{seed}.jsonl", rows))

    files = {
        f"{key}_file": renamed(20, seed, "said", "is") for key, seed in (("train", 1), ("valid", 2))
    }
    tasks = {"classification": {"kind": "classification"}}
    first = settings(tmp_path, tasks=tasks, text_field="said", map={"is": "label"}, **files)
    teacher = manyheads.train(config=first, progress=False)

    others = {
        "train_file": renamed(20, 3, "phrase", "sort"),
        "valid_file": renamed(9, 4, "phrase", "sort"),
    }
    layout = manyheads.Layout(names={"phrase": "text", "sort": "label"})
    student = manyheads.distill(
        teacher.best, layout=layout, save_dir=tmp_path / "student", progress=False, **others
    )
    assert (student.config.text_field, student.config.map) == (None, layout.names)
    again = manyheads.train(
        config=first, layout=layout, progress=False, save_dir=tmp_path / "again", **others
    )
    assert again.config.map == layout.names


def test_a_layout_beside_settings_that_say_the_same_is_refused(tmp_path: Path) -> None:
    layout = manyheads.Layout(names={"column": "ner"})
    with pytest.raises(ConfigError, match="`layout` is given beside `text_field`, `map`"):
        manyheads.train(RECORDS, layout=layout, text_field="a", map={"b": "ner"})
    several = replace(layout, own={"a.csv": manyheads.Layout()})
    with pytest.raises(ConfigError, match="layouts of single files"):
        manyheads.compare(RECORDS, layout=several)


def test_tasks_of_records_are_inferred_and_a_part_is_held_out(tmp_path: Path) -> None:
    frame = pd.DataFrame(sentences(40, 1, fields=("label",)))
    found = manyheads.train(frame, progress=False, **without_files(tmp_path, num_epochs=1))
    assert list(found.tasks) == ["classification"]
    assert 0 < found.evaluate().evaluation["records"] < 20
    again = manyheads.train(
        frame, resume=True, progress=False, **without_files(tmp_path, num_epochs=2)
    )
    assert len(again.history) == 2
    # In any order: the run keeps its own.
    shuffled = frame.sample(frac=1, random_state=1)
    manyheads.train(shuffled, resume=True, progress=False, **without_files(tmp_path, num_epochs=2))
    tasks = {"classification": {"kind": "classification"}}
    for data, more in [
        (frame[1:], {}),
        (frame[1:], {"config": {"tasks": tasks}}),
        (write_records(tmp_path / "other.jsonl", sentences(40, 1, fields=("label",))), {}),
    ]:
        settings = without_files(tmp_path, num_epochs=3) | more
        with pytest.raises(
            RequestError, match=r"was started with other data than .*Leave them out"
        ):
            manyheads.train(data, resume=True, progress=False, **settings)


def test_the_data_check_takes_records_and_reports_its_findings() -> None:
    report = manyheads.check(RECORDS, [RECORDS[0]])
    assert not report.ok
    shown = repr(report)
    assert "records:data 1: 2 records; classification: 2 labelled" in shown
    assert "error: records:data 2 record 1: the same text as records:data 1 record 1" in shown
    tasks = {"mood": {"kind": "classification", "field": "label"}}
    assert manyheads.check(RECORDS, tasks=tasks).files[0].tasks["mood"].labelled == 2
    with pytest.raises(RequestError, match="no data is named"):
        manyheads.check()


def test_records_in_memory_are_converted(tmp_path: Path) -> None:
    assert manyheads.convert(RECORDS, tmp_path / "out.json", to="label-studio") == len(RECORDS)
    tasks = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [task["data"]["text"] for task in tasks] == [one["text"] for one in RECORDS]
