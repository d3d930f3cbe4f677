"""Snips: JSON objects of utterances in pieces, by intent."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.annotated import from_pieces
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import Keys, read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

_BY_INTENT = re.compile(r'\{\s*"[^"]+"\s*:\s*\[\s*\{\s*"data"\s*:\s*\[\s*\{\s*"text"')
_DATASET = re.compile(r'"utterances"\s*:\s*\[\s*(?:\]|\{\s*"data"\s*:)')


def is_snips(head: Head) -> bool:
    """Return whether an object has utterances in pieces below the names of intents."""
    return _BY_INTENT.match(head.text) is not None or (
        '"intents"' in head.text and _DATASET.search(head.text) is not None
    )


def read_snips(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`.

    Both layouts are read: the benchmark's, with intents as keys, and the library's, with `intents`
    and `entities`. The latter are values without sentences, and are counted as unread.
    """
    for item in read_json_values(source, _enter, "{"):
        keys, row = item.keys, item.row
        if len(keys) == 2 and keys[1] == "":
            intent = keys[0]
        elif len(keys) == 4 and keys[0] == "intents" and keys[2:] == ("utterances", ""):
            intent = keys[1]
        else:
            if keys[:1] == ("entities",):
                source.pass_over("lists of an entity's values")
            continue
        yield from source.attempt(row, _fields, item.value, intent, row.where)


def _enter(keys: Keys) -> bool:
    if keys[:1] == ("intents",):
        return len(keys) < 3 or keys[2:] == ("utterances",)
    # An intent's list, but not the values inside its utterances.
    return not keys or (len(keys) == 1 and keys[0] != "entities")


def _fields(value: Any, intent: str, where: str) -> dict[str, Any]:
    pieces = value.get("data") if type(value) is dict else None
    if type(pieces) is not list or not all(
        type(piece) is dict and type(piece.get("text")) is str for piece in pieces
    ):
        raise DataError(
            f"the utterance is {shorten(value)}",
            where=where,
            expected="pieces: a list `data` of objects with `text` and, for entities, `entity`",
        )
    found = from_pieces((p["text"], p.get("slot_name", p.get("entity"))) for p in pieces)
    return {**found, "label": intent}
