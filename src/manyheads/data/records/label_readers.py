"""From labels as records have them to names that a task knows, one reader a kind of task."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from manyheads.config import TaskConfig
from manyheads.data.records.label_values import (
    IndexedTags,
    NamedTags,
    NameOrIndex,
    read_class,
    read_classes,
    read_tags,
)
from manyheads.data.records.record import Label
from manyheads.errors import DataError, listing, nearest, shorten
from manyheads.tasks import (
    OUTSIDE,
    LabelSet,
    Scheme,
    Span,
    TagSet,
    WordSpan,
    bio_names,
    is_prefixed,
    scheme_of,
    spans_of,
)

_PREFIXES = "BIESLU"

LabelReader = Callable[[Any, str, str, tuple[WordSpan, ...] | None, str], Label]
"""Reads (value, field, text, tokens, where)."""


def label_reader(
    task: str, config: TaskConfig, known: LabelSet | None, *, allow_unseen: bool = False
) -> LabelReader:
    """Make the reader of one task's labels; see `read_records` for `allow_unseen`.

    Without known labels, names are taken as they are and indices as names.
    """
    keeps_unseen = known is None or (allow_unseen and config.labels is None)
    names = _Names(task, known, keeps_unseen)
    if config.kind == "tagging":
        return _TagReader(names, config, known if isinstance(known, TagSet) else None)
    if config.kind == "multilabel":
        return lambda value, field, text, tokens, where: tuple(
            names.of(item, f"{field}[{i}]", where)
            for i, item in enumerate(read_classes(value, field, where))
        )
    return lambda value, field, text, tokens, where: names.of(
        read_class(value, field, where), field, where
    )


class _Names:
    """What a task's labels are called."""

    def __init__(self, task: str, known: LabelSet | None, keeps_unseen: bool) -> None:
        self.task, self.keeps_unseen = task, keeps_unseen
        self._known = known
        # "3" from a file of texts is an index, unless numerals are names themselves.
        self._reads_numerals = known is not None and not any(map(is_numeral, known.names))

    def of(self, label: NameOrIndex, field: str, where: str) -> str:
        """Return the name that a label means.

        Raises:
            DataError: it is not among the known ones.
        """
        known = self._known
        if known is None:
            return str(label)
        if isinstance(label, str):
            if label in known:
                return label
            if not (self._reads_numerals and is_numeral(label)):
                if self.keeps_unseen:
                    return label
                raise self.unknown(label, known.names, field, where)
        index = int(label)
        if index < len(known):
            return known.names[index]
        raise self.beyond(index, len(known), field, where)

    def unknown(self, name: str, known: Sequence[str], field: str, where: str) -> DataError:
        """Make the error for a name that is not known."""
        return DataError(
            f"`{field}` is {shorten(name)}, which is no label of the task {self.task!r}"
            f"{nearest(name, known)}",
            where=where,
            expected=f"one of: {listing(known)}",
        )

    def beyond(self, index: int, count: int, field: str, where: str) -> DataError:
        """Make the error for an index that is too large."""
        return DataError(
            f"`{field}` is {index}, beyond the {count} labels of the task {self.task!r}",
            where=where,
            expected=f"0 to {count - 1}",
            fix="Correct the record, or the number of labels in the configuration.",
        )


class _TagReader:
    """Reads tags and spans into spans."""

    def __init__(self, names: _Names, config: TaskConfig, known: TagSet | None) -> None:
        self._names = names
        self._scheme = known.scheme if known else None
        self._tags = frozenset(_tags_of_any_scheme(known)) if known else frozenset()
        self._types = known.types if known else ()
        self._order = index_order(config, known)

    def __call__(
        self, value: Any, field: str, text: str, tokens: tuple[WordSpan, ...] | None, where: str
    ) -> Label:
        raw = read_tags(value, field, text, tokens, where)
        if not isinstance(raw, NamedTags | IndexedTags):
            return self._checked_spans(raw, field, where)
        tags = raw.tags if isinstance(raw, NamedTags) else self._named(raw.tags, field, where)
        if self._scheme is not None and not self._tags.issuperset(tags):
            self._check(tags, field, where)
        if self._scheme is not Scheme.PLAIN and tags.count(OUTSIDE) == len(tags):
            return ()
        try:
            return spans_of(tags, raw.words, self._scheme or scheme_of(tags))
        except DataError as error:
            raise DataError(
                error.found, where=where, expected=error.expected, fix=error.fix
            ) from None

    def _named(self, indices: Sequence[int], field: str, where: str) -> Sequence[str]:
        if not self._order:
            raise indices_need_names(self._names.task, field, where)
        largest = max(indices)
        if largest >= len(self._order):
            place = f"{field}[{indices.index(largest)}]"
            raise self._names.beyond(largest, len(self._order), place, where)
        return [self._order[index] for index in indices]

    def _check(self, tags: Sequence[str], field: str, where: str) -> None:
        for i, tag in enumerate(tags):
            fits = tag in self._tags or (
                self._names.keeps_unseen and (is_prefixed(tag) or self._scheme is Scheme.PLAIN)
            )
            if not fits:
                raise self._names.unknown(tag, sorted(self._tags), f"{field}[{i}]", where)

    def _checked_spans(self, spans: tuple[Span, ...], field: str, where: str) -> tuple[Span, ...]:
        if not self._names.keeps_unseen:
            for span in spans:
                if span.label not in self._types:
                    raise self._names.unknown(span.label, self._types, field, where)
        return spans


def index_order(config: TaskConfig, known: LabelSet | None) -> tuple[str, ...]:
    """Return the tags that indices count: as the configuration lists them, or as they are known.

    Without either, `num_labels` makes them (see `numbered_tags`). Empty when nothing says.
    """
    if config.labels is not None and (known is None or any(map(is_prefixed, config.labels))):
        return config.labels
    if known is not None:
        return known.names
    return numbered_tags(config.num_labels) if config.num_labels is not None else ()


def numbered_tags(count: int) -> tuple[str, ...]:
    """Return tags with numbers for names.

    `O, B-1, I-1, B-2, I-2...` for an odd count, as O and two tags a type always are; the classes
    `0, 1, 2...` for an even one.
    """
    if count % 2:
        return bio_names(map(str, range(1, count // 2 + 1)))
    return tuple(map(str, range(count)))


def indices_need_names(task: str, field: str, where: str) -> DataError:
    """Make the error for indices of tags that nothing gives a meaning."""
    return DataError(
        f"`{field}` has indices of tags, and nothing says which tags they count",
        where=where,
        expected=f"names, or the task {task!r} with `labels` or `num_labels`",
        fix="List the tags in order as the task's `labels`.",
    )


def is_numeral(name: str) -> bool:
    """Tell whether a name is an index in digits, such as a CSV cell has."""
    return name.isascii() and name.isdecimal() and len(name) < 10 and str(int(name)) == name


def _tags_of_any_scheme(tag_set: TagSet) -> tuple[str, ...]:
    if tag_set.scheme is Scheme.PLAIN:
        return tag_set.names
    return (OUTSIDE, *(f"{prefix}-{kind}" for kind in tag_set.types for prefix in _PREFIXES))
