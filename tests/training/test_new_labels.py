"""Labels added to a trained head: what is kept, what is learned, and what is refused."""

from __future__ import annotations

import json
import shutil
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import manyheads
from files import write_records
from manyheads.cli import main
from manyheads.errors import DataError, ManyheadsError, ModelError, RequestError
from manyheads.sampling import drawn
from manyheads.storage import change_calibration, read_manifest
from manyheads.training import add_label
from manyheads.training.data.dataset import build_dataset
from manyheads.training.new_rows import _penalties
from scopes import store_scope
from training_setup import sentences, settings

pytestmark = pytest.mark.filterwarnings("ignore:.* is counted on only")

TASKS = {
    "classification": {"kind": "classification"},
    "ner": {"kind": "tagging", "decoder": "crf", "labels": ["PER", "LOC"]},
    "topics": {"kind": "multilabel"},
}
NEW = [
    {
        "tokens": ["very", "bad", "weather", "yesterday"],
        "label": "complaint",
        "ner": ["O", "O", "B-SKY", "B-DAY"],
        "topics": ["sky"],
    }
] * 4
TEXTS = ["john lives in paris", "the weather in rome was very bad yesterday", "where is anna ?"]


def records(count: int, seed: int) -> list[Any]:
    """Sentences with a label of every task."""
    return [
        {**one, "topics": ["place"] if "B-LOC" in one["ner"] else []}
        for one in sentences(count, seed)
    ]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> manyheads.TrainedModel:
    folder = tmp_path_factory.mktemp("labels")
    values = settings(folder, tasks=TASKS, schedule="joint", num_epochs=3, precision="float32")
    values = {k: v for k, v in values.items() if k not in ("train_file", "valid_file")}
    return manyheads.train(records(24, 1), valid=records(12, 2), progress=False, **values)


def extended(
    model: manyheads.TrainedModel, task: str, folder: Path, new: Any = NEW
) -> manyheads.Model:
    return manyheads.add_label(
        model, task, train_file=new, save_dir=folder, threads=1, progress=False
    )


@pytest.mark.parametrize("task", list(TASKS))
def test_old_weights_other_tasks_and_the_embedding_stay_and_new_labels_are_found(
    model: manyheads.TrainedModel, task: str, tmp_path: Path
) -> None:
    both = extended(model, task, tmp_path / "new")
    before, after = model.module.state_dict(), both.module.state_dict()
    grown = [name for name in after if after[name].shape != before[name].shape]
    assert grown
    assert all(name.startswith(f"heads.{task}.") for name in grown)
    for name, tensor in before.items():
        block = tuple(map(slice, tensor.shape))
        assert torch.equal(after[name][block], tensor), name
        assert name not in grown or after[name].count_nonzero() > tensor.count_nonzero()
    assert np.array_equal(both.encode(TEXTS), model.encode(TEXTS))
    others = [name for name in TASKS if name != task]
    assert [p.results for p in both.predict(TEXTS, tasks=others)] == [
        p.results for p in model.predict(TEXTS, tasks=others)
    ]
    found = both.predict([NEW[0]["tokens"]])[0]
    shown = {
        "classification": lambda: found["classification"].label == "complaint",
        "ner": lambda: {e.label for e in found["ner"].entities} == {"SKY", "DAY"},
        "topics": lambda: "sky" in [label.label for label in found["topics"].labels],
    }
    assert shown[task](), found


