"""Training and validation data from the files of a configuration."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manyheads.errors import ConfigError, DataError
from manyheads.text import TextTokenizer
from manyheads.training.data import TrainingData, draw_batches, load_training_data
from tiny import tiny_tokenizer
from training_setup import config, sentences, write_records

TOKENIZER = TextTokenizer(tiny_tokenizer())


def load(
    folder: Path, warnings: list[str] | None = None, max_length: int = 32, **changes: Any
) -> TrainingData:
    told: list[str] = [] if warnings is None else warnings
    return load_training_data(config(folder, **changes), TOKENIZER, max_length, told.append)


def two_files(folder: Path) -> dict[str, Any]:
    write_records(folder / "intents.jsonl", sentences(9, 1, fields=["label"]))
    write_records(folder / "tags.jsonl", sentences(5, 2, fields=["ner"]))
    return {
        "intent": {"kind": "classification", "train_file": str(folder / "intents.jsonl")},
        "ner": {"kind": "tagging", "train_file": str(folder / "tags.jsonl"), "batch_size": 2},
    }


def test_a_file_is_read_once_for_all_its_tasks(tmp_path: Path) -> None:
    data = load(tmp_path)
    assert len(data.datasets) == len(data.validation) == 1
    assert data.validation[0].tasks == ("classification", "ner")
    assert [(s.name, s.tasks, s.dataset) for s in data.sources] == [
        ("classification", ("classification",), 0), ("ner", ("ner",), 0),
    ]  # fmt: skip
    assert data.label_sets["classification"].names == ("question", "statement")
    assert data.label_sets["ner"].names == ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")


def test_tasks_may_have_their_own_files_and_batch_sizes(tmp_path: Path) -> None:
    data = load(tmp_path, tasks=two_files(tmp_path))
    assert [dataset.source for dataset in data.datasets] == [
        str(tmp_path / "intents.jsonl"), str(tmp_path / "tags.jsonl"),
    ]  # fmt: skip
    assert [(s.name, len(s.rows), s.batch_size, s.dataset) for s in data.sources] == [
        ("intent", 9, 4, 0), ("ner", 5, 2, 1),
    ]  # fmt: skip
    for source in data.sources:
        assert source.lengths.tolist() == data.datasets[source.dataset].tokens.lengths.tolist()


@pytest.mark.parametrize("schedule", ["alternate", "joint"])
def test_batches_may_have_a_budget_of_sub_tokens(tmp_path: Path, schedule: str) -> None:
    data = load(tmp_path, schedule=schedule, tokens_per_batch=24)
    for source in data.sources:
        assert source.bins is not None
        batches = draw_batches(source, 1, 0)
        tokens = data.datasets[0].tokens
        widths = [len(batch) * tokens.lengths_of(batch).max() for batch in batches]
        assert max(widths) <= 24
        assert sorted(row for batch in batches for row in batch) == list(range(14))


@pytest.mark.parametrize("every", [1, 2])
def test_a_budget_of_sub_tokens_holds_for_both_texts_of_pairs(tmp_path: Path, every: int) -> None:
    records = sentences(40, 1, fields=["label"])
    for i, record in enumerate(records):
        record["text"] = " ".join(record.pop("tokens"))
        if i % every == 0:
            record |= {"text2": "the weather was very bad " * (i % 4 + 1), "same": "yn"[i // 2 % 2]}
    train_file = str(write_records(tmp_path / "pairs.jsonl", records))
    tasks = {"label": {"kind": "classification"}, "same": {"kind": "pair", "field": "same"}}
    data = load(
        tmp_path, schedule="joint", tokens_per_batch=96, tasks=tasks, train_file=train_file,
        valid_file=train_file,
    )  # fmt: skip
    [source], [dataset] = data.sources, data.datasets
    batches = list(draw_batches(source, 1, 0))
    drawn = [dataset.with_partners(batch) for batch in batches]
    padded = [len(rows) * int(dataset.tokens.lengths_of(rows).max()) for rows in drawn]
    assert max(padded) <= 96
    assert np.mean(padded) > 64
    assert sorted(row for batch in batches for row in batch) == source.rows.tolist()


def test_joint_tasks_are_drawn_together_file_by_file(tmp_path: Path) -> None:
    (both,) = load(tmp_path, schedule="joint").sources
    assert both.tasks == ("classification", "ner")
    tasks = two_files(tmp_path)
    del tasks["ner"]["batch_size"]
    files = load(tmp_path, schedule="joint", tasks=tasks).sources
    assert [source.tasks for source in files] == [("intent",), ("ner",)]


def test_only_labelled_records_are_drawn(tmp_path: Path) -> None:
    records = sentences(6, 1)
    del records[1]["ner"], records[4]["ner"], records[4]["label"]
    write_records(tmp_path / "train.jsonl", records)
    rows = {source.name: source.rows.tolist() for source in load(tmp_path).sources}
    assert rows == {"classification": [0, 1, 2, 3, 5], "ner": [0, 2, 3, 5]}
    (joint,) = load(tmp_path, schedule="joint").sources
    assert joint.rows.tolist() == [0, 1, 2, 3, 5]


def test_fingerprints_depend_on_the_content_and_not_on_the_path(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        write_records(tmp_path / name / "train.jsonl", sentences(6, 1))
        write_records(tmp_path / name / "valid.jsonl", sentences(4, 2 if name != "c" else 3))
    prints = {name: load(tmp_path / name).fingerprint for name in ("a", "b", "c")}
    assert prints["a"] == prints["b"]
    assert prints["a"] != prints["c"]
    assert prints["a"][:-1] == prints["c"][:-1]


def test_data_without_problems_cause_no_warning(tmp_path: Path) -> None:
    warnings: list[str] = []
    load(tmp_path, warnings)
    assert warnings == []


def test_truncated_records_and_unseen_validation_labels_are_reported(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", [*sentences(5, 1), {"text": "it is", "label": "b"}])
    extra = {"tokens": ["oslo"], "label": "order", "ner": ["B-GPE"]}
    write_records(tmp_path / "valid.jsonl", [*sentences(5, 2), extra, extra])
    warnings: list[str] = []
    load(tmp_path, warnings, max_length=6)
    assert len(warnings) == 3
    labels, types, cut = warnings
    assert "never seen in training and counted as errors: 2 validation labels of task " in labels
    assert labels.endswith("order (2)")
    assert types.endswith("GPE (2)")
    assert re.search("longer than 6 sub-tokens: . of 6 records", cut)
    assert "manyheads.check lists them" in cut


def test_a_task_without_file_is_refused(tmp_path: Path) -> None:
    values = two_files(tmp_path)
    del values["ner"]["train_file"]
    with pytest.raises(ConfigError, match=r"task 'ner' has no train file.*tasks\.ner\.train_file"):
        load(tmp_path, tasks=values, train_file=None)


def test_a_task_without_a_validation_label_is_refused(tmp_path: Path) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(3, fields=["ner"]))
    message = r"valid\.jsonl: no record has a label for task 'classification'.*in the field label"
    with pytest.raises(DataError, match=message):
        load(tmp_path)
