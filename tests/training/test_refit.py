"""A run repeated on all of its labelled records: what it learns from, keeps, says and refuses."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import manyheads
from equal_runs import assert_resumes, stop_at
from files import contents_of
from manyheads.config import load_config
from manyheads.errors import ConfigError, DataError, ModelError, RequestError
from manyheads.inference import Runtime, load_model
from manyheads.storage import read_manifest
from manyheads.training import distill_config, refit_config, train
from manyheads.training.state import RunMismatch
from training_setup import (
    Killed,
    Spy,
    config,
    encoder_folder,
    log_lines,
    run,
    sentences,
    settings,
    write_records,
)


def fast(folder: Path, **changes: Any) -> dict[str, Any]:
    return {
        "model_name": str(encoder_folder()), "save_dir": str(folder / "run"), "threads": 1,
        "precision": "float32", "max_length": 32, "progress": False, "num_epochs": 3, **changes,
    }  # fmt: skip


def different(count: int, seed: int) -> list[dict[str, Any]]:
    """Sentences of which none is like another one, so that any number can be held out."""
    records = sentences(count, seed)
    for number, record in enumerate(records):
        record["tokens"] += ["".join(chr(ord("a") + int(digit)) for digit in str(number))]
        record["ner"] += ["O"]
    return records


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data file, the run on it, which held records out, and the run on all."""
    folder = tmp_path_factory.mktemp("refit")
    path = write_records(folder / "data.jsonl", different(300, 3))
    manyheads.train(path, **fast(folder))
    manyheads.refit(folder / "run", save_dir=folder / "all", threads=1, progress=False)
    return folder


def lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def test_all_records_are_learned_from_and_the_run_before_stays_as_it_is(runs: Path) -> None:
    parts = [lines(runs / "run/data" / name) for name in ("train.jsonl", "valid.jsonl")]
    assert all(parts)
    assert lines(runs / "all/data/train.jsonl") == parts[0] + parts[1]
    assert lines(runs / "all/data/valid.jsonl") == parts[1]
    steps = [log_lines(runs / name)[-1]["step"] for name in ("run", "all")]
    assert steps[1] > steps[0]
    again = manyheads.load_config(runs / "all/config.yaml")
    assert again.tasks.keys() == {"classification", "ner"}
    assert again.refit is not None
    assert Path(again.refit) == runs / "run"


def test_the_number_of_epochs_is_that_of_the_model_that_was_kept(tmp_path: Path) -> None:
    first, _ = run(tmp_path, num_epochs=3, best_metric="ner", early_stopping=3)
    assert refit_config(first.save_dir, {}).epochs == first.best_epoch
    before = read_manifest(first.best)
    made = refit_config(first.best, {"save_dir": tmp_path / "all", "threads": 2})
    assert (made.early_stopping, made.best_metric, made.threads) == (None, "mean", 2)
    assert made.head_learning_rate == before.config["head_learning_rate"]


def test_nothing_is_validated_and_the_last_epoch_is_kept(runs: Path) -> None:
    epochs = [line for line in log_lines(runs / "all") if line["event"] == "epoch"]
    assert [one["best"] for one in epochs] == [False] * (len(epochs) - 1) + [True]
    assert {one["score"] for one in epochs} == {None}
    assert all(one["metrics"]["tasks"] == {} for one in epochs)
    assert all(one["loss"].keys() == {"ner", "classification"} for one in epochs)
    assert read_manifest(runs / "all/best").epoch == len(epochs)


def test_calibration_thresholds_and_scope_are_those_of_the_model_before(tmp_path: Path) -> None:
    records = different(200, 3)
    for record in records:
        record["label"] = "weather" if "weather" in record["tokens"] else record["label"]
    path = write_records(tmp_path / "data.jsonl", records)
    manyheads.train(path, hold_out=0.5, **fast(tmp_path, num_epochs=12))
    manyheads.thresholds(tmp_path / "run", precision=0.5, confidence=0.5, threads=1)
    again = manyheads.refit(tmp_path / "run", save_dir=tmp_path / "all", progress=False)
    one, other = (read_manifest(tmp_path / name / "best") for name in ("run", "all"))
    tasks, carried = one.calibration["tasks"], other.calibration["tasks"]
    assert tasks.keys() == carried.keys() == {"classification", "ner"}
    for name, task in tasks.items():
        source = "validation records, by the model before it was refitted"
        assert carried[name] == {**task, "source": source}
    assert tasks["classification"]["thresholds"] is not None
    scope, anew = (load_model(tmp_path / name).predictor.scope for name in ("run", "all"))
    assert scope is not None
    assert anew is not None
    assert np.array_equal(scope.weights, anew.weights)
    assert not np.array_equal(scope.centres, anew.centres)
    texts = [" ".join(record["tokens"]) for record in different(100, 8)]
    in_scope = [prediction.in_scope for prediction in again.predict(texts)]
    assert np.mean([value > 0.5 for value in in_scope if value is not None]) > 0.8
    assert again.best_score is None
    assert "on all records" in repr(again)


