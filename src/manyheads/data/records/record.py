"""A record: one text and its labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from manyheads.config import TaskConfig
from manyheads.data.readers import Row
from manyheads.errors import DataError, listing, nearest, option, shorten
from manyheads.tasks import Pair, Span, WordSpan
from manyheads.tasks.kinds import Label
from manyheads.tasks.label_values import SECOND_TEXT, check_text, is_encodable, not_unicode

TEXT_FIELDS = ("text", "tokens")
_LEAVE_ONE_OUT = "Leave out `text` or `tokens`."


@dataclass(frozen=True, slots=True)
class Record:
    """One text with labels for any subset of the tasks."""

    text: str
    tokens: tuple[WordSpan, ...] | None
    """The characters of each of the user's tokens, where the text was given as tokens."""
    labels: Mapping[str, Label]
    """The labels by task; a task without a label learns nothing from this record."""
    where: str
    """The record's place, for messages."""
    kept: tuple[Any, ...] = ()
    """The values of the fields that the caller asked to keep; None for missing ones."""

    @property
    def texts(self) -> tuple[str, ...]:
        """The text, and the second texts of pairs."""
        others = [label.text for label in self.labels.values() if isinstance(label, Pair)]
        return (self.text, *dict.fromkeys(others))

    def spans(self, task: str) -> list[Span]:
        """Return the labelled spans of a tagging task; none if the record is unlabelled."""
        label = self.labels.get(task)
        items = label if isinstance(label, tuple) else ()
        return [item for item in items if isinstance(item, Span)]


def read_text(row: Row) -> tuple[str, tuple[WordSpan, ...] | None]:
    """Return the text of a row, and the characters of its tokens where it has any.

    Without `text`, the text is the tokens joined with spaces. With it, the tokens are looked up in
    it, one after the other.

    Raises:
        DataError: there is neither, the text is blank, or a token is not valid.
    """
    text, tokens = row.fields.get("text"), row.fields.get("tokens")
    if text is None:
        if tokens is None:
            raise _no_text(row)
        return _joined(tokens, row)
    text = check_text(text, "text", row.where)
    return text, None if tokens is None else _found(tokens, text, row)


def label_fields(name: str, task: TaskConfig) -> tuple[str, ...]:
    """Return the fields in which a task's labels are looked for, in order of preference.

    Without a `field` in the configuration, the task's own name comes first.
    """
    is_free = task.field is None and name not in (*TEXT_FIELDS, SECOND_TEXT)
    return tuple(dict.fromkeys((name, *task.fields))) if is_free else task.fields


def labelled_field(row: Row, name: str, task: TaskConfig) -> str | None:
    """Return the field of a row that holds a task's label, or None where none does."""
    for field in label_fields(name, task):
        if row.fields.get(field) is not None:
            return field
    return None


def word_spans(tokens: Sequence[str]) -> tuple[WordSpan, ...]:
    """Return the characters of tokens that are joined with single spaces."""
    spans = []
    start = 0
    for token in tokens:
        end = start + len(token)
        spans.append((start, end))
        start = end + 1
    return tuple(spans)


def _joined(tokens: Any, row: Row) -> tuple[str, tuple[WordSpan, ...]]:
    try:
        text = " ".join(tokens) if type(tokens) is list else ""
        # Splitting returns the same list, unless a token is empty or contains white space.
        is_sound = text.split() == tokens or (
            type(tokens) is list and all(tokens) and not text.isspace()
        )
        if not tokens or not is_sound or not (text.isascii() or is_encodable(text)):
            raise _bad_token(tokens, row)
    except TypeError:
        raise _bad_token(tokens, row) from None
    return text, word_spans(tokens)


def _found(tokens: Any, text: str, row: Row) -> tuple[WordSpan, ...]:
    joined, spans = _joined(tokens, row)
    if joined == text:
        return spans
    found = []
    start = 0
    for i, token in enumerate(tokens):
        begin = text.find(token, start)
        if begin < 0 or text[start:begin].strip():
            raise DataError(
                f"token {i}, {shorten(token)}, does not come next in the text, which continues "
                f"with {shorten(text[start : start + 40])}",
                where=row.where,
                expected="the tokens of the text, in order and with only white space between",
                fix=_LEAVE_ONE_OUT,
            )
        start = begin + len(token)
        found.append((begin, start))
    if text[start:].strip():
        raise DataError(
            f"the text continues after the last token: {shorten(text[start:].strip())}",
            where=row.where,
            expected="tokens that cover the text",
            fix=_LEAVE_ONE_OUT,
        )
    return tuple(found)


def _no_text(row: Row) -> DataError:
    if "text" in row.fields:
        return DataError(
            "`text` has no value", where=row.where, expected="a string",
            fix="Give the record a text, or leave it out.",
        )  # fmt: skip
    hint = next((h for f in row.fields if (h := nearest(f, TEXT_FIELDS, 0.75))), "")
    return DataError(
        f"neither `text` nor `tokens` among the fields {listing(row.fields) or '(none)'}{hint}",
        where=row.where,
        expected="`text`, a string, or `tokens`, a list of words",
        fix="Name the field: "
        + option(
            "--text-field NAME (and --text2-field NAME for a second text), or --tokens-field NAME",
            '`layout=Layout(names={NAME: "text"})` (and `NAME: "text2"` for a second text), or '
            '`NAME: "tokens"`',
        )
        + " for a list of words.",
    )


def _bad_token(tokens: Any, row: Row) -> DataError:
    if type(tokens) is not list:
        return DataError(
            f"`tokens` is {shorten(tokens)}", where=row.where, expected="a list of words"
        )
    if not tokens:
        return DataError(
            "`tokens` is an empty list",
            where=row.where,
            expected="the words of a sentence",
            fix="Remove the record.",
        )
    for i, token in enumerate(tokens):
        if type(token) is not str:
            found = shorten(token)
        elif not token:
            found = "empty"
        elif not is_encodable(token):
            return not_unicode(token, f"tokens[{i}]", row.where)
        else:
            continue
        return DataError(
            f"token {i} is {found}",
            where=row.where,
            expected="a word",
            fix="Remove it, with its tag; or give the sentence as `text`.",
        )
    return DataError(
        "the text is only white space",
        where=row.where,
        expected="a sentence",
        fix="Remove the record.",
    )
