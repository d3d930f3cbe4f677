"""doccano's exports: texts with spans, classes or both, as JSON lines or a JSON list."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.annotated import as_list, entity
from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_objects
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

_CLASSES = ("label", "labels", "cats")
_OF_BOTH = ("entities", "cats", "Comments")
"""What a record of a project with spans and classes has as lists."""
_UNREAD = {
    "relations": "relations between entities",
    "Comments": "comments",
    "comments": "comments",
}


def is_doccano(head: Head) -> bool:
    """Return whether records have spans or classes in lists as doccano writes them."""
    texts = [o for o in head.objects if "text" in o]
    return (
        any(_is_span_list(o.get(key)) for o in head.objects for key in ("label", "labels"))
        or any(type(o.get("label")) is list or _is_span_list(o.get("entities")) for o in texts)
        # Entities that are all empty do not show their form.
        or any(all(type(o.get(key)) is list for key in _OF_BOTH) for o in texts)
    )


def read_doccano(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities` and `label` (or `labels`, where a text has several classes)."""
    return one_or_many(_rows, source)


def _rows(source: Source) -> Iterator[Row]:
    has_spans = _has_spans(source)
    for row in read_objects(source):
        yield from source.attempt(row, _fields, row, source, has_spans)


def _has_spans(source: Source) -> bool:
    """Return whether the lists under `label` hold spans; an empty list does not show it."""
    try:
        for row in read_objects(source.quiet()):
            for key in ("label", "labels"):
                value = row.fields.get(key)
                if value and type(value) is list:
                    return _is_span_list(value)
    except DataError:
        return False
    return False


def _fields(row: Row, source: Source, has_spans: bool) -> dict[str, Any]:
    fields = dict(row.fields)
    for name, what in _UNREAD.items():
        # A field of this name may also be the user's own.
        if type(fields.get(name)) is list:
            source.pass_over(what, len(fields.pop(name)))
    spans: list[Any] | None = fields.pop("entities", None)
    classes: list[Any] | None = None
    for key in _CLASSES:
        value = fields.pop(key, None)
        if value is None:
            continue
        if has_spans and key != "cats":
            spans = [*(spans or ()), *_list(value, key, row)]
        else:
            classes = [*(classes or ()), *_list(value, key, row)]
    if spans is not None:
        fields["entities"] = [_span(item, row) for item in _list(spans, "entities", row)]
    if classes is not None:
        fields["labels"] = list(dict.fromkeys(classes)) if _are_names(classes) else classes
    return fields


def _span(item: Any, row: Row) -> dict[str, Any]:
    if type(item) is dict and item.keys() >= {"start_offset", "end_offset", "label"}:
        return entity(item["start_offset"], item["end_offset"], item["label"])
    if _is_triple(item):
        return entity(*item)
    raise DataError(
        f"an entity is {shorten(item)}",
        where=row.where,
        expected='[0, 4, "PER"], or an object with start_offset, end_offset and label',
    )


def _list(value: Any, key: str, row: Row) -> list[Any]:
    if type(value) is str:
        return [value]
    return as_list(value, key, row.where, "a list of classes or of spans")


def _are_names(classes: list[Any]) -> bool:
    return all(type(item) is str for item in classes)


def _is_triple(item: Any) -> bool:
    return type(item) is list and [*map(type, item)] == [int, int, str]


def _is_span_list(value: Any) -> bool:
    return (
        type(value) is list
        and bool(value)
        and all(
            _is_triple(item) or (type(item) is dict and "start_offset" in item) for item in value
        )
    )