def test_an_answer_changes_to_a_new_label_alone_and_changes_are_counted(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    new = [{"text": text, "label": "mine"} for text in TEXTS]
    both = extended(model, "classification", tmp_path / "new", new)
    texts = [" ".join(record["tokens"]) for record in records(12, 2)]
    pairs = [
        (p["classification"].label, q["classification"].label)
        for p, q in zip(model.predict(texts), both.predict(texts), strict=True)
    ]
    assert all(old == now or now == "mine" for old, now in pairs)
    result = both.result
    assert (result.examples, result.kept) == ({"mine": 3}, 4)
    scored = drawn(pairs, len(pairs))[0][::3]
    assert result.changed == sum(old != now for old, now in scored)
    assert "extended: New labels of classification (examples): mine (3)" in repr(both)


def test_of_many_kept_records_some_are_drawn_from_the_whole_file(
    model: manyheads.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[str] = []

    def dataset(records: Sequence[Any], source: str, *args: Any) -> Any:
        if source == "the kept records":
            fitted.extend(record.labels["classification"] for record in records)
        return build_dataset(records, source, *args)

    monkeypatch.setattr("manyheads.training.new_labels.build_dataset", dataset)
    monkeypatch.setattr("manyheads.training.new_labels.MOST_KEPT", 30)
    write_records(tmp_path / "new.jsonl", NEW)
    by_class = sorted(records(90, 3), key=lambda record: str(record["label"]))
    write_records(tmp_path / "kept.jsonl", by_class)
    messages: list[str] = []
    result = add_label(
        model.best, "classification", train_file=str(tmp_path / "new.jsonl"), threads=1,
        kept=str(tmp_path / "kept.jsonl"), save_dir=tmp_path / "out", report=messages.append,
    )  # fmt: skip
    assert (result.kept, len(fitted)) == (10, 20)
    assert "Using 30 of 90 kept records, drawn at random." in messages
    counts = Counter(fitted)
    assert len(counts) == 2
    assert min(counts.values()) >= 5, counts


def test_old_classes_without_validation_records_keep_their_answers(tmp_path: Path) -> None:
    values = settings(
        tmp_path, tasks={"classification": TASKS["classification"]}, num_epochs=3,
        train_file=None, valid_file=None,
    )  # fmt: skip
    training = records(24, 1)
    statements = [one for one in records(24, 2) if one["label"] == "statement"]
    trained = manyheads.train(training, valid=statements[:3], progress=False, **values)
    texts = [" ".join(one["tokens"]) for one in training]
    new = [{"text": "will it eat ?", "label": "meal"}] * 4
    both = extended(trained, "classification", tmp_path / "new", new)
    assert both.predict([new[0]["text"]])[0]["classification"].label == "meal"
    before, after = (
        [p["classification"].label for p in one.predict(texts)] for one in (trained, both)
    )
    assert before == after
    with pytest.warns(UserWarning, match="no kept record is labelled question; the new labels are"):
        manyheads.add_label(
            trained, "classification", train_file=new, kept=statements, threads=1, progress=False,
            save_dir=tmp_path / "other",
        )  # fmt: skip


def test_an_extended_model_finds_the_data_of_the_run_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings(
        tmp_path, tasks={"classification": TASKS["classification"]}, train_file=None,
        valid_file=None, save_dir="run",
    )  # fmt: skip
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
    monkeypatch.chdir(tmp_path / "a")
    manyheads.train(records(24, 1), valid=records(12, 2), progress=False, **values)
    monkeypatch.chdir(tmp_path / "b")
    manyheads.add_label(
        "../a/run", "classification", train_file=NEW, save_dir="new", threads=1, progress=False
    )
    monkeypatch.chdir(tmp_path)
    assert manyheads.evaluate("b/new", threads=1).evaluation["records"] == 12


def test_an_extended_model_finds_linked_data_and_those_of_a_project_that_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = settings(
        tmp_path, tasks={"classification": TASKS["classification"]}, train_file="train.jsonl",
        valid_file="valid.jsonl", save_dir="run",
    )  # fmt: skip
    project = tmp_path / "project"
    project.mkdir()
    monkeypatch.chdir(project)
    write_records(project / "train.jsonl", sentences(24, 1, fields=["label"]))
    write_records(project / "7f2a", sentences(12, 2, fields=["label"]))
    (project / "valid.jsonl").symlink_to("7f2a")
    manyheads.train(values, progress=False)
    manyheads.add_label(
        "run", "classification", train_file=NEW, save_dir="new", threads=1, progress=False
    )
    monkeypatch.chdir(tmp_path)
    assert manyheads.evaluate("project/new", threads=1).evaluation["records"] == 12
    shutil.copytree(project, tmp_path / "copy", symlinks=True)
    # Files of the same names may be another project's while the old ones are there.
    with pytest.raises(ModelError, match=r"project/valid\.jsonl"):
        manyheads.evaluate("copy/new", threads=1)
    project.rename(tmp_path / "moved")
    found = manyheads.evaluate("moved/new", threads=1)
    assert found.data == (str(tmp_path / "moved/valid.jsonl"),)


def test_an_extended_model_opens_no_file_that_the_old_one_may_not(tmp_path: Path) -> None:
    private, foreign = tmp_path / "private", tmp_path / "foreign"
    private.mkdir()
    foreign.mkdir()
    values = settings(
        foreign, tasks={"classification": TASKS["classification"]}, save_dir=str(foreign / "run"),
        train_file=str(write_records(foreign / "a.jsonl", sentences(24, 1, fields=["label"]))),
        valid_file=str(write_records(private / "own.jsonl", sentences(12, 2, fields=["label"]))),
    )  # fmt: skip
    manyheads.train(values, progress=False)
    (tmp_path / "here").mkdir()
    (foreign / "run").rename(tmp_path / "here/run")
    with pytest.raises(ModelError, match=r"own\.jsonl"):
        manyheads.evaluate(tmp_path / "here/run", threads=1)
    manyheads.add_label(
        tmp_path / "here/run", "classification", train_file=NEW, kept=records(12, 3), threads=1,
        save_dir=tmp_path / "here/new", progress=False,
    )  # fmt: skip
    with pytest.raises(ModelError, match=r"own\.jsonl"):
        manyheads.evaluate(tmp_path / "here/new", threads=1)


def test_a_new_label_that_is_spelt_like_another_is_said(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    new = [{"text": "where is anna ?", "label": "Question"}, *NEW]
    with pytest.warns(UserWarning, match="'question', 'Question' of the task 'classification'"):
        both = extended(model, "classification", tmp_path / "new", new)
    assert both.result.examples == {"complaint": 4, "Question": 1}
    new[0]["label"] = "quesiton"
    with pytest.warns(UserWarning, match="label 'quesiton' .* is spelt like 'question'"):
        extended(model, "classification", tmp_path / "other", new)


def test_a_check_on_few_records_is_said(
    model: manyheads.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(UserWarning, match="is counted on only 4 records; evaluate the new model"):
        extended(model, "ner", tmp_path / "new")
    monkeypatch.setattr("manyheads.training.new_labels.FEW_SCORED", 4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        extended(model, "ner", tmp_path / "other")


def test_other_tasks_stay_calibrated(model: manyheads.TrainedModel, tmp_path: Path) -> None:
    calibrated = Path(shutil.copytree(model.best, tmp_path / "old"))
    found = {"records": 20, "answers": 20, "source": "records", "ece_before": 0.2, "ece": 0.1}
    ner = {"scores": {"method": "platt", "slope": [0.5], "bias": [0.0]}, **found}
    classes = {"scores": {"method": "temperature", "temperature": 2.0}, **found}
    change_calibration(
        read_manifest(calibrated), lambda _: {"tasks": {"classification": classes, "ner": ner}}
    )
    with pytest.warns(UserWarning, match="the calibration of classification: for the old labels"):
        both = manyheads.add_label(
            calibrated, "classification", train_file=NEW, kept=records(9, 3), threads=1,
            save_dir=tmp_path / "new", progress=False,
        )  # fmt: skip
    assert read_manifest(tmp_path / "new").calibration == {"tasks": {"ner": ner}}
    old = manyheads.load(calibrated).predict(TEXTS, tasks=["ner"])
    assert [p.results for p in both.predict(TEXTS, tasks=["ner"])] == [p.results for p in old]


def test_the_scope_stays_unless_its_task_is_extended(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    scoped = Path(shutil.copytree(model.best, tmp_path / "old"))
    store_scope(scoped, "classification", unknown=3)
    before = [one.in_scope for one in manyheads.load(scoped).predict(TEXTS)]
    assert None not in before
    new: dict[str, Any] = {"train_file": NEW, "kept": records(90, 3), "progress": False}
    tagged = manyheads.add_label(scoped, "ner", save_dir=tmp_path / "tagged", threads=1, **new)
    assert [one.in_scope for one in tagged.predict(TEXTS)] == before
    assert read_manifest(tmp_path / "tagged").calibration["scope"]["unknown"] == 3
    with pytest.warns(UserWarning, match="`in_scope` of classification: for the old labels"):
        classed = manyheads.add_label(
            scoped, "classification", save_dir=tmp_path / "classed", threads=1, **new
        )
    assert [one.in_scope for one in classed.predict(TEXTS)] == [None] * len(TEXTS)


def test_a_task_can_be_extended_again_and_its_scores_are_not_those_of_fewer_labels(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    once = extended(model, "ner", tmp_path / "once")
    new = [{"text": "john was bad", "entities": [{"start": 9, "end": 12, "label": "MOOD"}]}]
    with pytest.warns(UserWarning, match="no kept record is labelled DAY, SKY; .* from them"):
        twice = manyheads.add_label(
            once, "ner", train_file=new * 2, kept=records(9, 3), save_dir=tmp_path / "twice",
            threads=1, progress=False,
        )  # fmt: skip
    types = [name for name in twice.tasks["ner"].labels if name.startswith("B-")]
    assert types == ["B-PER", "B-LOC", "B-DAY", "B-SKY", "B-MOOD"]
    assert twice.config.tasks["ner"].labels == twice.tasks["ner"].labels
    assert twice.tasks["ner"].details["stages"] == [5, 9]
    card = (tmp_path / "twice/README.md").read_text(encoding="utf-8")
    assert "| classification | accuracy |" in card
    assert "| ner | f1 |" not in card


def test_the_label_that_takes_most_answers_is_lowered_until_few_are_lost() -> None:
    leads = torch.tensor([[0.5, -9.0], [1.0, -9.0], [1.5, -9.0], [-9.0, 2.0], [-1.0, -1.0]])
    penalties = _penalties(leads, 1)
    assert penalties[0] == pytest.approx(1.5, abs=0.01)
    assert penalties[1] == 0
    assert ((leads - penalties).max(dim=1).values > 0).sum() == 1
    assert not _penalties(leads, 4).any()


def test_new_labels_are_lowered_by_what_the_limit_demands(
    model: manyheads.TrainedModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[int] = []

    def penalties(leads: torch.Tensor, lost: int) -> torch.Tensor:
        allowed.append(lost)
        return torch.full((leads.shape[1],), 50.0)

    monkeypatch.setattr("manyheads.training.new_rows._penalties", penalties)
    both = manyheads.add_label(
        model, "classification", train_file=NEW, kept=records(12, 2), save_dir=tmp_path / "new",
        limit=30, threads=1, progress=False,
    )  # fmt: skip
    assert allowed == [3]
    assert both.predict_proba(TEXTS, "classification")[:, 2].max() < 1e-6
    with pytest.raises(RequestError, match="the limit is 101"):
        manyheads.add_label(model, "classification", train_file=NEW, limit=101)


@pytest.mark.parametrize(
    ("task", "new", "error", "message"),
    [
        ("mood", NEW, RequestError, "the model has no task 'mood'.*manyheads.add_head"),
        ("classification", records(3, 1), DataError, "no record has a new label of the task"),
        ("classification", [{"text": "a", "label": 7}], DataError, "label 7 .* like an index"),
    ],
)
def test_what_cannot_be_added_is_refused(
    model: manyheads.TrainedModel, task: str, new: Any, error: type[ManyheadsError],
    message: str, tmp_path: Path,
) -> None:  # fmt: skip
    with pytest.raises(error, match=message):
        extended(model, task, tmp_path / "new", new)
    assert not (tmp_path / "new").exists()


def test_the_model_itself_and_another_one_are_not_overwritten(
    model: manyheads.TrainedModel, tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="is the model that is extended"):
        extended(model, "ner", model.best)
    model.save(tmp_path / "other")
    with pytest.raises(RequestError, match=r"holds a model\. Replace it with `overwrite=True`"):
        extended(model, "ner", tmp_path / "other")


def test_without_records_of_the_old_labels_the_command_asks_for_them(
    model: manyheads.TrainedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    alone = model.save(tmp_path / "alone")
    files = {"new": NEW, "kept": records(9, 3)}
    for name, rows in files.items():
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    command = [
        "add-label", str(alone), "--task", "classification", "--threads", "1",
        "--train", str(tmp_path / "new.jsonl"), "--output", str(tmp_path / "far/out"),
    ]  # fmt: skip
    assert main(command) == 2
    assert "Name labelled records: --kept FILE." in capsys.readouterr().err
    assert main([*command, "--kept", str(tmp_path / "kept.jsonl")]) == 0
    said = capsys.readouterr().out
    assert "New labels of classification (examples): complaint (4). Of 3 records with old" in said
    assert f"The new model: {tmp_path / 'far/out'}" in said
