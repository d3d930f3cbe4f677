"""Rows to records: each task's label by name, checked against the labels that are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping

from manyheads.config import TaskConfig
from manyheads.data.readers import Row, read_rows
from manyheads.data.records.record import Record, labelled_field, read_text
from manyheads.errors import DataError
from manyheads.tasks import LabelSet, kind_of
from manyheads.tasks.kinds import Label, RawRecord, ReadLabel


def read_records(
    path: str | os.PathLike[str],
    tasks: Mapping[str, TaskConfig],
    label_sets: Mapping[str, LabelSet],
    *,
    allow_unseen: bool = False,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[Record]:
    """Stream the records of a file, a folder or a named data set (see `read_rows`).

    Args:
        path: where they are.
        tasks: the tasks whose labels are read; without any, records are texts alone.
        label_sets: the known labels of each task.
        allow_unseen: keep names that are not among the known labels, unless the configuration
            lists the labels itself: in validation data they are errors the model cannot avoid
            (see `unseen_labels`).
        on_error: takes the errors of single records; without it, the first one is raised.

    Raises:
        DataError: a record cannot be read or does not fit its tasks.
    """
    parse = RecordParser(tasks, label_sets, allow_unseen=allow_unseen)
    for row in read_rows(path, on_error=on_error):
        try:
            record = parse(row)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            yield record


def parse_row(
    row: Row,
    tasks: Mapping[str, TaskConfig],
    label_sets: Mapping[str, LabelSet],
    *,
    allow_unseen: bool = False,
) -> Record:
    """Make a record of one row; for many rows, make one `RecordParser`.

    Raises:
        DataError: the row is not a record of these tasks.
    """
    return RecordParser(tasks, label_sets, allow_unseen=allow_unseen)(row)


class RecordParser:
    """Makes records of rows.

    A task without a label set takes names as they are and indices as names (`"0"`, `"1"`);
    indices of tags then need the task's `labels` or `num_labels`.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        label_sets: Mapping[str, LabelSet],
        *,
        allow_unseen: bool = False,
    ) -> None:
        self._tasks = [
            (name, task, _label_reader(name, task, label_sets.get(name), allow_unseen))
            for name, task in tasks.items()
        ]

    def __call__(self, row: Row) -> Record:
        """Make the record.

        Raises:
            DataError: the row is not a record of these tasks.
        """
        text, tokens = read_text(row)
        raw = RawRecord(row.fields, text, tokens, row.where)
        labels: dict[str, Label] = {}
        for name, task, read in self._tasks:
            field = labelled_field(row, task)
            if field is not None:
                labels[name] = read(raw, field)
        return Record(text, tokens, labels, raw.where)


def _label_reader(
    task: str, config: TaskConfig, known: LabelSet | None, allow_unseen: bool
) -> ReadLabel:
    keeps_unseen = known is None or (allow_unseen and config.labels is None)
    return kind_of(config.kind).reader(task, config, known, keeps_unseen)
