"""LUIS: one JSON object with `utterances`, whose entities end at their last character."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.annotated import from_example
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_values
from manyheads.data.readers.row import Row, Source


def is_luis(head: Head) -> bool:
    """Return whether an object names LUIS's schema."""
    return head.text[:1] == "{" and '"luis_schema_version"' in head.text


def read_luis(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`."""
    for item in read_json_values(source, lambda keys: keys in ((), ("utterances",)), "{"):
        if item.keys == ("utterances", ""):
            yield from source.attempt(
                item.row, from_example, item.value, item.row.where, "startPos", "endPos", 1
            )
