"""Models as objects of the Python API: predictions, scores, tables and what is refused."""

from __future__ import annotations

import copy
import json
import os
import pydoc
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

import manyheads
from manyheads.cli import COMMANDS
from manyheads.data.readers import in_memory
from manyheads.errors import DataError, RequestError
from manyheads.evaluation import evaluate
from manyheads.inference import load_model
from manyheads.storage import StorageError
from manyheads.tasks import Entity, TaggingResult
from training_setup import encoder_folder, run, sentences, without_files, write_records

TEXTS = ["will john eat ?", "john lives in paris"]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> manyheads.TrainedModel:
    folder = tmp_path_factory.mktemp("model")
    return manyheads.train(
        sentences(40, 1),
        valid=sentences(8, 2),
        progress=False,
        **without_files(folder, num_epochs=3),
    )


def test_a_column_of_a_data_set_is_texts(model: manyheads.TrainedModel) -> None:
    column = datasets.Dataset.from_list([{"text": "is it good"}, {"text": "b"}])["text"]
    assert [p.text for p in model.predict(column)] == ["is it good", "b"]


def test_listed_labels_keep_their_order(tmp_path: Path) -> None:
    classes = ["statement", "question"]
    task = {"kind": "classification", "field": "label", "labels": classes}
    found = manyheads.train(
        sentences(40, 1), tasks={"intent": task}, progress=False,
        **without_files(tmp_path, num_epochs=3),
    )  # fmt: skip
    assert found.tasks["intent"].labels == tuple(classes)
    given = sentences(8, 2)
    texts = [" ".join(record["tokens"]) for record in given]
    best = found.predict_proba(texts).argmax(1)
    assert [classes[i] for i in best] == [record["label"] for record in given]


def test_training_on_records_equals_training_on_their_files(
    tmp_path: Path, model: manyheads.TrainedModel
) -> None:
    train = write_records(tmp_path / "train.jsonl", sentences(40, 1))
    valid = write_records(tmp_path / "valid.jsonl", sentences(8, 2))
    run = without_files(tmp_path, num_epochs=3)
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
        progress=False, **without_files(tmp_path, num_epochs=3),
    )  # fmt: skip
    assert [e["loss"] for e in other.history] == [e["loss"] for e in model.history]
    file = write_records(tmp_path / "named.jsonl", otherwise_named(sentences(40, 1)))
    made = manyheads.init(file, out=tmp_path / "c.yaml", layout=layout)
    assert (made.map, list(made.tasks)) == (layout.names, ["classification", "ner"])
    assert "null" not in (tmp_path / "c.yaml").read_text()


def test_advice_is_worded_for_python(tmp_path: Path, model: manyheads.TrainedModel) -> None:
    run = without_files(tmp_path, save_dir=str(model.save_dir))
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
    with pytest.raises(RequestError, match="task 'ner' has no probability for each label"):
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


