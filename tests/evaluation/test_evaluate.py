"""Every form of a model can be evaluated on any labelled file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from manyheads.errors import DataError, ModelError, RequestError
from manyheads.evaluation import EvaluationReport, evaluate
from manyheads.inference import Runtime
from manyheads.storage import other_best
from manyheads.training import TrainResult
from training_setup import run, sentences, write_records


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> TrainResult:
    """A run whose tasks have validation files of their own; its best epoch is not its last."""
    folder = tmp_path_factory.mktemp("evaluated")
    write_records(folder / "intents.jsonl", sentences(7, 3, fields=["label"]))
    write_records(folder / "tags.jsonl", sentences(5, 4, fields=["ner"]))
    tasks = {
        "intent": {"kind": "classification", "valid_file": str(folder / "intents.jsonl")},
        "ner": {"kind": "tagging", "valid_file": str(folder / "tags.jsonl")},
    }
    with pytest.MonkeyPatch.context() as patched:
        scores = iter([0.9, 0.1])
        patched.setattr("manyheads.training.epoch_end.best_value", lambda *given: next(scores))
        result, _ = run(folder, tasks=tasks, num_epochs=2)
    return result


def scored(model: Any, **options: Any) -> EvaluationReport:
    return evaluate(model, runtime=Runtime(threads=1), **options)


def as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def test_the_latest_checkpoint_of_a_run_is_scored_on_the_validation_files(
    trained: TrainResult,
) -> None:
    report = scored(trained.save_dir, checkpoint="latest")
    assert report.model == str(trained.save_dir / "mtl_epoch2.pt")
    assert [Path(path).name for path in report.data] == ["intents.jsonl", "tags.jsonl"]
    assert as_json(report.evaluation) == as_json(trained.history[1]["metrics"])
    assert report.evaluation["records"] == 12
    keys = {"model", "data", "tasks", "frame_accuracy", "records", "drift"}
    assert report.to_json().keys() == keys


def test_the_best_model_of_a_named_run_is_scored(trained: TrainResult) -> None:
    assert scored(trained.save_dir, drift=False).model == str(trained.best)


def test_without_a_model_the_latest_checkpoint_is_scored(
    trained: TrainResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    (trained.save_dir.parent / "saved_model").symlink_to(trained.save_dir)
    monkeypatch.chdir(trained.save_dir.parent)
    assert scored(None, drift=False).model == str(Path("saved_model", "mtl_epoch2.pt"))
    best = scored(None, drift=False, checkpoint="best")
    assert best.model == str(Path("saved_model", "best"))


def test_a_best_model_of_another_epoch_is_known(trained: TrainResult) -> None:
    assert other_best(trained.save_dir / "mtl_epoch2.pt") == trained.best
    assert other_best(trained.save_dir / "mtl_epoch1.pt") is None
    assert other_best(trained.best) is None


def test_the_best_model_scores_as_it_did_when_it_was_chosen(trained: TrainResult) -> None:
    report = scored(trained.best)
    assert as_json(report.evaluation) == as_json(trained.history[0]["metrics"])
    assert scored(trained.save_dir / "mtl_epoch1.pt").evaluation == report.evaluation


def test_any_labelled_file_is_scored_on_what_it_has_labels_for(
    trained: TrainResult, tmp_path: Path
) -> None:
    both = write_records(tmp_path / "both.jsonl", sentences(9, 8))
    report = scored(trained.save_dir, data=both)
    assert report.data == (str(both),)
    assert report.evaluation["tasks"].keys() == {"intent", "ner"}
    assert report.evaluation["records"] == 9
    tags = write_records(tmp_path / "tags.jsonl", sentences(9, 8, fields=["ner"]))
    assert scored(trained.save_dir, data=tags).evaluation["tasks"].keys() == {"ner"}


def test_tasks_can_be_chosen(trained: TrainResult, tmp_path: Path) -> None:
    report = scored(trained.save_dir, tasks=["ner"])
    assert report.evaluation["tasks"].keys() == {"ner"}
    assert [Path(path).name for path in report.data] == ["tags.jsonl"]
    both = write_records(tmp_path / "both.jsonl", sentences(9, 8))
    assert scored(trained.best, data=both, tasks=["intent"]).evaluation["tasks"].keys() == {
        "intent"
    }


def test_labels_unknown_to_the_model_are_reported_and_count_as_errors(
    trained: TrainResult, tmp_path: Path
) -> None:
    new = {"tokens": ["hey", "oslo"], "label": "greeting", "ner": ["O", "B-GPE"]}
    path = write_records(tmp_path / "new.jsonl", [new, new])
    warnings: list[str] = []
    report = scored(trained.save_dir, data=path, warn=warnings.append)
    assert [w.partition(": ")[2] for w in warnings] == [
        "unknown to the model and counted as errors: 2 labels of task 'intent': greeting (2)",
        "unknown to the model and counted as errors: 2 labels of task 'ner': GPE (2)",
    ]
    assert report.evaluation["frame_accuracy"] == 0.0


def test_a_task_that_the_model_does_not_have_is_refused(trained: TrainResult) -> None:
    message = r"no task 'intend' \(did you mean \"intent\"\?\); expected one of: intent, ner"
    with pytest.raises(RequestError, match=message):
        scored(trained.save_dir, tasks=["intend"])


@pytest.mark.parametrize(
    ("fields", "tasks", "missing"),
    [([], None, "intent"), (["label"], ["ner"], "ner"), (["ner"], ["ner", "intent"], "intent")],
)
def test_a_file_without_labels_for_the_named_tasks_is_refused(
    trained: TrainResult, tmp_path: Path, fields: list[str], tasks: list[str] | None, missing: str
) -> None:
    path = write_records(tmp_path / "some.jsonl", sentences(3, fields=fields))
    with pytest.raises(DataError, match=rf"some\.jsonl: no record has .* task '{missing}'"):
        scored(trained.save_dir, data=path, tasks=tasks)


def test_a_file_that_is_empty_or_missing_is_refused(trained: TrainResult, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name in ("empty.jsonl", "nowhere.jsonl"):
        with pytest.raises(DataError, match=name):
            scored(trained.save_dir, data=tmp_path / name)


def test_missing_validation_files_are_named_where_they_are_needed(
    trained: TrainResult, tmp_path: Path
) -> None:
    folder = trained.save_dir.parent
    (folder / "tags.jsonl").rename(folder / "moved.jsonl")
    try:
        with pytest.raises(ModelError, match=r"tags\.jsonl on which the model was chosen") as e:
            scored(trained.best)
        assert "`tasks=['intent']`" in str(e.value)
        assert scored(trained.best, tasks=["intent"]).evaluation["tasks"].keys() == {"intent"}
    finally:
        (folder / "moved.jsonl").rename(folder / "tags.jsonl")


def test_a_folder_with_the_best_model_alone_is_scored(trained: TrainResult, tmp_path: Path) -> None:
    shutil.copytree(trained.best, tmp_path / "run" / "best")
    data = trained.save_dir.parent / "intents.jsonl"
    assert scored(tmp_path / "run", data=data).model == str(tmp_path / "run" / "best")
