"""Count the parts of a file that are not read: fields, untagged words, other contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from manyheads.config import TaskConfig
from manyheads.data.readers import Row
from manyheads.data.records.record import TEXT_FIELDS, Record, label_fields
from manyheads.errors import counted, listing, nearest, shorten
from manyheads.tasks.label_values import SECOND_TEXT
from manyheads.tasks.labels import unlabelled_words

_MOST_FIELDS = 1000


class Unread:
    """Counts the parts of a file's records that are not read.

    Args:
        tasks: the tasks that read them.
        others: further fields that are read.
        keep: fields whose values the caller asked to keep: the user may have misspelt them, so
            they are not suggested in place of others.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskConfig],
        others: Iterable[str] = (),
        keep: Iterable[str] = (),
    ) -> None:
        fields = {name: label_fields(name, task) for name, task in tasks.items()}
        self._always = {*TEXT_FIELDS, SECOND_TEXT, *others}
        self._always.update(names[0] for names in fields.values() if len(names) == 1)
        self._suggested = self._always.union(*fields.values())
        self._always.update(keep)
        self._known = self._suggested | self._always
        self._choices = {name: names for name, names in fields.items() if len(names) > 1}
        self._fields: Counter[str] = Counter()
        self._beside: Counter[tuple[str, str, str]] = Counter()
        self._untagged: Counter[str] = Counter()
        self._passed_over: dict[str, int] = {}

    def add(self, row: Row, record: Record) -> None:
        """Count the parts of a row that its record leaves out."""
        self.add_fields(row)
        self._add_beside(row)
        for task, label in record.labels.items():
            if words := unlabelled_words(label):
                self._untagged[task] += len(words)

    def add_fields(self, row: Row) -> None:
        """Count the fields of a row that are not read."""
        if not self._known.issuperset(row.fields) and len(self._fields) < _MOST_FIELDS:
            self._fields.update(
                name
                for name, value in row.fields.items()
                if name not in self._known and value is not None
            )

    def _add_beside(self, row: Row) -> None:
        """Count fields that could hold a task's label, where another field holds it."""
        filled = {
            task: [field for field in fields if row.fields.get(field) is not None]
            for task, fields in self._choices.items()
        }
        read = self._always.union(*(fields[:1] for fields in filled.values()))
        for task, fields in filled.items():
            self._beside.update(
                (task, fields[0], other) for other in fields[1:] if other not in read
            )

    def passed_over(self, counts: Mapping[str, int]) -> None:
        """Add the counts, by kind, of contents that records cannot hold."""
        self._passed_over.update(counts)

    def counts(self) -> list[str]:
        """Return a message for each kind of content that is not read."""
        return [
            *(f"not read: {what} ({count:,})" for what, count in self._passed_over.items()),
            *(
                f"{counted(count, 'word')} without a tag of the task {task!r}, skipped by loss and "
                "scores"
                for task, count in self._untagged.items()
            ),
            *(
                f"the task {task!r} reads the field {shorten(field)} and not {shorten(other)}, "
                f"which {counted(count, 'record')} {'has' if count == 1 else 'have'} beside it"
                for (task, field, other), count in self._beside.items()
            ),
        ]

    def fields(self) -> list[str]:
        """Return a message for each field that no task reads."""
        return [
            f"no task reads the field {shorten(name)}, found in "
            f"{counted(count, 'record')}{nearest(name, self._suggested)}"
            for name, count in self._fields.items()
        ]

    def messages(self) -> list[str]:
        """Return all messages, with one for all fields."""
        fields = self.fields()
        if len(fields) > 1:
            names = (f"{shorten(name)}{nearest(name, self._suggested)}" for name in self._fields)
            fields = [f"no task reads the fields {listing(names)}"]
        return [*self.counts(), *fields]
