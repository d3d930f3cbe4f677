"""Labels as records hold them (names or indices, tags or spans); only their form is checked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeVar
from unicodedata import normalize

from manyheads.errors import DataError, counted, listing, nearest, option, shorten
from manyheads.tasks.labels import OUTSIDE, Span, WordSpan, from_io, is_prefixed, with_dashes

MAX_LABEL_LENGTH = 256
"""The longest label name in characters: a longer one is a text in the wrong field, or an attack."""

LEAVE_OUT = "Leave the field out, or null, where nothing is known."
"""How to fix a label that is none."""

SECOND_TEXT = "text2"
"""The field of the second text of a pair."""

_NO_TAG, _DASHES = (None, -100), ("-", "_")
"""Markers of a word without a tag in files; the dashes are markers only among tags of entities."""

NameOrIndex = str | int
Word = TypeVar("Word")


@dataclass(frozen=True, slots=True)
class NamedTags:
    """A tag for each word that has one."""

    tags: Sequence[str]
    words: tuple[WordSpan, ...]
    unlabelled: tuple[WordSpan, ...] = ()
    """The other words."""


@dataclass(frozen=True, slots=True)
class IndexedTags:
    """The index of a tag for each word that has one."""

    tags: Sequence[int]
    words: tuple[WordSpan, ...]
    unlabelled: tuple[WordSpan, ...] = ()
    """The other words."""


RawTags = NamedTags | IndexedTags | tuple[Span, ...]
"""A tagging task's label in a record."""


def read_class(value: Any, field: str, where: str) -> NameOrIndex:
    """Read one class: a name, or an index.

    JSON's `true` and `false` are the classes of these names. Whole numbers that a table stores as
    floats are indices.

    Raises:
        DataError: it is neither.
    """
    kind = type(value)
    if kind is str:
        return check_name(value, field, where)
    if kind is bool:
        return "true" if value else "false"
    if kind is float and value.is_integer():
        value, kind = int(value), int
    if kind is int and value >= 0:
        return int(value)
    raise DataError(
        f"`{field}` is {shorten(value)}",
        where=where,
        expected="the name of a class, or its index counted from 0",
        fix=LEAVE_OUT,
    )


def read_classes(value: Any, field: str, where: str) -> tuple[NameOrIndex, ...]:
    """Read the classes that apply, as a list of names or indices; an empty list means none.

    Raises:
        DataError: it is not a list, or has a class twice.
    """
    if type(value) is not list:
        raise DataError(
            f"`{field}` is {shorten(value)}",
            where=where,
            expected="a list of the classes that apply",
            fix="Write one class as a list too; for several in a cell of a table, name the "
            "separator: " + option("--label-separator ','", '`layout=Layout(separator=",")`') + ".",
        )
    classes = tuple(read_class(item, f"{field}[{i}]", where) for i, item in enumerate(value))
    if len(set(classes)) != len(classes):
        twice = next(c for i, c in enumerate(classes) if c in classes[:i])
        raise DataError(
            f"`{field}` has the class {shorten(twice)} twice",
            where=where,
            expected="each class that applies once (names or indices, not a list of 0 and 1)",
        )
    return classes


def read_tags(
    value: Any,
    field: str,
    text: str,
    tokens: tuple[WordSpan, ...] | None,
    where: str,
    scheme: str = "auto",
) -> RawTags:
    """Read tags or spans: a list of objects holds spans, an empty list means none.

    Under the scheme `io`, tags are types; under `auto`, they may also be `B_PER`, or `B` and `I`
    alone. Tags of a record that is a `text` are for its words between white space, if there are as
    many. A word whose tag is null or -100, or `-` or `_` among tags of entities, has no label.

    Raises:
        DataError: it is neither, or does not fit the text.
    """
    if type(value) is str:
        value = value.split()
    if type(value) is not list:
        raise _neither(value, field, where)
    if (value and type(value[0]) is dict) or (not value and field != "ner"):
        return read_spans(value, field, text, where)
    words = tokens if tokens is not None else words_between_spaces(text)
    if len(value) != len(words):
        raise _unequal(len(value), len(words), field, tokens is not None, where)
    unlabelled: tuple[WordSpan, ...] = ()
    if any(mark in value for mark in (*_NO_TAG, *_DASHES)):
        value, words, unlabelled = without_unlabelled(value, words, scheme)
        if not value:
            return NamedTags((), (), unlabelled)
    kinds = set(map(type, value))
    if kinds == {str}:
        return NamedTags(_named_tags(value, field, where, scheme), words, unlabelled)
    if kinds == {int} and min(value) >= 0:
        return IndexedTags(value, words, unlabelled)
    raise _odd_tag(value, field, where)