def test_a_copy_of_a_model_has_no_temporary_files_and_is_not_within_it(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    first = manyheads.load(model.save(tmp_path / "first"), threads=1)
    (tmp_path / "first/.model.safetensors.0123abcd.manyheads-tmp").write_bytes(b"a part")
    (tmp_path / "first/notes.txt").write_text("mine", encoding="utf-8")
    copied = {path.name for path in first.save(tmp_path / "second").iterdir()}
    assert copied == {path.name for path in model.best.iterdir()} | {"notes.txt"}
    with pytest.raises(RequestError, match=r"first/copy: is within the folder of the model"):
        first.save(tmp_path / "first/copy")
    (tmp_path / "first/link.txt").symlink_to("nowhere")
    with pytest.raises(StorageError, match=r"first/link\.txt: cannot be copied: there is no such"):
        first.save(tmp_path / "third")
    assert not (tmp_path / "third").exists()


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


def test_an_empty_frame_gets_the_columns_of_the_tasks(model: manyheads.TrainedModel) -> None:
    asked: dict[str, Any] = {"embed": True, "top_k": 2}
    some = model.predict(pd.DataFrame({"text": TEXTS}), **asked)
    none = model.predict(pd.DataFrame({"text": []}), **asked)
    assert list(none.columns) == list(some.columns)
    assert len(none) == 0


def test_a_column_of_a_prediction_made_before_is_kept(model: manyheads.TrainedModel) -> None:
    frame = pd.DataFrame({"text": TEXTS, "ner": 1, "predicted_ner": "mine"})
    found = model.predict(frame, tasks=["ner"])
    assert list(found.columns) == ["text", "ner", "predicted_ner", "predicted_predicted_ner"]
    assert list(found["predicted_ner"]) == ["mine"] * len(TEXTS)


def test_a_frame_gets_the_candidates_and_logits_that_are_asked_for(
    model: manyheads.TrainedModel,
) -> None:
    frame = pd.DataFrame({"text": [*TEXTS, ""]})
    asked: dict[str, Any] = {"tasks": ["classification"], "top_k": 2, "logits": True}
    found = model.predict(frame, **asked)
    assert list(found.columns) == [
        "text", "classification", "classification_score", "classification_candidates",
        "classification_logit",
    ]  # fmt: skip
    first = model.predict(TEXTS, **asked)[0].to_dict()["classification"]
    assert found["classification_candidates"].iloc[0] == first["candidates"]
    assert len(first["candidates"]) == 2
    assert found["classification_logit"].iloc[0] == pytest.approx(first["logit"])
    assert found["classification_candidates"].iloc[2] == []
    alone = model.predict(frame, tasks=["classification"], top_k=1)
    assert list(alone.columns)[-1] == "classification_candidates"
    tagged = model.predict(frame, tasks=["ner"], top_k=2, logits=True)
    assert list(tagged.columns) == ["text", "ner"]
    assert all("logit" in entity for entity in tagged["ner"].iloc[1])


@pytest.mark.parametrize("form", ["dicts", "columns", "arrow", "dataset", "frame"])
def test_records_are_predicted_for_as_their_texts(form: str, model: manyheads.TrainedModel) -> None:
    records = [{"q": text, "label": "question"} for text in TEXTS]
    forms: dict[str, Any] = {
        "dicts": records,
        "columns": {"q": TEXTS, "label": ["question"] * len(TEXTS)},
        "arrow": pa.Table.from_pylist(records),
        "dataset": datasets.Dataset.from_list(records),
        "frame": pd.DataFrame(records),
    }
    found = model.predict(forms[form], text="q")
    if form != "frame":
        assert [one.text for one in found] == list(TEXTS)
        assert [one.results for one in found] == [one.results for one in model.predict(TEXTS)]
    shares = model.predict_proba(forms[form], text="q")
    np.testing.assert_array_equal(shares, model.predict_proba(TEXTS))
    np.testing.assert_array_equal(model.encode(forms[form], text="q"), model.encode(TEXTS))
    with pytest.raises(
        RequestError, match=r"expected the path of a file\. For data in .* `predict`"
    ):
        model.predict_file(forms[form])
    with pytest.raises(DataError, match=r"record 1: there is no field 'text'; .*text=NAME\."):
        model.predict([{"body": "where is anna ?"}])
    with pytest.raises(RequestError, match=r"no column 'w'; expected one of: q, label\. Name the"):
        model.predict(forms["columns"], text="w")


def test_a_missing_text_of_records_is_answered_as_an_empty_one(
    model: manyheads.TrainedModel,
) -> None:
    found = model.predict([{"text": TEXTS[0]}, {"text": None}, {"tokens": ["where", "?"]}])
    assert [one.text for one in found] == [TEXTS[0], "", "where ?"]
    assert [one.empty for one in found] == [False, True, False]
    with pytest.raises(RequestError, match="text 1: the text is empty"):
        model.predict([{"text": None}], when_empty="refuse")


def test_predictions_are_equal_with_equal_embeddings(model: manyheads.TrainedModel) -> None:
    [first, other] = model.predict(TEXTS, embed=True)
    assert first == model.predict(TEXTS, embed=True)[0]
    assert first != other
    assert first != model.predict(TEXTS)[0]
    moved = replace(first, embedding=first.embedding + 1)
    assert first != moved
    with pytest.raises(TypeError, match="unhashable"):
        hash(first)


def test_a_forked_process_predicts_as_the_one_before_it(model: manyheads.TrainedModel) -> None:
    script = """
import multiprocessing, sys, warnings
import manyheads
warnings.simplefilter("ignore")
model = manyheads.load(sys.argv[1], threads=2, backend="torch")
texts = ["will john eat ?", "john lives in paris " * 10] * 20
before = [one.to_json() for one in model.predict(texts)]
def work(queue):
    queue.put([one["classification"].label for one in model.predict(texts)])
context = multiprocessing.get_context("fork")
queue = context.Queue()
process = context.Process(target=work, args=(queue,), daemon=True)
process.start()
assert queue.get(timeout=300) == [one["classification"]["label"] for one in before]
"""
    command = [sys.executable, "-c", script, str(model.best)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_names_of_tasks_may_come_from_an_iterator(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    records = sentences(8, 2)

    def one() -> Any:
        return iter(["classification"])

    assert list(model.predict(TEXTS, tasks=one())[0].results) == ["classification"]
    assert list(model.evaluate(records, tasks=one()).evaluation["tasks"]) == ["classification"]
    found = model.report(records, tasks=one(), slices=iter(["label"]))
    assert [(task.name, bool(task.slices)) for task in found.tasks] == [("classification", True)]
    frame = model.predict(pd.DataFrame({"text": TEXTS}), tasks=one())
    assert list(frame.columns) == ["text", "classification", "classification_score"]


def test_a_single_text_is_refused(model: manyheads.TrainedModel) -> None:
    for use in (model.predict, model.predict_proba, model.encode):
        with pytest.raises(RequestError, match=r"one text, .*; expected a list of texts"):
            use(TEXTS[0])


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
    wrong: Any
    for wrong in (5, b"a", ["a"]):
        for field in ("prompt", "prompt_name"):
            with pytest.raises(RequestError, match=rf"`{field}` is .*; expected a text of whole"):
                model.encode(TEXTS, **{field: wrong})


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
