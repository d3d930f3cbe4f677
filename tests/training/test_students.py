"""What a student takes from its teacher's configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import manyheads
from manyheads.config import load_config
from manyheads.errors import ConfigError, RequestError
from manyheads.training import TrainResult, distill_config
from teachers import CRF_TASKS, texts_file
from training_setup import Spy, encoder_folder, prepared, run, sentences, write_records


def test_a_students_epochs_are_not_cut_short_by_its_teachers_early_stopping(
    tmp_path: Path,
) -> None:
    best = str(run(tmp_path, num_epochs=2, early_stopping=1)[0].best)
    assert distill_config([best], None, {}).early_stopping == 1
    for name in ("epochs", "num_epochs", "num-epochs"):
        assert distill_config([best], None, {name: "8"}).early_stopping is None
    made = distill_config([best], None, {"epochs": "8", "early_stopping": "2"})
    assert (made.num_epochs, made.early_stopping) == (8, 2)


def test_settings_of_the_teacher_that_its_student_would_not_read_are_left_out(
    tmp_path: Path,
) -> None:
    data = write_records(tmp_path / "data.jsonl", sentences(30, 3))
    kept = {"weight": 2, "texts": texts_file(tmp_path), "batch_size": 3}
    first, _ = run(
        tmp_path, train_file=None, valid_file=None, files=[str(data)], hold_out=0.2,
        hold_out_seed=4, keep_best_per_task=True, keep_embeddings=kept,
    )  # fmt: skip
    best = [str(first.best)]
    made = distill_config(best, None, {})
    assert made.valid_file is not None
    assert made.keep_best_per_task
    assert made.keep_embeddings is not None
    assert made.keep_embeddings.batch_size == 3
    one: dict[str, Any] = {"tasks": {"ner": {"kind": "tagging"}}, "keep_embeddings.texts": None}
    made = distill_config(best, None, one)
    assert not made.keep_best_per_task
    assert made.keep_embeddings is not None
    assert (made.keep_embeddings.weight, made.keep_embeddings.batch_size) == (2, None)
    own = {**one, "keep_best_per_task": True}
    with pytest.raises(ConfigError, match="`keep_best_per_task` is true, but there is one task"):
        distill_config(best, None, own)
    assert distill_config(best, None, own, resume=True).keep_best_per_task
    with pytest.raises(ConfigError, match=r"`hold_out` is 0\.3, but `valid_file` is set"):
        distill_config(best, None, {"hold_out": "0.3"})


def test_a_student_is_distilled_from_its_teachers_folder_alone(
    teacher: TrainResult, tmp_path: Path
) -> None:
    best = str(teacher.best)
    student = manyheads.distill(
        best, ["mary is in rome", "where is paul ?"], save_dir=tmp_path / "student",
        student_layers=1, num_epochs=1, progress=False,
    )  # fmt: skip
    assert student.module.encoder.shape.num_layers == 1
    tasks = {**CRF_TASKS, "ner": {**CRF_TASKS["ner"], "word_features": "off"}}
    assert student.config.tasks == load_config(None, {"tasks": tasks}).tasks
    assert student.config.teacher is not None
    made = distill_config([best, "soft.jsonl"], "t.txt", {"teacher.weight": "3"})
    assert made.teacher is not None
    assert (made.teacher.sources, made.teacher.texts) == ((best, "soft.jsonl"), "t.txt")
    assert (made.teacher.weight, made.save_dir, made.epochs) == (3, "distilled", 3)
    with pytest.raises(RequestError, match=r"no teacher is a trained model \(soft.jsonl\)"):
        distill_config(["soft.jsonl"], None, {})
    with pytest.raises(RequestError, match="`init_from` is set to 'a'"):
        distill_config([best], None, {"init_from": "a"})
    with pytest.raises(manyheads.ManyheadsError, match="no such model"):
        distill_config([str(tmp_path / "none")], None, {})


def test_tasks_that_the_teacher_inherited_are_named_and_the_student_of_an_added_head_is_not_frozen(
    teacher: TrainResult, tmp_path: Path
) -> None:
    data = write_records(tmp_path / "data.jsonl", sentences(12, 3))
    added = manyheads.add_head(
        teacher.best, "topic", kind="classification", train_file=data, valid_file=data,
        save_dir=tmp_path / "added", num_epochs=1, threads=1, progress=False,
    )  # fmt: skip
    best, student = added.path, {"save_dir": tmp_path / "student"}
    made = distill_config([best], None, student)
    # The teacher's encoder is not the pretrained one, which the student starts from.
    assert ([*made.tasks], made.freeze) == (["topic"], "none")
    spy = Spy()
    prepared(made, spy)
    assert spy.said("that the student will not have, because its configuration names no data for")
    assert spy.said("them: classification, ner. To have one, set")
    both = {"tasks.ner.kind": "tagging", "tasks.ner.train_file": str(data)}
    assert [*distill_config([best], None, student | both).tasks] == ["topic", "ner"]

    assert distill_config([best], None, {"freeze": "encoder"}).freeze == "encoder"


def test_a_frozen_encoder_stays_frozen_where_the_student_starts_from_the_same(
    tmp_path: Path,
) -> None:
    best = run(tmp_path, freeze="encoder")[0].best
    assert distill_config([best], None, {}).freeze == "encoder"
    same = {"model_name": str(encoder_folder())}
    assert distill_config([best], None, same).freeze == "encoder"
    for other in ({"student_layers": 1}, {"model-name": str(tmp_path)}):
        assert distill_config([best], None, other).freeze == "none"
        assert distill_config([best], None, {**other, "freeze": "encoder"}).freeze == "encoder"


def test_a_students_data_replace_those_of_all_tasks(tmp_path: Path) -> None:
    rows = [{"phrase": f"word {n}", "sort": "xy"[n % 2]} for n in range(12)]
    path = str(write_records(tmp_path / "rows.jsonl", rows))
    layout = {"map": {"phrase": "text", "sort": "label"}}
    files = {"train_file": path, "valid_file": path}
    tasks = {"sort": {"kind": "classification", **files, **layout}}
    best = str(run(tmp_path, train_file=None, valid_file=None, tasks=tasks)[0].best)
    made = distill_config([best], None, {"train-file": "new.jsonl"})
    assert made.train_files() == {"new.jsonl": ("sort",)}
    assert made.valid_files() == {path: ("sort",)}
    assert made.tasks["sort"].map == layout["map"]
    made = distill_config([best], None, {"train_file": "new.jsonl", "valid_file": "other.jsonl"})
    assert made.valid_files() == {"other.jsonl": ("sort",)}
    assert made.tasks["sort"].map is None