def _named_tags(value: Sequence[str], field: str, where: str, scheme: str) -> Sequence[str]:
    """Check the names of tags, and bring them into the usual form."""
    names = {tag: check_name(tag, field, where) for tag in set(value)}
    tags = [names[tag] for tag in value]
    if scheme == "auto":
        return with_dashes(tags)
    return from_io(tags) if scheme == "io" else tags


def _odd_tag(value: Sequence[Any], field: str, where: str) -> DataError:
    """Make the error for a list of which some items are not tags, or not of one type."""
    i, odd = next(
        (i, v) for i, v in enumerate(value) if type(v) is not type(value[0]) or not _is_tag(v)
    )
    return DataError(
        f"`{field}[{i}]` is {shorten(odd)}",
        where=where,
        expected="tags such as B-PER and O, or only indices counted from 0",
    )


def without_unlabelled(
    value: Sequence[Any], words: Sequence[Word], scheme: str = "auto"
) -> tuple[list[Any], tuple[Word, ...], tuple[Word, ...]]:
    """Split off the words without a label; return the tags, their words, and the other words.

    `-` and `_` may be classes of words; among tags of entities they mean no tag.
    """
    names = {tag for tag in value if type(tag) is str and tag not in _DASHES}
    of_entities = scheme == "io" or (
        scheme == "auto" and all(n == OUTSIDE or is_prefixed(n) for n in with_dashes([*names]))
    )
    marks = (*_NO_TAG, *_DASHES) if names and of_entities else _NO_TAG
    known = [(tag, word) for tag, word in zip(value, words, strict=True) if tag not in marks]
    return (
        [tag for tag, _ in known],
        tuple(word for _, word in known),
        tuple(word for tag, word in zip(value, words, strict=True) if tag in marks),
    )


def words_between_spaces(text: str) -> tuple[WordSpan, ...]:
    """Return the words between white space, to which the tags of a record without tokens belong."""
    spans = []
    start = 0
    for word in text.split():
        start = text.index(word, start)
        spans.append((start, start + len(word)))
        start += len(word)
    return tuple(spans)


def read_spans(value: Sequence[Any], field: str, text: str, where: str) -> tuple[Span, ...]:
    """Read entities: objects with `start`, `end` (characters, exclusive) and `label`, in any order.

    A repeated entity counts once.

    Raises:
        DataError: one is outside the text, covers nothing, overlaps another, or has a `text`
            that differs from the text it covers.
    """
    spans = sorted({_span(item, f"{field}[{i}]", text, where) for i, item in enumerate(value)})
    for one, other in pairwise(spans):
        if other.start < one.end:
            raise DataError(
                f"`{field}` has overlapping entities, {_describe(one, text)} and "
                f"{_describe(other, text)}",
                where=where,
                expected="entities that do not overlap",
                fix="Keep one of the two.",
            )
    return tuple(spans)


def read_number(value: Any) -> float:
    """Read a number, also one written as text; NaN for anything else."""
    try:
        return math.nan if type(value) is bool else float(value)
    except (TypeError, ValueError, OverflowError):
        return math.nan


def read_second_text(fields: Mapping[str, Any], label: str, where: str) -> str:
    """Return the second text of a record that is a pair.

    Args:
        fields: the record's fields.
        label: the record's label as described in the message.
        where: the record's place.

    Raises:
        DataError: it is missing or blank.
    """
    text = fields.get(SECOND_TEXT)
    if text is None:
        filled = [name for name, value in fields.items() if value is not None]
        hint = next((h for f in filled if f != "text" and (h := nearest(f, [SECOND_TEXT]))), "")
        raise DataError(
            f"{label}, but `{SECOND_TEXT}` is empty"
            if SECOND_TEXT in fields
            else f"{label}, but no `{SECOND_TEXT}` among the fields {listing(filled)}{hint}",
            where=where,
            expected=f"a pair: `text`, `{SECOND_TEXT}` and {label}",
        )
    return check_text(text, SECOND_TEXT, where)


def check_text(text: Any, field: str, where: str) -> str:
    """Return a text if it is valid.

    Raises:
        DataError: it is not a string, blank, or not Unicode.
    """
    if type(text) is not str:
        raise DataError(f"`{field}` is {shorten(text)}", where=where, expected="a string")
    if not text or text.isspace():
        what = "the text" if field == "text" else f"`{field}`"
        raise DataError(
            f"{what} is {'only white space' if text else 'empty'}",
            where=where,
            expected="a sentence",
            fix="Remove the record.",
        )
    if not text.isascii() and not is_encodable(text):
        raise not_unicode(text, field, where)
    return text


