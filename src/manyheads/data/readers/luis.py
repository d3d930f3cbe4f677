"""LUIS: one JSON object with `utterances`, whose entities end at their last character."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.annotated import entity
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten


def is_luis(head: Head) -> bool:
    """Return whether an object names LUIS's schema."""
    return head.text[:1] == "{" and '"luis_schema_version"' in head.text


def read_luis(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`."""
    for item in read_json_values(source, lambda keys: keys in ((), ("utterances",)), "{"):
        if item.keys != ("utterances", ""):
            continue
        row = item.row
        try:
            fields = _fields(item.value, row.where)
        except DataError as error:
            source.refuse(error)
        else:
            yield Row(row.source, row.line, row.unit, fields, row.record)


def _fields(value: Any, where: str) -> dict[str, Any]:
    entities = value.get("entities") or [] if type(value) is dict else None
    try:
        return {
            "text": value["text"],
            "label": value.get("intent"),
            "entities": [entity(e["startPos"], e["endPos"] + 1, e["entity"]) for e in entities],  # type: ignore[union-attr]
        }
    except (TypeError, KeyError, AttributeError):
        raise DataError(
            f"the utterance is {shorten(value)}",
            where=where,
            expected="an object with text, intent, and entities of startPos, endPos and entity",
        ) from None
