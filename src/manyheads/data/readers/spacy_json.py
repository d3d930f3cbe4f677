"""spaCy's training data as JSON: pairs of a text and its annotations, or records with `cats`."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from manyheads.data.readers.annotated import as_list, entity
from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_lines import read_line_values
from manyheads.data.readers.json_stream import begins_with, read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

_HALF = 0.5
_CLASSES = re.compile(r'\{\s*"classes"\s*:')


def is_spacy(head: Head) -> bool:
    """Return whether the values are `[text, {...}]`, or objects with scores by class as `cats`."""
    values = head.values
    if head.text[:1] == "{" and head.ending == ".json":
        return _CLASSES.match(head.text) is not None and '"annotations"' in head.text
    return bool(values) and all(
        _is_pair(v) or (type(v) is dict and type(v.get("cats")) is dict) for v in values
    )


def read_spacy(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and `label` or `labels` (classes with a score from 0.5)."""
    return one_or_many(_rows, source)


def _rows(source: Source) -> Iterator[Row]:
    for row, value in _values(source):
        yield from source.attempt(row, spacy_fields, value, row.where)


def _values(source: Source) -> Iterator[tuple[Row, Any]]:
    """Yield the pairs or records of a list, of JSON lines, or of an object's `annotations`."""
    name = source.path.name.lower().removesuffix(".gz")
    has_pairs = begins_with(source, '["')
    if begins_with(source, "[") and not has_pairs:
        for item in read_json_values(source, lambda keys: not keys, "["):
            yield item.row, item.value
    elif has_pairs or name.endswith((".jsonl", ".ndjson")):
        yield from read_line_values(source)
    else:
        for item in read_json_values(source, lambda keys: keys in ((), ("annotations",)), "{"):
            if item.keys == ("annotations", "") and item.value is not None:
                yield item.row, item.value


def spacy_fields(value: Any, where: str) -> dict[str, Any]:
    """Return the fields of one text: `text`, `entities`, and `labels` from `cats`.

    Args:
        value: a list of the text and its annotations, or an object.
        where: its place.

    Raises:
        DataError: it is something else.
    """
    if _is_pair(value):
        value = {**value[1], "text": value[0]}
    if not isinstance(value, Mapping):
        raise DataError(
            f"the record is {shorten(value)}",
            where=where,
            expected='[text, {"entities": [[0, 4, "PER"]]}], or an object with `text` and `cats`',
        )
    fields = dict(value)
    spans, cats = fields.pop("entities", None), fields.pop("cats", None)
    if spans is not None:
        spans = as_list(spans, "entities", where)
        fields["entities"] = [_span(item, where) for item in spans]
    if cats:
        fields["labels"] = _classes(cats, where)
    return fields


def _is_pair(value: Any) -> bool:
    return type(value) is list and [*map(type, value)] == [str, dict]


def _span(item: Any, where: str) -> dict[str, Any]:
    if type(item) is dict and item.keys() >= {"start", "end", "label"}:
        return item
    if type(item) is list and len(item) in (3, 4):
        return entity(*item[:3])
    raise DataError(
        f"an entity is {shorten(item)}", where=where, expected='a list such as [0, 4, "PER"]'
    )


def _classes(cats: Any, where: str) -> list[str]:
    if type(cats) is list:
        return cats
    if type(cats) is dict and all(type(score) in (int, float, bool) for score in cats.values()):
        return [name for name, score in cats.items() if score >= _HALF]
    raise DataError(
        f"`cats` is {shorten(cats)}", where=where, expected='scores such as {"POS": 1.0}'
    )
