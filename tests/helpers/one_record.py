"""One record, read with one task `t`."""

from __future__ import annotations

from typing import Any

import pytest

from manyheads.config import TaskConfig
from manyheads.data.readers import Row
from manyheads.data.records import Record, RecordParser
from manyheads.errors import DataError
from manyheads.tasks import LabelSet

CLASS = TaskConfig(kind="classification")
MANY = TaskConfig(kind="multilabel")
TAGS = TaskConfig(kind="tagging")


def row(**fields: Any) -> Row:
    """Return a row of a file."""
    return Row("x.jsonl", 7, "line", fields)


def parse(
    task: TaskConfig | None = None,
    known: LabelSet | None = None,
    *,
    allow_unseen: bool = False,
    **fields: Any,
) -> Record:
    """Read a record, with a task `t` and its known labels if they are given."""
    tasks = {} if task is None else {"t": task}
    sets = {} if known is None else {"t": known}
    return RecordParser(tasks, sets, allow_unseen=allow_unseen)(row(**fields))


def label(task: TaskConfig, known: LabelSet | None = None, **fields: Any) -> Any:
    """Return the label that a record has for a task."""
    return parse(task, known, **{"text": "a", **fields}).labels.get("t")


def problem(task: TaskConfig | None = None, known: LabelSet | None = None, **fields: Any) -> str:
    """Return the error of reading a record."""
    with pytest.raises(DataError) as caught:
        parse(task, known, **fields)
    assert str(caught.value).startswith("x.jsonl:7: ")
    return str(caught.value)
