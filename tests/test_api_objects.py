"""Records in memory, models as objects, and the rest of the Python API."""

from __future__ import annotations

import copy
import json
import os
import pydoc
import random
import re
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
import transformers

import manyheads
from equal_runs import assert_same_run
from manyheads.api.arguments import named_texts
from manyheads.cli import COMMANDS
from manyheads.data.readers import in_memory, read_rows
from manyheads.errors import ConfigError, DataError, RequestError
from manyheads.evaluation import evaluate
from manyheads.inference import load_model
from manyheads.storage import read_manifest
from manyheads.tasks import Entity, TaggingResult
from manyheads.training import StepReport, train
from training_setup import (
    Spy,
    config,
    encoder_folder,
    run,
    sentences,
    settings,
    write_records,
)

RECORDS = [
    {"text": "will anna eat ?", "label": "question"},
    {"text": "anna lives in rome", "label": "statement"},
]
TEXTS = ["will john eat ?", "john lives in paris"]


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """The settings of a small run without files."""
    values = settings(folder, train_file="", valid_file="", **changes)
    return {k: v for k, v in values.items() if k not in ("train_file", "valid_file")}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> manyheads.TrainedModel:
    folder = tmp_path_factory.mktemp("model")
    return manyheads.train(
        sentences(40, 1), valid=sentences(8, 2), progress=False, **options(folder, num_epochs=3)
    )


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


def test_a_column_of_a_data_set_is_texts(model: manyheads.TrainedModel) -> None:
    column = datasets.Dataset.from_list([{"text": "is it good"}, {"text": "b"}])["text"]
    assert [p.text for p in model.predict(column)] == ["is it good", "b"]


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
    with pytest.raises(DataError, match="records:train record 2: 7 is not a record"):
        manyheads.train([RECORDS[0], 7], valid=RECORDS, progress=False, **options(tmp_path))
    with pytest.raises(DataError, match="records:train record 1: `text` has no value"):
        manyheads.train(pd.DataFrame([{"text": None, "label": "a"}]), progress=False)
    with pytest.raises(DataError, match="records:train record 1: neither `text` nor `tokens`"):
        manyheads.train([{"label": "a"}], valid=RECORDS, progress=False, **options(tmp_path))


def test_training_on_records_equals_training_on_their_files(
    tmp_path: Path, model: manyheads.TrainedModel
) -> None:
    train = write_records(tmp_path / "train.jsonl", sentences(40, 1))
    valid = write_records(tmp_path / "valid.jsonl", sentences(8, 2))
    run = options(tmp_path, num_epochs=3)
    other = manyheads.train(train, valid=valid, progress=False, **run)
    assert [e["loss"] for e in other.history] == [e["loss"] for e in model.history]


