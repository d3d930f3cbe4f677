"""Which labels there are: collected in one pass over the training data."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from manyheads.config import TaskConfig
from manyheads.data.readers import Row, read_rows
from manyheads.data.records.label_sets import Found, decide_classes, decide_tags, raise_error
from manyheads.data.records.label_values import (
    IndexedTags,
    NamedTags,
    labelled_field,
    read_class,
    read_classes,
    read_pair,
    read_tags,
)
from manyheads.data.records.record import Label, Record, read_text
from manyheads.errors import DataError, listing
from manyheads.tasks import OUTSIDE, LabelSet, Pair, TagSet, WordSpan

MAX_LABELS = 100_000
"""Different labels of one task: more are texts, and would fill the memory."""

_MAX_FIELDS = 100

_L = TypeVar("_L", str, int)

Paths = Iterable[str] | Mapping[str, Iterable[str]]
"""Files for all tasks, or for each file the tasks that learn from it (`Config.train_files`)."""


def discover_labels(tasks: Mapping[str, TaskConfig], paths: Paths) -> dict[str, LabelSet]:
    """Return the labels of every task: as configured, or else as found in the training data.

    Names that are found come sorted, numbers in them by value; those of tags by entity type,
    after `O`. `num_labels` bounds them. Indices alone make the names `0` to `num_labels - 1`, or
    up to the largest index.

    Raises:
        DataError: a record is broken, a task has no label, more than `num_labels` or one that its
            `labels` do not list, or names and indices are mixed.
    """
    files = paths if isinstance(paths, Mapping) else {path: tuple(tasks) for path in paths}
    collectors = {name: LabelCollector(name, task) for name, task in tasks.items()}
    for path, names in files.items():
        wanted = [collectors[name] for name in names]
        for row in read_rows(path):
            text, tokens = read_text(row)
            for collector in wanted:
                collector.add(row, text, tokens)
    return {
        name: collector.labels([path for path, names in files.items() if name in names])
        for name, collector in collectors.items()
    }


class LabelCollector:
    """Collects the labels of one task from the rows of its files."""

    def __init__(self, task: str, config: TaskConfig) -> None:
        self._task, self._config = task, config
        self._found = Found()
        self._records = 0
        self._labelled = 0
        self._fields: dict[str, None] = {}

    def add(self, row: Row, text: str, tokens: tuple[WordSpan, ...] | None) -> None:
        """Take note of a row's labels.

        Raises:
            DataError: the row's label is none, or there are too many different ones.
        """
        self._records += 1
        if len(self._fields) < _MAX_FIELDS:
            self._fields.update(dict.fromkeys(row.fields))
        field = labelled_field(row, self._config)
        if field is None:
            return
        self._labelled += 1
        value, where, found = row.fields[field], row.where, self._found
        if self._config.kind == "similarity":
            read_pair(row, field, self._config.score_range)
        elif self._config.kind == "tagging":
            raw = read_tags(value, field, text, tokens, where)
            if isinstance(raw, NamedTags):
                self._note(raw.tags, found.names, where)
            elif isinstance(raw, IndexedTags):
                self._note(raw.tags, found.indices, where)
            else:
                self._note((span.label for span in raw), found.types, where)
        elif self._config.kind == "multilabel":
            classes = read_classes(value, field, where)
            self._note((c for c in classes if isinstance(c, str)), found.names, where)
            self._note((c for c in classes if isinstance(c, int)), found.indices, where)
        else:
            label = read_class(value, field, where)
            if isinstance(label, str):
                self._note((label,), found.names, where)
            else:
                self._note((label,), found.indices, where)

    def labels(
        self, paths: Sequence[str], refuse: Callable[[DataError], None] = raise_error
    ) -> LabelSet:
        """Decide the labels.

        Args:
            paths: the files that were read, for messages.
            refuse: takes the error of each label that the configuration does not list.

        Raises:
            DataError: there is none, or what was found contradicts itself or the configuration.
        """
        if not self._labelled:
            raise self._no_label(paths, f"none of {self._records} records has {self._wanted()}")
        if self._config.kind == "similarity":
            return LabelSet(())
        if self._config.kind == "tagging":
            if not (
                self._found.types or self._found.indices or self._found.names.keys() - {OUTSIDE}
            ):
                raise self._no_label(paths, f"no entity in {self._labelled} records")
            return decide_tags(self._task, self._config, self._found, refuse)
        if not self._found:
            raise self._no_label(paths, f"{self._wanted()} is empty in all records that have it")
        return decide_classes(self._task, self._config, self._found, refuse)

    def _note(self, labels: Iterable[_L], places: dict[_L, str], where: str) -> None:
        for label in labels:
            if label not in places:
                places[label] = where
                if len(places) > MAX_LABELS:
                    raise DataError(
                        f"the task {self._task!r} has more than {MAX_LABELS:,} different labels",
                        where=where,
                        expected="labels that repeat",
                        fix=f"Is {self._wanted()} the field of its labels?",
                    )

    def _wanted(self) -> str:
        return " or ".join(f"`{field}`" for field in self._config.fields)

    def _no_label(self, paths: Sequence[str], found: str) -> DataError:
        return DataError(
            f"the task {self._task!r} has no label: {found}",
            where=listing(paths),
            expected=f"labels in one of the records' fields: {listing(self._fields) or '(none)'}",
            fix=f"Set `tasks.{self._task}.field` to the one that has them, or leave out the task.",
        )


def unseen_labels(records: Iterable[Record], task: str, labels: LabelSet) -> Counter[str]:
    """Count the labels of a task in records that are not among the known ones.

    Entity types, for tags: a sentence counts as often as it has entities of such a type.
    """
    known = frozenset(labels.types if isinstance(labels, TagSet) else labels.names)
    counts: Counter[str] = Counter()
    for record in records:
        if task in record.labels:
            counts.update(n for n in label_names(record.labels[task]) if n not in known)
    return counts


def label_names(label: Label) -> list[str]:
    """Return the names in a record's label of a task: its class, classes, or types of its spans.

    A pair of sentences has a score and no name.
    """
    if isinstance(label, Pair):
        return []
    if isinstance(label, str):
        return [label]
    return [item if isinstance(item, str) else item.label for item in label]