def test_where_the_labels_are_others_now_scores_stay_as_they_are(tmp_path: Path) -> None:
    train_file = write_records(tmp_path / "train.jsonl", different(100, 1))
    records = different(100, 2)
    records[0]["label"] = "unseen"
    valid_file = write_records(tmp_path / "valid.jsonl", records)
    manyheads.train(train_file, valid=valid_file, **fast(tmp_path, num_epochs=12))
    spy = Spy()
    manyheads.refit(tmp_path / "run", save_dir=tmp_path / "all", reporter=spy)
    found = read_manifest(tmp_path / "all/best")
    assert found.calibration["tasks"].keys() == {"ner"}
    assert "scope" not in found.calibration
    assert spy.said("the scores of classification are not calibrated")
    assert "unseen" in manyheads.load(tmp_path / "all").tasks["classification"].labels


def test_its_figures_are_told_as_those_of_the_model_before(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = read_manifest(runs / "run/best").metrics
    metrics = read_manifest(runs / "all/best").metrics
    assert metrics["before_refit"] == before
    assert metrics["tasks"] == {}
    value = before["tasks"]["ner"]["f1"]
    shown = repr(manyheads.info(runs / "all"))
    assert "of the model before, which had not learned from all records:" in shown
    assert f"ner f1: {value:.4f}" in shown
    from manyheads.cli import main

    assert main(["info", str(runs / "all")]) == 0
    out = capsys.readouterr().out
    assert "These are the metrics of the model before" in out
    assert "These are measured with the model before, too." in out
    copy = shutil.copytree(runs / "all", tmp_path / "all")
    manyheads.calibrate(copy, write_records(tmp_path / "own.jsonl", different(100, 9)))
    assert main(["info", str(copy)]) == 0
    assert "These are measured with the model before" not in capsys.readouterr().out
    card = (runs / "all/best/README.md").read_text(encoding="utf-8")
    said, table = "none was left to score it on", f"| ner | f1 | {value:.4f} |"
    assert said in card
    assert table in card[card.index(said) :]
    assert said not in (runs / "run/best/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("verb", ["evaluate", "report", "calibrate", "thresholds"])
def test_it_is_not_scored_on_what_it_learned(runs: Path, verb: str) -> None:
    with pytest.raises(ModelError, match="has learned from all records of its run") as raised:
        getattr(manyheads, verb)(runs / "all")
    assert str(runs / "run") in str(raised.value)


def test_another_model_is_not_compared_with_it_on_what_it_learned(
    runs: Path, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="has learned from all records of its run"):
        manyheads.report(runs / "run", against=runs / "all")
    path = write_records(tmp_path / "other.jsonl", sentences(20, 9))
    manyheads.report(runs / "run", path, against=runs / "all")


def test_a_calibration_on_other_records_keeps_its_source(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs / "run", tmp_path / "run")
    path = write_records(tmp_path / "own.jsonl", different(100, 9))
    manyheads.calibrate(copy, path)
    manyheads.refit(copy, save_dir=tmp_path / "all", progress=False)
    found = read_manifest(tmp_path / "all/best").calibration["tasks"]["classification"]
    assert found["source"] == "records of own.jsonl, by the model before it was refitted"


def test_a_task_that_is_carried_on_unchanged_keeps_its_calibration(
    runs: Path, tmp_path: Path
) -> None:
    more = write_records(tmp_path / "more.jsonl", [
        {"text": one["tokens"][0], "topic": one["label"]} for one in sentences(40, 5)
    ])  # fmt: skip
    manyheads.add_head(
        runs / "run", "topic", kind="classification", field="topic", train_file=more,
        save_dir=tmp_path / "added", num_epochs=1, threads=1, progress=False,
    )  # fmt: skip
    manyheads.refit(tmp_path / "added", save_dir=tmp_path / "all", progress=False)
    first, _, after = (
        read_manifest(folder / "best").calibration["tasks"]
        for folder in (runs / "run", tmp_path / "added", tmp_path / "all")
    )
    assert first
    assert {name: after[name] for name in first} == first


def test_thresholds_of_a_carried_task_are_those_of_the_model_before(
    runs: Path, tmp_path: Path
) -> None:
    more = write_records(tmp_path / "more.jsonl", [
        {"text": one["tokens"][0], "topic": one["label"]} for one in sentences(40, 5)
    ])  # fmt: skip
    added = manyheads.add_head(
        runs / "run", "topic", kind="classification", field="topic", train_file=more,
        save_dir=tmp_path / "added", num_epochs=1, threads=1, progress=False,
    )  # fmt: skip
    manyheads.thresholds(added, tasks=["classification"], precision=0.5, confidence=0.5)
    expected = read_manifest(added.best).calibration["tasks"]["classification"]
    assert expected["thresholds"] is not None
    manyheads.refit(added, save_dir=tmp_path / "all", progress=False)
    found = read_manifest(tmp_path / "all/best").calibration["tasks"]["classification"]
    assert found == expected
    spy = Spy()
    values = load_config(None, dict(read_manifest(added.best).config), stored=True)
    assert values.init_from is not None
    manyheads.add_head(
        runs / "run", "topic", kind="classification", field="topic", train_file=more,
        save_dir=tmp_path / "added", num_epochs=4, threads=1, resume=True, reporter=spy,
    )  # fmt: skip
    assert spy.said("replaces a model with calibration or thresholds") == (
        read_manifest(added.best).calibration["tasks"]["classification"] != expected
    )


def test_only_the_refit_of_the_same_run_is_resumed(runs: Path, tmp_path: Path) -> None:
    made = refit_config(runs / "run", {"save_dir": tmp_path / "all", "checkpoint_every": 1})
    with pytest.raises(Killed):
        train(made, reporter=Spy(stop_at(2)))
    other = shutil.copytree(runs / "run", tmp_path / "elsewhere/run")
    with pytest.raises(RunMismatch, match="another run, which refits"):
        refit_config(other, {"save_dir": tmp_path / "all"}, resume=True)
    with pytest.raises(RunMismatch, match="the folder holds another run; expected"):
        refit_config(runs / "run", {"save_dir": other}, resume=True)
    again = refit_config(runs / "run/best", {"save_dir": tmp_path / "all"}, resume=True)
    assert train(again, resume=True).best_score is None


def test_a_run_that_was_moved_is_resumed(runs: Path, tmp_path: Path) -> None:
    made = refit_config(runs / "run", {"save_dir": tmp_path / "all", "checkpoint_every": 1})
    with pytest.raises(Killed):
        train(made, reporter=Spy(stop_at(2)))
    (tmp_path / "all").rename(tmp_path / "moved")
    again = manyheads.refit(runs / "run", save_dir=tmp_path / "moved", resume=True, progress=False)
    assert len(again.history) == 3


def test_a_scope_that_knows_texts_out_of_scope_is_not_carried(tmp_path: Path) -> None:
    records = different(200, 9)
    for record in records:
        record["label"] = "weather" if "weather" in record["tokens"] else record["label"]
    path = write_records(tmp_path / "data.jsonl", records)
    manyheads.train(path, hold_out=0.5, **fast(tmp_path))
    strange = write_records(tmp_path / "strange.jsonl", [{"text": "bad bad rome"}] * 30)
    manyheads.calibrate(tmp_path / "run", unknown=strange)
    assert read_manifest(tmp_path / "run/best").calibration["scope"]["unknown"] == 30
    spy = Spy()
    manyheads.refit(tmp_path / "run", save_dir=tmp_path / "all", reporter=spy)
    assert "scope" not in read_manifest(tmp_path / "all/best").calibration
    assert spy.said("this model does not tell whether texts are in scope")


def test_it_is_scored_on_other_records(runs: Path, tmp_path: Path) -> None:
    path = write_records(tmp_path / "other.jsonl", sentences(20, 9))
    assert manyheads.evaluate(runs / "all", path).evaluation["records"] == 20
    manyheads.report(runs / "all", path)


def test_graphs_have_no_calibration_of_their_own_unless_others_are_named(
    runs: Path, tmp_path: Path
) -> None:
    model = shutil.copytree(runs, tmp_path / "copy") / "all"
    said: list[str] = []
    from manyheads.exporting import export_model

    export_model(model, formats=["int8"], limit=100, threads=1, progress=said.append)
    assert said[0].startswith("warning: the model has learned from the records")
    assert read_manifest(model / "best").calibration.get("backends", {}) in (
        {}, {"onnx-int8": {}},
    )  # fmt: skip
    plain, graph = (
        load_model(model, Runtime(backend, threads=1)).predictor
        for backend in ("torch", "onnx-int8")
    )
    assert graph.scorings == plain.scorings
    other = write_records(tmp_path / "other.jsonl", sentences(60, 9))
    said.clear()
    export_model(model, formats=["int8"], limit=100, data=other, threads=1, progress=said.append)
    assert not any("has learned from" in text for text in said)
    assert read_manifest(model / "best").calibration["backends"]["onnx-int8"]


def test_a_resumed_run_ends_like_an_undisturbed_one_without_the_run_before(
    tmp_path: Path,
) -> None:
    first, _ = run(tmp_path, num_epochs=2, checkpoint_every=1)
    whole, stopped = (
        refit_config(first.save_dir, {"save_dir": tmp_path / name}) for name in ("one", "two")
    )
    assert_resumes(
        whole, stopped, 2, 3, between=lambda: first.save_dir.rename(tmp_path / "elsewhere")
    )
    assert read_manifest(tmp_path / "one/best").metrics == read_manifest(
        tmp_path / "two/best"
    ).metrics  # fmt: skip
    again = refit_config(first.save_dir, {"save_dir": tmp_path / "two"}, resume=True)
    assert train(again, resume=True).best_score is None


def test_a_run_killed_before_its_scores_are_calibrated_calibrates_them_when_it_is_resumed(
    runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object, **__: object) -> None:
        raise Killed

    made = refit_config(runs / "run", {"save_dir": tmp_path / "all"})
    with monkeypatch.context() as patched:
        patched.setattr("manyheads.training.epoch_end.calibrate_models", killed)
        with pytest.raises(Killed):
            train(made)
    assert not read_manifest(tmp_path / "all/best").calibration
    train(made, resume=True)
    expected = read_manifest(runs / "all/best").calibration
    assert read_manifest(tmp_path / "all/best").calibration == expected


def test_other_data_or_another_run_before_are_refused_when_it_is_resumed(
    runs: Path, tmp_path: Path
) -> None:
    made = refit_config(runs / "run", {"save_dir": tmp_path / "all", "checkpoint_every": 1})
    with pytest.raises(Killed):
        train(made, reporter=Spy(stop_at(2)))
    other = made.model_copy(update={"refit": str(tmp_path / "other")})
    with pytest.raises(RunMismatch, match="refit is"):
        train(other, resume=True)
    with pytest.raises(RunMismatch, match="has the number that the run before has chosen, 3"):
        train(made.model_copy(update={"num_epochs": 4}), resume=True)
    with (tmp_path / "all/data/train.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"text": "one more", "label": "question"}) + "\n")
    with pytest.raises(RunMismatch, match="the data's content has changed"):
        train(made, resume=True)


def test_a_run_that_was_stopped_before_its_first_checkpoint_begins_anew(
    runs: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(runs / "all", tmp_path / "all")
    for path in copy.glob("*.pt"):
        path.unlink()
    shutil.rmtree(copy / "best")
    other, _ = run(tmp_path, learning_rate=2e-3)
    spy = Spy()
    manyheads.refit(other.save_dir, save_dir=copy, resume=True, reporter=spy)
    assert spy.said("Training on all 22 records")
    assert len(lines(copy / "data/train.jsonl")) == 22
    assert load_config(copy / "config.yaml").learning_rate == 2e-3


def test_labels_that_only_validation_data_have_are_refused_where_they_are(tmp_path: Path) -> None:
    valid = write_records(
        tmp_path / "valid.jsonl", [*sentences(10, 2), {"text": "where", "label": "third"}]
    )
    tasks = {"intent": {"kind": "classification", "num_labels": 2}}
    run(tmp_path, tasks=tasks)
    with pytest.raises(DataError, match="the task 'intent' has 3 labels") as raised:
        manyheads.refit(tmp_path / "saved", save_dir=tmp_path / "all", progress=False)
    assert str(valid) in str(raised.value)
    assert not (tmp_path / "all/data").exists()


def test_files_of_several_tasks_are_joined_with_the_labels_of_their_tasks(tmp_path: Path) -> None:
    for name, seed, fields in (
        ("classes", 1, ["label"]), ("tags", 2, ["ner"]), ("both", 3, ["label", "ner"]),
        ("more", 4, ["label", "ner"]),
    ):  # fmt: skip
        write_records(tmp_path / f"{name}.jsonl", sentences(12, seed, fields=fields))
    made = config(
        tmp_path, train_file=None, valid_file=str(tmp_path / "both.jsonl"),
        tasks={
            "intent": {"kind": "classification", "train_file": str(tmp_path / "classes.jsonl")},
            "ner": {"kind": "tagging", "train_file": str(tmp_path / "tags.jsonl")},
            "shape": {
                "kind": "tagging", "field": "ner", "train_file": str(tmp_path / "tags.jsonl"),
                "valid_file": str(tmp_path / "more.jsonl"),
            },
        },
    )  # fmt: skip
    train(made)
    again = refit_config(tmp_path / "saved", {"save_dir": tmp_path / "all"})
    train(again)
    classes = [json.loads(line) for line in lines(tmp_path / "all/data/intent.train.jsonl")]
    tags = [json.loads(line) for line in lines(tmp_path / "all/data/ner.train.jsonl")]
    assert len(classes) == 24
    assert all("label" in one and "ner" not in one for one in classes)
    assert len(tags) == 36
    assert all("ner" in one and "label" not in one for one in tags)
    assert sorted(path.name for path in (tmp_path / "all/data").iterdir()) == [
        "intent.train.jsonl", "intent.valid.jsonl", "ner.train.jsonl", "shape.valid.jsonl",
    ]  # fmt: skip


def test_a_layout_is_that_of_the_run_before(tmp_path: Path) -> None:
    rows = ["sentence;topic"] + [
        f"{' '.join(one['tokens'])};{one['label']}" for one in sentences(40, 1)
    ]
    path = tmp_path / "data.csv"
    path.write_text("\n".join(rows), encoding="utf-8")
    layout = {"map": {"sentence": "text", "topic": "label"}}
    made = load_config(
        None, settings(tmp_path, train_file=None, valid_file=None, files=[str(path)], **layout,
                       tasks={"intent": {"kind": "classification"}}),
    )  # fmt: skip
    train(made)
    again = manyheads.refit(tmp_path / "saved", save_dir=tmp_path / "all", progress=False)
    found = [json.loads(line) for line in lines(tmp_path / "all/data/train.jsonl")]
    assert len(found) == 40
    assert all(one.keys() == {"text", "label"} for one in found)
    assert again.tasks["intent"].labels == ("question", "statement")


def test_what_cannot_be_refitted_is_refused(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="has learned from all labelled records"):
        refit_config(runs / "all", {})
    with pytest.raises(RequestError, match="a checkpoint is not the best model"):
        refit_config(next((runs / "run").glob("*.pt")), {})
    with pytest.raises(ModelError, match="no such model"):
        refit_config(tmp_path / "none", {})
    more = write_records(tmp_path / "new.jsonl", [{"text": "in oslo", "label": "new"}] * 3)
    kept = write_records(tmp_path / "kept.jsonl", different(200, 7))
    with pytest.warns(UserWarning, match="the calibration of classification: for the old labels"):
        manyheads.add_label(
            runs / "run", "classification", train_file=more, kept=kept,
            save_dir=tmp_path / "extended", progress=False, threads=1,
        )  # fmt: skip
    with pytest.raises(RequestError, match="no run has chosen this model"):
        refit_config(tmp_path / "extended", {})


def test_an_unfinished_run_is_refitted_with_a_warning(runs: Path, tmp_path: Path) -> None:
    unfinished = config(tmp_path, num_epochs=3)
    with pytest.raises(Killed):
        train(unfinished, reporter=Spy(stop_at(10)))
    spy = Spy()
    train(refit_config(unfinished.save_dir, {"save_dir": tmp_path / "all"}), reporter=spy)
    (said,) = (text for text in spy.messages if "warning: the run before" in text)
    assert re.search(r"has \d epochs? of 3; this one has \d epochs?, as the best", said)
    spy = Spy()
    train(refit_config(runs / "run", {"save_dir": tmp_path / "finished"}), reporter=spy)
    assert not spy.said("warning: the run before")


def test_a_run_before_stays_where_it_is_or_nothing_is_replaced(runs: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(runs, tmp_path / "copy")
    before = contents_of(copy)
    for save_dir in (copy, copy / "run"):
        with pytest.raises(RequestError, match="lies in `save_dir`"):
            manyheads.refit(copy / "run", save_dir=save_dir, overwrite=True, progress=False)
    with pytest.raises(RunMismatch, match="the folder holds another run"):
        manyheads.refit(copy / "run", save_dir=copy / "all", progress=False)
    assert contents_of(copy) == before


def test_a_run_that_cannot_start_leaves_the_one_that_it_was_to_replace(
    runs: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(runs, tmp_path / "copy")
    (copy / "run/data/valid.jsonl").write_text('{"text": "cut', encoding="utf-8")
    before = contents_of(copy / "all")
    with pytest.raises(DataError, match=r"valid\.jsonl:1"):
        manyheads.refit(copy / "run", save_dir=copy / "all", overwrite=True, progress=False)
    assert contents_of(copy / "all") == before


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / "valid.jsonl").unlink()
    with pytest.raises(DataError, match=r"valid\.jsonl: the data .* are not all there"):
        manyheads.refit(tmp_path / "saved", save_dir=tmp_path / "all", progress=False)
    assert not (tmp_path / "all/best").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"early_stopping": 2}, "`early_stopping` is 2"),
        ({"keep_best_per_task": True}, "`keep_best_per_task` is True"),
        ({"best_metric": "ner"}, "`best_metric` is 'ner'"),
        ({"valid_file": "other.jsonl"}, "`valid_file` is 'other.jsonl'"),
        ({"hold_out": 0.5}, "`hold_out` is 0.5"),
    ],
)
def test_settings_without_effect_are_refused(
    runs: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(runs / "all/config.yaml", changes, stored=True)


def test_files_that_a_configuration_names_are_never_written(runs: Path, tmp_path: Path) -> None:
    mine = write_records(tmp_path / "mine.jsonl", sentences(20, 1))
    text = mine.read_bytes()
    task = {"kind": "classification", "train_file": str(mine), "valid_file": str(mine)}
    made = load_config(
        None, {"refit": str(runs / "run"), "save_dir": str(tmp_path / "all"),
               "tasks": {"classification": task}},
    )  # fmt: skip
    with pytest.raises(ConfigError, match="the data files are others"):
        train(made)
    assert mine.read_bytes() == text


def test_its_validation_records_are_nobodys_validation_records(runs: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="a student with the same data has none"):
        distill_config([str(runs / "all")], None, {})
    files = {"train_file": "a.jsonl", "valid_file": "b.jsonl"}
    assert distill_config([str(runs / "all")], None, files).refit is None
    student = distill_config([str(runs / "run"), str(runs / "all")], None, {})
    assert student.valid_file == str(runs / "run/data/valid.jsonl")
    spy = Spy()
    manyheads.distill(
        [runs / "run", runs / "all"], save_dir=tmp_path / "student", num_epochs=1, reporter=spy
    )
    assert [text.partition(" has learned")[0] for text in spy.messages if "too high" in text] == [
        f"warning: the teacher ({runs / 'all'})"
    ]
    more = write_records(tmp_path / "more.jsonl", [
        {"text": one["tokens"][0], "topic": one["label"]} for one in sentences(40, 5)
    ])  # fmt: skip
    added = manyheads.add_head(
        runs / "all", "topic", kind="classification", field="topic", train_file=more,
        save_dir=tmp_path / "added", num_epochs=1, threads=1, progress=False,
    )  # fmt: skip
    continued = Spy()
    new = write_records(tmp_path / "next.jsonl", different(40, 6))
    manyheads.train(
        new, init_from=str(runs / "all"), reporter=continued,
        tasks={"classification": {"kind": "classification"}},
        **fast(tmp_path, save_dir=str(tmp_path / "next")),
    )  # fmt: skip
    assert continued.said("its scores are too high")
    assert added.history[-1]["metrics"]["tasks"].keys() == {"topic"}
    with pytest.raises(RequestError, match="is that of a run on all records"):
        manyheads.compare(str(runs / "all/config.yaml"), out=tmp_path / "out", progress=False)


def test_the_command_shows_losses_and_what_comes_next(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from manyheads.cli import main

    folder = tmp_path / "all"
    assert main(["refit", str(runs / "run"), "--save-dir", str(folder), "--threads", "1"]) == 0
    out, err = capsys.readouterr()
    header = out.splitlines()[1:3]
    assert "loss" in header[1]
    assert not any(word in line for line in header for word in ("f1", "accuracy", "score"))
    assert f"Model: {folder / 'best'}" in out
    assert "manyheads predict" in out
    assert "manyheads report" not in out
    assert "all 300 records" in err
