"""Prodigy's annotations: JSON lines with `spans`, `accept` or `label`, and an `answer`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from manyheads.data.readers.annotated import as_list, entity
from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_objects
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

ANSWERS = ("accept", "reject", "ignore")
_OWN = ("_input_hash", "_task_hash", "_view_id", "_session_id", "_timestamp", "_annotator_id")
_INTERNAL = (
    *_OWN,
    "_is_binary",
    "answer",
    "accept",
    "spans",
    "options",
    "label",
    "config",
    "style",
)


def is_prodigy(head: Head) -> bool:
    """Return whether every record has one of Prodigy's answers, or its hashes."""
    return bool(head.objects) and all(
        o.get("answer") in ANSWERS or "_task_hash" in o for o in head.objects
    )


def read_prodigy(source: Source) -> Iterator[Row]:
    """Yield accepted annotations: `text`, `tokens`, `entities`, and `label` or `labels`.

    Ignored and rejected examples are passed over and counted. If all examples of a file ask about
    the same label, a rejected one means that the label does not apply: `labels` is then empty. An
    answer about one entity says nothing of the other words, and is passed over too.
    """
    only = _only_label(source)
    return (
        one_or_many(lambda source: _rows(source, only), source)
        if only is None
        else _rows(source, only)
    )


def _rows(source: Source, only: str | None) -> Iterator[Row]:
    for row in read_objects(source):
        unread = _unread(row.fields, only)
        if unread and source.needs_labels:
            source.pass_over(unread)
        elif unread:
            yield replace(row, fields=_rest(row.fields))
        else:
            yield from source.attempt(row, _fields, row, only)


def _unread(record: Mapping[str, Any], only: str | None) -> str:
    """Return what a record is whose labels cannot be read; empty for others."""
    answer = record.get("answer", "accept")
    if answer != "accept" and not (answer == "reject" and only is not None):
        return f"records whose answer is {shorten(answer)}"
    # Questions about a class may show spans too, which are matches of patterns.
    if record.get("_is_binary") is True and record.get("spans") and record.get("label") is None:
        return "answers about one entity of a text (`ner.correct` asks for all of them)"
    return ""


def _only_label(source: Source) -> str | None:
    """Return the label that all yes-or-no examples ask about, if some of them are rejected."""
    labels: set[Any] = set()
    rejected = False
    with suppress(DataError):
        for row in read_objects(source.quiet()):
            if "spans" in row.fields or "accept" in row.fields or len(labels) > 1:
                return None
            label = row.fields.get("label")
            labels |= {label} if type(label) is str else {None, 0}
            rejected = rejected or row.fields.get("answer") == "reject"
    return labels.pop() if rejected and len(labels) == 1 else None


def _fields(row: Row, only: str | None) -> dict[str, Any]:
    fields, record = _rest(row.fields), row.fields
    if record.get("answer") == "reject":
        return {**fields, "labels": []}
    spans = record.get("spans")
    if spans is not None:
        fields["entities"] = [_span(item, row) for item in as_list(spans, "spans", row.where)]
    if record.get("accept") is not None:
        fields["labels"] = as_list(record["accept"], "accept", row.where)
    elif record.get("label") is not None:
        fields["labels"] = [record["label"]]
    if only is not None and "labels" not in fields:
        fields["labels"] = None
    return fields


def _rest(record: Any) -> dict[str, Any]:
    """Return the text and all fields that are not Prodigy's own."""
    fields = {name: value for name, value in record.items() if name not in _INTERNAL}
    tokens = fields.get("tokens")
    if type(tokens) is list and all(type(token) is dict for token in tokens):
        # Spans are in characters, so the tokens, which include white space, are not needed.
        del fields["tokens"]
    return fields


def _span(item: Any, row: Row) -> dict[str, Any]:
    if type(item) is dict and item.keys() >= {"start", "end", "label"}:
        return entity(item["start"], item["end"], item["label"])
    raise DataError(
        f"a span is {shorten(item)}",
        where=row.where,
        expected="an object with start, end and label",
    )
