"""LUIS: one JSON object with `utterances`.

Entities end at their last character, and positions count UTF-16 units, as in C#.
"""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.annotated import from_example
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_values
from manyheads.data.readers.row import Row, Source

_ENTERED = ((), ("utterances",), ("patterns",))


def is_luis(head: Head) -> bool:
    """Return whether an object names LUIS's schema."""
    return head.text[:1] == "{" and '"luis_schema_version"' in head.text


def read_luis(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`.

    Parts of entities and patterns are counted as unread, and so are roles of entities unless the
    layout joins them to the types.
    """
    for item in read_json_values(source, lambda keys: keys in _ENTERED, "{"):
        if item.keys == ("utterances", ""):
            for row in source.attempt(
                item.row, from_example, item.value, source, item.row.where, "startPos", "endPos", 1,
                True,
            ):  # fmt: skip
                for entity in item.value.get("entities") or ():
                    children = entity.get("children")
                    count = len(children) if type(children) is list else 0
                    source.pass_over("parts of entities", count)
                yield row
        elif item.keys == ("patterns", ""):
            source.pass_over("patterns")