def otherwise_named(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Records whose labels and tags have names that say nothing."""
    names = {"label": "first", "ner": "second"}
    return [{names.get(key, key): value for key, value in one.items()} for one in records]


def test_a_layout_says_how_the_data_of_a_training_are_laid_out(
    tmp_path: Path, model: manyheads.TrainedModel
) -> None:
    layout = manyheads.Layout(names={"first": "label", "second": "ner"})
    other = manyheads.train(
        otherwise_named(sentences(40, 1)), valid=otherwise_named(sentences(8, 2)), layout=layout,
        progress=False, **options(tmp_path, num_epochs=3),
    )  # fmt: skip
    assert [e["loss"] for e in other.history] == [e["loss"] for e in model.history]
    file = write_records(tmp_path / "named.jsonl", otherwise_named(sentences(40, 1)))
    made = manyheads.init(file, out=tmp_path / "c.yaml", layout=layout)
    assert (made.map, list(made.tasks)) == (layout.names, ["classification", "ner"])
    assert "null" not in (tmp_path / "c.yaml").read_text()


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


def test_advice_is_worded_for_python(tmp_path: Path, model: manyheads.TrainedModel) -> None:
    run = options(tmp_path, save_dir=str(model.save_dir))
    with pytest.raises(RequestError, match="Continue that run with `resume=True`, replace it with"):
        manyheads.train(sentences(8, 1), valid=sentences(4, 2), progress=False, **run)
    with pytest.raises(DataError, match=r'Name the field: `layout=Layout\(names={NAME: "text"}\)`'):
        model.evaluate([{"body": "a"}])


def test_train_returns_a_model_that_predicts_embeds_and_scores(
    model: manyheads.TrainedModel,
) -> None:
    assert isinstance(model, manyheads.Model)
    first, _ = model.predict(TEXTS, embed=True)
    assert first["classification"].label in ("question", "statement")
    assert all(entity.label in ("PER", "LOC") for entity in first["ner"].entities)
    assert "ner" in first
    assert list(first) == ["classification", "ner"]
    assert first.to_dict()["classification"]["score"] == first["classification"].score
    assert first.to_dict()["ner"]["tokens"][0]["text"] == "will"
    vectors = model.encode(TEXTS)
    assert vectors.shape[0] == 2
    np.testing.assert_allclose(vectors[0], first.embedding, rtol=1e-5)
    report = model.evaluate(sentences(8, 3))
    assert report.evaluation["records"] == 8
    assert "8 records" in repr(report)
    assert "classification: accuracy" in repr(report)
    same = manyheads.evaluate(model, pd.DataFrame(sentences(8, 3)))
    assert same.evaluation["tasks"] == report.evaluation["tasks"]
    assert model.evaluate().evaluation["records"] == 8


def test_scoring_takes_a_layout_and_leaves_out_the_drift(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    records = [{"said": " ".join(one["tokens"]), "is": one["label"]} for one in sentences(8, 3)]
    path = tmp_path / "odd.csv"
    pd.DataFrame(records).to_csv(path, index=False)
    layout = manyheads.Layout(names={"said": "text", "is": "label"})
    plain = manyheads.evaluate(model, sentences(8, 3), tasks=["classification"])
    odd = manyheads.evaluate(model, path, layout=layout, threads=1, drift=False)
    assert odd.evaluation["tasks"] == plain.evaluation["tasks"]
    assert "cosine" in str(plain.to_json()["drift"])
    assert odd.to_json()["drift"] == {"unknown": "it was not asked for"}
    report = manyheads.report(model, path, layout=layout, threads=1, drift=False)
    scores = report.evaluation["tasks"]["classification"]
    assert scores["f1"] == plain.evaluation["tasks"]["classification"]["f1"]


def test_tasks_of_records_are_inferred_and_a_part_is_held_out(tmp_path: Path) -> None:
    frame = pd.DataFrame(sentences(40, 1, fields=("label",)))
    found = manyheads.train(frame, progress=False, **options(tmp_path, num_epochs=1))
    assert list(found.tasks) == ["classification"]
    assert 0 < found.evaluate().evaluation["records"] < 20
    again = manyheads.train(frame, resume=True, progress=False, **options(tmp_path, num_epochs=2))
    assert len(again.history) == 2
    # In any order: the run keeps its own.
    shuffled = frame.sample(frac=1, random_state=1)
    manyheads.train(shuffled, resume=True, progress=False, **options(tmp_path, num_epochs=2))
    tasks = {"classification": {"kind": "classification"}}
    for data, more in [
        (frame[1:], {}),
        (frame[1:], {"config": {"tasks": tasks}}),
        (write_records(tmp_path / "other.jsonl", sentences(40, 1, fields=("label",))), {}),
    ]:
        settings = options(tmp_path, num_epochs=3) | more
        with pytest.raises(
            RequestError, match=r"was started with other data than .*Leave them out"
        ):
            manyheads.train(data, resume=True, progress=False, **settings)


def test_probabilities_are_those_of_the_predictions(model: manyheads.TrainedModel) -> None:
    texts = [*TEXTS, ""]
    shares = model.predict_proba(texts)
    assert shares.shape == (3, 2)
    assert shares.dtype == np.float32
    np.testing.assert_allclose(shares[:2].sum(axis=1), 1, rtol=1e-6)
    assert np.isnan(shares[2]).all()
    for row, prediction in zip(shares[:2], model.predict(TEXTS), strict=True):
        assert row.argmax() == prediction["classification"].id
        assert row.max() == pytest.approx(prediction["classification"].score)
    assert (model.predict_proba(TEXTS, task="classification") == shares[:2]).all()
    with pytest.raises(RequestError, match="task 'ner' with a probability for each label"):
        model.predict_proba(TEXTS, task="ner")


def test_a_saved_model_is_the_same_and_one_trained_further_has_its_weights(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    copy = manyheads.load(model.save(tmp_path / "copy"), threads=1)
    assert (copy.predict_proba(TEXTS) == model.predict_proba(TEXTS)).all()
    assert isinstance(copy.module, torch.nn.Module)
    with torch.no_grad():
        for parameter in copy.module.head("classification").parameters():
            parameter.zero_()
    assert copy.predict_proba(TEXTS) == pytest.approx(np.full((2, 2), 0.5))
    changed = manyheads.load(copy.save(tmp_path / "changed"), threads=1)
    assert changed.predict_proba(TEXTS) == pytest.approx(np.full((2, 2), 0.5))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear", encoding="utf-8")
    with pytest.raises(RequestError, match="holds something other than a model"):
        model.save(tmp_path / "other")


def test_a_frame_keeps_its_columns_and_gets_those_of_the_tasks(
    model: manyheads.TrainedModel,
) -> None:
    frame = pd.DataFrame({"id": [7, 8, 9], "q": [*TEXTS, None], "ner": 1}, index=[3, 2, 1])
    found = model.predict(frame, text="q", embed=True)
    assert list(found.columns) == [
        "id", "q", "ner", "classification", "classification_score", "predicted_ner", "embedding",
    ]  # fmt: skip
    assert list(found.index) == [3, 2, 1]
    assert list(found["id"]) == [7, 8, 9]
    [first, _] = model.predict(TEXTS)
    assert found["classification"].iloc[0] == first["classification"].label
    assert found["predicted_ner"].iloc[0] == first["ner"].to_dict()["entities"]
    assert found["classification"].isna().tolist() == [False, False, True]
    assert list(frame.columns) == ["id", "q", "ner"]
    with pytest.raises(RequestError, match=r"no column 'text'; expected one of: id, q, ner"):
        model.predict(frame)


@pytest.mark.parametrize("form", ["dicts", "columns", "arrow", "dataset"])
def test_records_are_predicted_for_as_their_texts(form: str, model: manyheads.TrainedModel) -> None:
    records = [{"q": text, "label": "question"} for text in TEXTS]
    forms: dict[str, Any] = {
        "dicts": records,
        "columns": {"q": TEXTS, "label": ["question"] * len(TEXTS)},
        "arrow": pa.Table.from_pylist(records),
        "dataset": datasets.Dataset.from_list(records),
    }
    found = model.predict(forms[form], text="q")
    assert [one.text for one in found] == list(TEXTS)
    assert [one.results for one in found] == [one.results for one in model.predict(TEXTS)]
    with pytest.raises(
        RequestError, match=r"expected the path of a file\. For data in .* `predict`"
    ):
        model.predict_file(forms[form])
    with pytest.raises(DataError, match=r"records:texts record 1: neither `text` nor `tokens`"):
        model.predict([{"body": "where is anna ?"}])


def test_reprs_describe_the_objects(model: manyheads.TrainedModel) -> None:
    shown = repr(model)
    assert shown.startswith("TrainedModel(")
    for part in (
        "classification: classification (question, statement)",
        "ner: tagging (O, ",
        "encoder: ",
        "backend: torch",
        "trained: 3 epochs, best ",
    ):
        assert part in shown
    assert repr(manyheads.load(model.best)).startswith("Model(")
    [prediction] = model.predict(TEXTS[:1])
    label = prediction["classification"]
    assert repr(prediction).startswith(
        f"Prediction('will john eat ?'; classification: {label.label} {100 * label.score:.0f} %; "
    )
    with pytest.raises(RequestError, match=r"no task 'nre' \(did you mean \"ner\"\?\)"):
        prediction["nre"]


def test_callbacks_see_every_step_and_epoch_and_progress_is_shown_unless_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    steps: list[str] = []
    epochs: list[int] = []
    data: dict[str, Any] = {"valid": sentences(4, 2), "overwrite": True}
    spy = Spy()
    manyheads.train(
        sentences(8, 1), **data, **options(tmp_path, num_epochs=2), reporter=spy,
        on_step=lambda report: steps.append(report.task),
        on_epoch=lambda entry: epochs.append(entry["epoch"]),
    )  # fmt: skip
    assert epochs == [1, 2]
    assert steps == [task for task, _ in spy.losses]
    assert capsys.readouterr() == ("", "")
    manyheads.train(sentences(8, 1), **data, **options(tmp_path))
    shown = capsys.readouterr()
    assert "Epochs" in shown.out
    assert "Evaluating epoch 1" in shown.err
    manyheads.train(sentences(8, 1), **data, **options(tmp_path), progress=False)
    assert capsys.readouterr() == ("", "")


def test_a_failing_callback_ends_the_display(tmp_path: Path) -> None:
    def stop(report: object) -> None:
        raise KeyError("enough")

    spy = Spy()
    with pytest.raises(KeyError, match="enough"):
        manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), reporter=spy, on_step=stop, **options(tmp_path)
        )
    assert spy.ended


class _Failing(Spy):
    """A reporter that ends the run at its third step: it raises, or sets `failure`."""

    def __init__(self, raises: bool) -> None:
        super().__init__()
        self.raises = raises

    def step(self, report: StepReport) -> None:
        super().step(report)
        if len(self.turns) == 3:
            error = KeyError("enough")
            if self.raises:
                raise error
            self.failure = error


@pytest.mark.parametrize("raises", [True, False])
def test_a_run_that_a_reporter_of_ones_own_stops_is_saved(tmp_path: Path, raises: bool) -> None:
    reporter = _Failing(raises)
    with pytest.raises(KeyError, match="enough"):
        manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), reporter=reporter,
            **options(tmp_path, num_epochs=2),
        )  # fmt: skip
    assert reporter.said("Stopped after step 3 of")
    assert reporter.ended


def test_an_epoch_is_saved_before_its_callback_is_called(tmp_path: Path) -> None:
    run, seen = tmp_path / "saved", []

    def look(entry: Mapping[str, Any]) -> None:
        seen.append((run / f"mtl_epoch{entry['epoch']}.pt").exists())
        assert (read_manifest(run / "best").metrics == entry["metrics"]) is entry["best"]

    manyheads.train(
        sentences(8, 1), valid=sentences(4, 2), progress=False, on_epoch=look,
        **options(tmp_path, num_epochs=2),
    )  # fmt: skip
    assert seen == [True, True]


@pytest.mark.parametrize(("callback", "call"), [("on_step", 6), ("on_epoch", 1), ("on_epoch", 2)])
def test_a_run_that_a_callback_stops_is_saved_and_resumed(
    tmp_path: Path, callback: str, call: int
) -> None:
    data: dict[str, Any] = {"valid": sentences(4, 2), "progress": False}
    whole = tmp_path / "whole"
    whole.mkdir()
    manyheads.train(sentences(8, 1), **data, **options(whole, num_epochs=2))
    calls = []

    def stop(value: object) -> None:
        calls.append(value)
        if len(calls) == call:
            raise KeyboardInterrupt("enough")

    spy = Spy()
    with pytest.raises(KeyboardInterrupt, match="enough"):
        manyheads.train(
            sentences(8, 1),
            reporter=spy,
            **{callback: stop},
            **data,
            **options(tmp_path, num_epochs=2),
        )
    assert len(calls) == call
    ended = (callback, call) == ("on_epoch", 2)
    assert spy.said("Continue with `resume=True`") is not ended
    manyheads.train(sentences(8, 1), resume=True, **data, **options(tmp_path, num_epochs=2))
    assert_same_run(whole / "saved", tmp_path / "saved", epoch=2)


def test_a_reporter_that_is_not_one_is_refused_before_the_run_begins(tmp_path: Path) -> None:
    class Shows:
        def step(self, report: StepReport) -> None:
            raise AssertionError

    makers: dict[str, Any] = {"an object of Shows": Shows(), "the class Spy": Spy}
    for name, reporter in makers.items():
        with pytest.raises(RequestError, match=f"the reporter is {name}; expected an object of"):
            manyheads.train(RECORDS, reporter=reporter, **options(tmp_path))
        with pytest.raises(RequestError, match=f"the reporter is {name}; expected an object of"):
            train(config(tmp_path), reporter=reporter)
    assert not (tmp_path / "saved").exists()


def test_a_second_run_in_a_process_is_refused_and_one_in_a_callback_is_not(tmp_path: Path) -> None:
    data: dict[str, Any] = {"valid": sentences(4, 2), "progress": False}
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
    second = options(tmp_path / "second")

    def again(entry: object) -> None:
        with (
            ThreadPoolExecutor(1) as threads,
            pytest.raises(RequestError, match="another run is in progress in this process"),
        ):
            threads.submit(manyheads.train, sentences(8, 1), **data, **second).result()
        assert not (tmp_path / "second" / "saved").exists()
        manyheads.train(sentences(8, 1), **data, **second)

    manyheads.train(sentences(8, 1), on_epoch=again, **data, **options(tmp_path / "first"))
    weights = [tmp_path / name / "saved/best/model.safetensors" for name in ("first", "second")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_training_and_loading_leave_the_process_as_they_found_it(tmp_path: Path) -> None:
    def state() -> tuple[Any, ...]:
        bars = transformers.utils.logging.is_progress_bar_enabled()
        return torch.get_rng_state().tolist(), random.getstate(), torch.get_num_threads(), bars

    threads = torch.get_num_threads()
    transformers.utils.logging.enable_progress_bar()
    torch.set_num_threads(2)
    try:
        before = state()
        trained = manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), progress=False, **options(tmp_path)
        )
        assert state() == before
        assert manyheads.load(trained.best, threads=2).module is not None
        assert state() == before
    finally:
        torch.set_num_threads(threads)


def test_verbs_that_load_a_model_restore_the_threads(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    folder = tmp_path / "model"
    model.save(folder)
    records, one = sentences(60, 3), {"threads": 1}
    verbs = {
        "calibrate": lambda: manyheads.calibrate(folder, records, **one),
        "thresholds": lambda: manyheads.thresholds(folder, records, precision=0.5, **one),
        "evaluate": lambda: manyheads.evaluate(folder, records, drift=False, **one),
        "drift": lambda: manyheads.evaluate(folder, records, **one),
        "report": lambda: manyheads.report(folder, records, drift=False, **one),
        "predict": lambda: manyheads.predict(TEXTS, folder, **one),
        "select": lambda: manyheads.select(records, folder, count=2, progress=False, **one),
        "export": lambda: manyheads.export(
            folder, data=records, formats=["float32"], progress=False, **one
        ),
        "convert": lambda: manyheads.convert(
            records, tmp_path / "tasks.json", to="label-studio", model=folder
        ),
    }
    before = torch.get_num_threads()
    try:
        left = {}
        for name, verb in verbs.items():
            torch.set_num_threads(3)
            verb()
            left[name] = torch.get_num_threads()
        assert left == dict.fromkeys(verbs, 3)
        loaded = manyheads.load(folder, backend="torch", **one)
        assert torch.get_num_threads() == 1
        # A copy loads the model when it is first asked, and keeps it.
        torch.set_num_threads(3)
        copy.copy(loaded).report(records, drift=False)
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_what_a_callback_draws_from_pythons_generator_is_not_drawn_again(tmp_path: Path) -> None:
    state, own = random.getstate(), random.Random(1)
    drawn: list[float] = []
    try:
        random.seed(1)
        manyheads.train(
            sentences(8, 1), valid=sentences(4, 2), progress=False,
            on_epoch=lambda entry: drawn.append(random.random()), **options(tmp_path),
        )  # fmt: skip
        drawn.append(random.random())
    finally:
        random.setstate(state)
    assert len(drawn) > 1
    assert drawn == [own.random() for _ in drawn]


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


def test_the_package_shows_its_verbs() -> None:
    verbs = {command.replace("-", "_") for command in COMMANDS if command != "data"}
    verbs |= {"augment", "check", "convert", "load", "select", "suspects"}
    assert verbs <= set(dir(manyheads))
    shown = pydoc.plain(pydoc.render_doc(manyheads))
    for verb in verbs:
        assert f"\n    {verb} " in shown


def test_a_head_is_added_from_records(model: manyheads.TrainedModel, tmp_path: Path) -> None:
    def moods(seed: int) -> Iterator[dict[str, Any]]:
        for record in sentences(8, seed, fields=("label",)):
            yield {"tokens": record["tokens"], "mood": record["label"]}

    both = manyheads.add_head(
        model, "mood", kind="classification", task_settings={"field": "mood"},
        train_file=moods(1), valid_file=moods(2), save_dir=tmp_path / "both", progress=False,
        num_epochs=1, batch_size=4, threads=1,
    )  # fmt: skip
    assert list(both.tasks) == ["classification", "ner", "mood"]
    assert both.predict(TEXTS)[0]["ner"] == model.predict(TEXTS)[0]["ner"]


def test_validation_records_in_memory_are_read_while_they_are_named(
    model: manyheads.TrainedModel,
) -> None:
    loaded = load_model(model.path)
    with in_memory(sentences(8, 2), "valid") as name:
        named = loaded.config.model_copy(update={"files": None, "valid_file": name})
        scored = evaluate(replace(loaded, config=named), drift=False)
    assert scored.data == (name,)
    assert scored.evaluation["tasks"] == model.evaluate().evaluation["tasks"]


def test_a_model_is_described_and_asked_by_its_path(model: manyheads.TrainedModel) -> None:
    found = manyheads.info(model)
    assert found.kind == "model folder"
    assert [spec.name for spec in found.tasks] == ["classification", "ner"]
    assert "  classification: classification (question, statement)" in repr(found).splitlines()
    assert manyheads.predict(TEXTS, model)[0] == model.predict(TEXTS)[0]


def test_a_configuration_is_written_for_files(tmp_path: Path) -> None:
    data = write_records(tmp_path / "train.jsonl", sentences(40, 1))
    made = manyheads.init(data, out=tmp_path / "c.yaml", num_epochs=2)
    assert manyheads.load_config(tmp_path / "c.yaml").tasks == made.tasks
    assert made.num_epochs == 2
    with pytest.raises(RequestError, match="the file exists"):
        manyheads.init(data, out=tmp_path / "c.yaml")


def test_notebooks_show_models_predictions_and_scores_as_tables_with_escaped_text(
    model: manyheads.TrainedModel,
) -> None:
    shown = model._repr_html_()
    assert "<td" in shown
    assert "classification: question, statement" in shown
    (prediction,) = model.predict(["<b>john</b> & paris"])
    several = model.predict([f"text {i}" for i in range(25)])
    assert isinstance(several, list)
    assert several._repr_html_().count("<tr>") == 21
    assert "25 predictions (the first 20)" in several._repr_html_()
    shown = prediction._repr_html_()
    assert "<b>john" not in shown
    assert "&lt;b&gt;john" in shown
    found = TaggingResult((Entity("john", "PER", 3, 7, 0.9),), ())
    shown = replace(prediction, results={"ner": found})._repr_html_()
    assert "&lt;b&gt;<mark" in shown
    assert 'john <b dir="auto"><small>PER</small></b></mark>&lt;/b&gt; &amp; paris' in shown
    assert '<td dir="auto" style="text-align:start">accuracy</td>' in model.evaluate()._repr_html_()
    found = model.report([{"text": "<i>", "label": "question"}] * 3)
    assert repr(found).startswith(f"Report({os.fspath(model)!r}, 3 records, ")
    assert "\n  classification: accuracy " in repr(found)
    assert "classification: accuracy " in found._repr_html_()


def test_files_and_their_columns_are_predicted_for(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    frame = pd.DataFrame({"id": ["7", "8"], "text": TEXTS})
    frame.to_csv(tmp_path / "in.csv", index=False)
    expected = [one["classification"].label for one in model.predict(TEXTS)]
    for name, read in (("out.csv", pd.read_csv), ("out.parquet", pd.read_parquet)):
        path = tmp_path / name
        assert model.predict_file(tmp_path / "in.csv", path, progress=False) == 2
        found = read(path)
        assert list(found["id"].astype(str)) == ["7", "8"]
        answers = found["classification"]
        labels = [one if isinstance(one, str) else one["label"] for one in answers]
        assert labels == expected
    found = manyheads.predict(file=tmp_path / "in.csv", model=model.best, threads=1)
    assert [one.fields for one in found] == [{"id": "7"}, {"id": "8"}]
    with pytest.raises(RequestError, match="neither texts nor a file"):
        manyheads.predict(model=model)
    with pytest.raises(RequestError, match=r"format of the output is 'cvs' \(did you mean"):
        model.predict_file(tmp_path / "in.csv", path, format="cvs")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "out.jsonl", "resume": True}, "`output`, `resume` with texts in memory; expec"),
        ({"format": "jsonl"}, "`format` with texts in memory"),
        ({"layout": manyheads.Layout(format="csv")}, "`layout` with texts in memory"),
        ({"workers": 2}, '`workers` without `engine="ray"`. Add `engine="ray"`'),
        ({"ray_address": "here:1"}, '`ray_address` without `engine="ray"`'),
        ({"engine": "ray", "when_empty": "nope"}, "when_empty is 'nope'; expected one of: refuse"),
        ({"engine": "ray", "text": "body"}, '`text` with `engine="ray"`'),
        ({"text": "body"}, "`text` is 'body', and the texts have no fields"),
    ],
)
def test_options_of_prediction_without_effect_are_refused(
    model: manyheads.TrainedModel, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=re.escape(message)):
        manyheads.predict(TEXTS, model, **options)


def test_options_of_files_without_effect_are_refused(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    file = write_records(tmp_path / "in.jsonl", [{"text": text} for text in TEXTS])
    with pytest.raises(RequestError, match="`format`, `resume` without `output`; expected a file"):
        model.predict_file(file, resume=True, format="csv")
    with pytest.raises(RequestError, match=r'`top_k` with output as csv.*Use `format="jsonl"`'):
        model.predict_file(file, tmp_path / "out.csv", top_k=2)
    with pytest.raises(RequestError, match="when_empty is 'nope'; expected one of: refuse, flag"):
        model.predict_file(file, when_empty="nope")
    with pytest.raises(RequestError, match="`text` with a file; expected a DataFrame; `layout`"):
        manyheads.predict(model=model, file=file, text="body")
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_training_of_nothing_needs_a_configuration_in_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RequestError, match=r"there is no config\.yaml here"):
        manyheads.train(num_epochs=1)
    Path("config.yaml").write_text("train_file: nowhere.jsonl\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"nowhere\.jsonl"):
        manyheads.train(num_epochs=1)


def test_a_prompt_is_chosen_as_sentence_transformers_does(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    folder = Path(shutil.copytree(encoder_folder(), tmp_path / "encoder"))
    prompts = {"query": "who is ", "document": ""}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    result, _ = run(tmp_path, model_name=str(folder))
    theirs = SentenceTransformer(str(result.best), device="cpu")
    for source in (result.best, result.save_dir / "mtl_epoch1.pt"):
        own = manyheads.load(source)
        for options in ({}, {"prompt_name": "query"}, {"prompt": "the "}, {"prompt": ""}):
            expected = theirs.encode(TEXTS, **options)
            np.testing.assert_allclose(own.encode(TEXTS, **options), expected, atol=1e-5)
        assert not np.allclose(own.encode(TEXTS, prompt_name="query"), own.encode(TEXTS))
        with pytest.raises(RequestError, match=r"no prompt 'passage'; expected one of: query, doc"):
            own.encode(TEXTS, prompt_name="passage")
        with pytest.raises(RequestError, match=r"a prompt, 'a', and the name of one, 'query'; exp"):
            own.encode(TEXTS, prompt_name="query", prompt="a")


def test_predictions_and_files_have_the_embedding_behind_a_chosen_prompt(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    expected = model.encode(TEXTS, prompt="who is ")
    file, output = tmp_path / "texts.txt", tmp_path / "out.jsonl"
    file.write_text("".join(f"{text}\n" for text in TEXTS), encoding="utf-8")
    chosen: Any = {"embed": True, "prompt": "who is "}
    for found in (
        model.predict(TEXTS, **chosen),
        list(model.predict_stream(TEXTS, **chosen)),
        model.predict_file(file, progress=False, **chosen),
        manyheads.predict(TEXTS, model, **chosen),
    ):
        np.testing.assert_allclose([one.embedding for one in found], expected, atol=1e-5)
    model.predict_file(file, output, progress=False, **chosen)
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)
    with pytest.raises(RequestError, match="`prompt` without `embed=True`; expected the embedding"):
        model.predict(TEXTS, prompt="who is ")
    with pytest.raises(RequestError, match="expected a text of whole Unicode characters"):
        model.predict(TEXTS, embed=True, prompt="\ud800")


def test_a_stopped_run_is_only_continued_with_its_prompt(
    model: manyheads.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "texts.jsonl"
    file.write_text('{"text": "a"}\n', encoding="utf-8")
    runs = []

    def written(*_: Any, run: Mapping[str, Any], **__: Any) -> int:
        runs.append(run["options"])
        return 1

    monkeypatch.setattr("manyheads.api.prediction_job.write_predictions", written)
    for prompt in ("who is ", None):
        model.predict_file(file, tmp_path / "out.jsonl", embed=True, prompt=prompt, progress=False)
    assert runs[0] == {**runs[1], "prompt": "who is "}
    assert "prompt" not in runs[1]


def test_an_embedding_of_nothing_has_the_size_of_any(model: manyheads.TrainedModel) -> None:
    assert model.encode([]).shape == (0, model.encode(TEXTS).shape[1])


def test_records_in_memory_are_converted(tmp_path: Path) -> None:
    assert manyheads.convert(RECORDS, tmp_path / "out.json", to="label-studio") == len(RECORDS)
    tasks = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    assert [task["data"]["text"] for task in tasks] == [one["text"] for one in RECORDS]


def test_a_string_or_nothing_in_place_of_a_list_of_names_is_refused(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    records: Any = sentences(8, 2)
    one: Any = "ner"
    message = "(tasks|slices|formats) are 'ner'; expected a list"
    for call in (
        lambda: model.evaluate(records, tasks=one),
        lambda: model.predict(TEXTS, tasks=one),
        lambda: model.predict_file(tmp_path / "texts.txt", tasks=one),
        lambda: model.report(records, tasks=one),
        lambda: model.report(records, slices=one),
        lambda: manyheads.thresholds(model, records, tasks=one),
        lambda: manyheads.export(model, formats=one, data=records),
    ):
        with pytest.raises(RequestError, match=message):
            call()
    with pytest.raises(RequestError, match="no format is asked for"):
        manyheads.export(model, formats=[], data=records)
    with pytest.raises(RequestError, match="no task is named; expected some of: classification"):
        model.evaluate(records, tasks=[])


def test_no_model_and_repeated_columns_are_refused(model: manyheads.TrainedModel) -> None:
    nothing: Any = None
    with pytest.raises(RequestError, match="the model is None; expected the path of a model"):
        manyheads.load(nothing)
    frame = pd.DataFrame([[*TEXTS]], columns=["text", "text"])
    with pytest.raises(RequestError, match="the DataFrame has 2 columns 'text'; expected one"):
        model.predict(frame)
