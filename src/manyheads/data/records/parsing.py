"""Rows to records: each task's label by name, checked against the labels that are known."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from manyheads.config import TaskConfig
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records.record import Record, labelled_field, read_text
from manyheads.data.records.unread import Unread
from manyheads.errors import DataError, listing
from manyheads.tasks import LabelSet, kind_of, known_kinds
from manyheads.tasks.kinds import Label, RawRecord, ReadLabel
from manyheads.tasks.label_values import SECOND_TEXT


def read_records(
    path: str | os.PathLike[str],
    tasks: Mapping[str, TaskConfig],
    label_sets: Mapping[str, LabelSet],
    *,
    layout: Layout | None = None,
    allow_unseen: bool = False,
    keep: Sequence[str] = (),
    on_error: Callable[[DataError], None] | None = None,
    read_elsewhere: Mapping[str, TaskConfig] | None = None,
    on_unread: Callable[[str], None] | None = None,
) -> Iterator[Record]:
    """Stream the records of a file, a folder or a named data set (see `read_rows`).

    Args:
        path: the file, folder or data set.
        tasks: the tasks whose labels are read; without any, records are unlabelled texts.
        label_sets: the known labels of each task.
        layout: the layout of the file, as far as the user states it.
        allow_unseen: whether to keep names that are not among the known labels, unless the
            configuration lists the labels: in validation data they are errors that the model
            cannot avoid (see `unseen_labels`).
        keep: fields whose values are kept beside the labels (`Record.kept`).
        on_error: receives the errors of single records; without it, the first one is raised.
        read_elsewhere: further tasks, whose fields are not reported as unread.
        on_unread: receives, at the end, messages about the parts of the file that are not read.

    Raises:
        DataError: a record cannot be read or does not fit its tasks.
    """
    parse = RecordParser(tasks, label_sets, allow_unseen=allow_unseen, keep=keep)
    unread = Unread({**(read_elsewhere or {}), **tasks}, keep=keep)
    layout = (layout or Layout()).reading(tasks)
    rows = read_rows(path, layout=layout, on_error=on_error, on_unread=unread.passed_over)
    for row in rows:
        try:
            record = parse(row)
        except DataError as error:
            if on_error is None:
                raise
            on_error(error)
        else:
            if on_unread is not None:
                unread.add(row, record)
            yield record
    if on_unread is not None:
        for message in unread.messages():
            on_unread(message)


class RecordParser:
    """Makes records from rows.

    For a task without a label set, names are kept and indices become names (`"0"`, `"1"`); indices
    of tags then need the task's `labels` or `num_labels`.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        label_sets: Mapping[str, LabelSet],
        *,
        allow_unseen: bool = False,
        keep: Sequence[str] = (),
    ) -> None:
        self._keep = tuple(keep)
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
        used: set[str] = set()
        for name, task, read in self._tasks:
            field = labelled_field(row, name, task)
            if field is not None:
                labels[name] = read(raw, field)
                used.add(field)
        if labels and row.fields.get(SECOND_TEXT) is not None and not self._reads_pair(row, used):
            raise DataError(
                f"the record has a second text, `{SECOND_TEXT}`, which no task reads",
                where=raw.where,
                expected=f"one text, or a task of a kind that reads two: {listing(_pair_kinds())}",
                fix=f"Remove `{SECOND_TEXT}`, or give the labels to such a task.",
            )
        kept = tuple(row.fields.get(name) for name in self._keep)
        return Record(text, tokens, labels, raw.where, kept)

    def _reads_pair(self, row: Row, used: Collection[str]) -> bool:
        """Return whether a task reads both texts of a row, or a task that was left out would.

        Args:
            row: the row.
            used: the fields that tasks have read.
        """
        if any(kind_of(task.kind).pairs for _, task, _ in self._tasks):
            return True
        return any(
            row.fields.get(field) is not None
            for name in _pair_kinds()
            for field in kind_of(name).fields
            if field not in used
        )


def _pair_kinds() -> list[str]:
    return [name for name in known_kinds() if kind_of(name).pairs]


def _label_reader(
    task: str, config: TaskConfig, known: LabelSet | None, allow_unseen: bool
) -> ReadLabel:
    keeps_unseen = known is None or (allow_unseen and config.labels is None)
    return kind_of(config.kind).reader(task, config, known, keeps_unseen)
