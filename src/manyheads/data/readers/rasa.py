"""Rasa's markup of entities in sentences, shared by its YAML and Markdown formats."""

from __future__ import annotations

import json
import re
from typing import Any

from manyheads.data.readers.annotated import entity_type, from_pieces
from manyheads.data.readers.row import Source
from manyheads.errors import DataError, shorten

OWN_VALUES = "values of entities that differ from their texts"
_ENTITY = re.compile(r"\[([^\[\]]+)\](?:\(([^()]+)\)|(\{[^{}]*\}|\[\s*\{[^\[\]]*\}\s*\]))")


def rasa_example(text: str, intent: str, source: Source, where: str) -> dict[str, Any]:
    """Convert `fly to [Oslo](city)` or `[NYC]{"entity": "city"}` to text, entities and label.

    Attributes may also be a list of one entity. Its role and group belong to its type if the layout
    joins them, and are counted as unread otherwise, as a value other than its text is.

    Raises:
        DataError: the text in braces is not JSON with an `entity`, there are several entities, or
            a role or group cannot be joined.
    """
    pieces: list[tuple[str, str | None]] = []
    position = 0
    for match in _ENTITY.finditer(text):
        words, name, attributes = match.groups()
        if attributes is not None:
            values = _attributes(attributes, where)
            name = entity_type(values["entity"], values, source, where)
            value = values.get("value")
            other = values.keys() - {"entity", "value", "role", "group"}
            source.pass_over("other attributes of entities", bool(other))
        else:
            name, _, value = name.partition(":")
        source.pass_over(OWN_VALUES, is_own_value(value, words))
        pieces += [(text[position : match.start()], None), (words, name.strip())]
        position = match.end()
    return {**from_pieces([*pieces, (text[position:], None)]), "label": intent}


def is_own_value(value: Any, words: str) -> bool:
    """Return whether an entity has a value, and another one than its words."""
    return value not in (None, "") and str(value).strip() != words.strip()


def _attributes(text: str, where: str) -> dict[str, Any]:
    try:
        values = json.loads(text)
    except ValueError:
        values = None
    if type(values) is list and len(values) == 1:
        values = values[0]
    if type(values) is dict and type(values.get("entity")) is str:
        return values
    raise DataError(
        f"an entity has {shorten(text)}", where=where, expected='one {"entity": "city"}, as JSON'
    )