def not_unicode(text: str, field: str, where: str) -> DataError:
    """Make the error for a text with half a character."""
    return DataError(
        f"`{field}` has half a character (an unpaired surrogate): {shorten(text)}",
        where=where,
        expected="whole Unicode characters",
        fix="Write characters beyond U+FFFF as they are, or as a pair of \\u escapes.",
    )


def check_name(name: str, field: str, where: str) -> str:
    """Return a label's name if it is valid, in its usual form (see `usual_form`).

    Raises:
        DataError: it is blank, too long, or not Unicode.
    """
    if len(name) > MAX_LABEL_LENGTH:
        raise DataError(
            f"`{field}` is a label of {len(name):,} characters: {shorten(name, 40)}",
            where=where,
            expected=f"at most {MAX_LABEL_LENGTH}",
            fix="Is it the field of the text?",
        )
    if not name or name.isspace():
        raise DataError(
            f"`{field}` is a blank label",
            where=where,
            expected="a name",
            fix=LEAVE_OUT,
        )
    if name.isascii():
        return name.strip()
    if not is_encodable(name):
        raise DataError(
            f"`{field}` is {shorten(name)}, with half a character (an unpaired surrogate)",
            where=where,
            expected="whole Unicode characters",
        )
    return usual_form(name)


def usual_form(name: str) -> str:
    """Return a name without white space at its ends, in Unicode's composed form (NFC).

    Neither is part of a name: keyboards differ in how they write an accent, and people in whether
    they put a space after a comma.
    """
    return normalize("NFC", name.strip())


def is_encodable(text: str) -> bool:
    """Return whether a text is valid Unicode; JSON escapes can produce unpaired surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _span(item: Any, field: str, text: str, where: str) -> Span:
    if type(item) is not dict or not item.keys() >= {"start", "end", "label"}:
        raise DataError(
            f"`{field}` is {shorten(item)}",
            where=where,
            expected='an object such as {"start": 0, "end": 4, "label": "PER"}',
        )
    start, end, label = item["start"], item["end"], item["label"]
    if type(label) is not str or label == OUTSIDE:
        raise DataError(
            f"`{field}.label` is {shorten(label)}",
            where=where,
            expected="the name of an entity type",
        )
    label = check_name(label, f"{field}.label", where)
    if type(start) is not int or type(end) is not int or not 0 <= start < end <= len(text):
        raise DataError(
            f"`{field}` goes from {shorten(start)} to {shorten(end)}",
            where=where,
            expected=f"0 <= start < end <= {len(text)}, the characters of the text",
            fix="Offsets count characters, not bytes; `end` is one after the last.",
        )
    covered = text[start:end]
    if covered.isspace():
        raise DataError(f"`{field}` covers only white space", where=where, expected="words")
    if item.get("text", covered) != covered:
        raise DataError(
            f"`{field}` covers {shorten(covered)} but has the text {shorten(item['text'])}",
            where=where,
            expected="the text between `start` and `end`",
            fix="Offsets count characters (Unicode code points), not bytes or UTF-16 units.",
        )
    return Span(start, end, label)


def _describe(span: Span, text: str) -> str:
    return f"{shorten(text[span.start : span.end], 40)} ({span.label}, {span.start} to {span.end})"


def _is_tag(value: Any) -> bool:
    return type(value) is str or (type(value) is int and value >= 0)


def _neither(value: Any, field: str, where: str) -> DataError:
    return DataError(
        f"`{field}` is {shorten(value)}",
        where=where,
        expected="a list of tags, one a token, or a list of entities with start, end and label",
    )


def words_lack_labels() -> DataError:
    """Make the error for a label that neither tags nor entities can hold."""
    return DataError(
        "words without a label beside entities that tags of its tokens cannot express",
        expected="entities of whole tokens, or a label for every word",
        fix="Change the entities, or label these words.",
    )


def _unequal(tags: int, words: int, field: str, has_tokens: bool, where: str) -> DataError:
    what = (
        counted(words, "token") if has_tokens else f"{counted(words, 'word')} between white space"
    )
    return DataError(
        f"`{field}` has {counted(tags, 'tag')} for {what}",
        where=where,
        expected="one tag a token",
        fix="Correct the tags." if has_tokens else "Give the sentence as `tokens`.",
    )
