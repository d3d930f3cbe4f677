"""Collect the labels of each task in one pass over the training data."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from unicodedata import normalize

from manyheads.config import TaskConfig
from manyheads.data.readers import Layout, Row, read_rows
from manyheads.data.records.record import Record, labelled_field, read_text
from manyheads.errors import DataError, listing
from manyheads.tasks import LabelSet, Pair, Span, WordSpan, kind_of, raise_error
from manyheads.tasks.kinds import Label, RawRecord

_MAX_FIELDS = 100
_BREAKS = re.compile(r"[\W_]+")
"""What separates the words of a label."""
_SHORTEST_WORD = 5
"""The least number of letters of a word in which an edit can be a slip: `on` and `in` are two."""
_SHORTEST_WITHOUT_CASE = 6
"""The same where nothing is in lower case: codes such as `VVFIN`, and scripts without case."""

Paths = Iterable[str] | Mapping[str, Iterable[str]]
"""Files for all tasks, or a mapping from each file to its tasks (`Config.train_files`)."""


def discover_labels(
    tasks: Mapping[str, TaskConfig], paths: Paths, layout: Layout | None = None
) -> dict[str, LabelSet]:
    """Return the labels of every task: those configured, or else those in the training data.

    Names found in the data are sorted, numbers in them by value; tags come after `O`, by entity
    type. There may be `num_labels` of them. Labels that are only indices get the names `0` to
    `num_labels - 1`, or up to the largest index.

    Raises:
        DataError: a record is broken; a task has no label, more than `num_labels`, or one that its
            `labels` do not list; or names and indices are mixed.
    """
    files = paths if isinstance(paths, Mapping) else {path: tuple(tasks) for path in paths}
    collectors = {name: LabelCollector(name, task) for name, task in tasks.items()}
    for path, names in files.items():
        wanted = [collectors[name] for name in names]
        read = (layout or Layout()).reading({name: tasks[name] for name in names})
        for row in read_rows(path, layout=read):
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
        self._kind = kind_of(config.kind)
        self._found = self._kind.found(task, self._wanted())
        self._records = 0
        self._labelled = 0
        self._fields: dict[str, None] = {}

    def add(self, row: Row, text: str, tokens: tuple[WordSpan, ...] | None) -> None:
        """Collect a row's label.

        Raises:
            DataError: it is not a label of this kind, or there are too many different ones.
        """
        self._records += 1
        if len(self._fields) < _MAX_FIELDS:
            self._fields.update(dict.fromkeys(row.fields))
        field = labelled_field(row, self._task, self._config)
        if field is None:
            return
        self._labelled += 1
        record = RawRecord(row.fields, text, tokens, row.where)
        self._kind.collect(self._found, record, field, self._config)

    def labels(
        self, paths: Sequence[str], refuse: Callable[[DataError], None] = raise_error
    ) -> LabelSet:
        """Decide the labels.

        Args:
            paths: the files that were read, for messages.
            refuse: receives the error for each label that the configuration does not list.

        Raises:
            DataError: there is none, or what was found contradicts itself or the configuration.
        """
        if not self._labelled:
            raise self._no_label(paths, f"none of {self._records} records has {self._wanted()}")
        if missing := self._kind.missing(self._found, self._labelled):
            raise self._no_label(paths, missing)
        return self._kind.decide(self._config, self._found, refuse)

    def _wanted(self) -> str:
        return " or ".join(f"`{field}`" for field in self._config.fields)

    def _no_label(self, paths: Sequence[str], found: str) -> DataError:
        return DataError(
            f"the task {self._task!r} has no label: {found}",
            where=listing(paths),
            expected=f"labels in one of the records' fields: {listing(self._fields) or '(none)'}",
            fix=f"Set `tasks.{self._task}.field` to the field that has them, or remove the task.",
        )


def unseen_labels(records: Iterable[Record], task: str, labels: LabelSet) -> Counter[str]:
    """Count the labels of a task in records that are not among the known ones.

    For tags, entity types are counted: once for each entity of such a type.
    """
    known = frozenset(labels.record_names)
    counts: Counter[str] = Counter()
    for record in records:
        if task in record.labels:
            counts.update(n for n in label_names(record.labels[task]) if n not in known)
    return counts


def label_names(label: Label) -> list[str]:
    """Return the names in a label: its class, its classes, or the types of its spans.

    A number has no name.
    """
    if isinstance(label, Pair):
        label = label.value
    if isinstance(label, str):
        return [label]
    items = label if isinstance(label, tuple) else ()
    return [item.label if isinstance(item, Span) else str(item) for item in items]


def alike(labels: Iterable[str]) -> list[list[str]]:
    """Return the groups of different labels that differ only in case or white space."""
    groups: dict[str, list[str]] = {}
    for label in dict.fromkeys(labels):
        groups.setdefault(_folded(label), []).append(label)
    return [group for group in groups.values() if len(group) > 1]


def spelt_like(labels: Iterable[str], known: Iterable[str]) -> list[tuple[str, str]]:
    """Return the pairs of a label and a known one that are one edit apart, whatever their case.

    An edit adds, removes or replaces a character, or swaps two neighbours. Edits of a word's first
    letter, and of words that are short or have digits, do not count: they make other names.
    """
    places: dict[str, list[str]] = {}
    for other in dict.fromkeys(known):
        for shorter in _with_one_less(_folded(other)):
            places.setdefault(shorter, []).append(other)
    pairs = (
        (label, other)
        for label in labels
        for shorter in _with_one_less(_folded(label))
        for other in places.get(shorter, ())
        if _is_slip(label, other)
    )
    return sorted(set(pairs))


def _folded(label: str) -> str:
    """Return a label without differences of case and white space."""
    return " ".join(normalize("NFC", label).casefold().split())


def _with_one_less(text: str) -> set[str]:
    """Return a text, and what is left of it without each of its characters.

    Texts that are one edit apart have one of these in common.
    """
    return {text, *(text[:i] + text[i + 1 :] for i in range(len(text)))}


def _is_slip(label: str, other: str) -> bool:
    """Return whether two labels are one edit apart that makes no other name (see `spelt_like`)."""
    first, second = _folded(label), _folded(other)
    pairs = enumerate(zip(first, second, strict=False))
    start = next((i for i, (a, b) in pairs if a != b), min(len(first), len(second)))
    before = _BREAKS.split(first[:start])[-1]
    words = {before + _BREAKS.split(text[start:])[0] for text in (first, second)}
    has_case = any(map(str.islower, label + other))
    return (
        _is_one_edit(first[start:], second[start:])
        and bool(before)
        # Equal ones are followed by other punctuation: `grade+` and `grade-` are two.
        and len(words) == 2
        and max(map(len, words)) >= (_SHORTEST_WORD if has_case else _SHORTEST_WITHOUT_CASE)
        and not any(map(str.isdigit, "".join(words)))
    )


def _is_one_edit(one: str, other: str) -> bool:
    """Return whether two texts are one edit at their beginning apart."""
    return (
        one[1:] in (other, other[1:])
        or one == other[1:]
        or (one[:2] == other[1::-1] and one[2:] == other[2:])
    )
