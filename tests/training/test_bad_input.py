"""Invalid data, encoders and settings are refused before anything is written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from manyheads.errors import ConfigError, DataError, ManyheadsError, ModelError
from manyheads.training import train
from training_setup import (
    Spy,
    config,
    digest,
    run,
    sentences,
    write_records,
)


def refused(folder: Path, error: type[ManyheadsError], message: str, **changes: Any) -> Spy:
    """Expect that a run is refused before it has written anything."""
    spy = Spy()
    with pytest.raises(error, match=message) as caught:
        train(config(folder, **changes), reporter=spy)
    assert caught.value.exit_status == 2
    assert digest(folder / "saved") == {}
    return spy


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    refused(tmp_path, ManyheadsError, r"nowhere\.json", train_file=str(tmp_path / "nowhere.json"))


@pytest.mark.parametrize("key", ["train_file", "valid_file"])
def test_an_empty_file_is_named(tmp_path: Path, key: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    path = str(tmp_path / "empty.jsonl")
    refused(tmp_path, DataError, rf"{re.escape(path)}.*", **{key: path})


def test_a_task_without_a_label_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "train.jsonl", sentences(6, fields=["label"]))
    refused(tmp_path, DataError, r"task 'ner' has no label: none of 6 records has .*tasks\.ner")


def test_a_task_without_a_validation_label_is_named(tmp_path: Path) -> None:
    write_records(tmp_path / "valid.jsonl", sentences(6, fields=["label"]))
    refused(tmp_path, DataError, r"valid\.jsonl: no record has a label for task 'ner'.*tasks\.ner")


@pytest.mark.parametrize("file", ["train", "valid"])
def test_a_label_outside_the_configured_ones_is_named_with_its_place(
    tmp_path: Path, file: str
) -> None:
    tasks = {"intent": {"kind": "classification", "labels": ["question", "order"]}}
    records = [{"text": "do it", "label": "order"}, {"text": "who", "label": "question"}]
    for name in ("train", "valid"):
        extra = [{"text": "it is", "label": "statement"}] if name == file else []
        write_records(tmp_path / f"{name}.jsonl", [*records, *extra])
    message = {
        "train": r"train\.jsonl:3: 'statement' is not a label of the task 'intent'; expected one",
        "valid": r"valid\.jsonl:3: `label` is 'statement', which is not a label of the task",
    }[file]
    refused(tmp_path, DataError, message, tasks=tasks)


def test_validation_labels_that_training_never_saw_are_counted_and_count_as_errors(
    tmp_path: Path,
) -> None:
    new = [{"tokens": ["hey"], "label": "greeting", "ner": ["O"]}] * 3
    new.append({"tokens": ["will", "uno", "eat"], "label": "question", "ner": ["O", "B-ORG", "O"]})
    write_records(tmp_path / "valid.jsonl", [*sentences(4, 2), *new])
    result, spy = run(tmp_path)
    unseen = "never seen in training and counted as errors: "
    assert spy.said(f"{unseen}3 validation labels of task 'classification': greeting (3)")
    assert spy.said(f"{unseen}1 validation label of task 'ner': ORG (1)")
    assert result.history[0]["metrics"]["tasks"]["classification"]["accuracy"] <= 5 / 8


def test_truncated_records_are_counted(tmp_path: Path) -> None:
    long = [{"text": "john " * 40, "label": "statement", "ner": None}]
    records = [*sentences(6, 1), {k: v for k, v in long[0].items() if v}]
    write_records(tmp_path / "train.jsonl", records)
    _, spy = run(tmp_path)
    assert spy.said("longer than 32 sub-tokens: 1 of 7 records; training does not see the last "
                    "10 words in all")  # fmt: skip


def test_an_encoder_that_cannot_be_found_offline_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = "'nobody/no-such-encoder' is not on this machine and the hub cannot be reached.*"
    refused(tmp_path, ModelError, message + "`model_name`", model_name="nobody/no-such-encoder")


def test_a_length_beyond_the_encoders_positions_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, ConfigError, "`max_length` is 65; expected at most 64", max_length=65)
