"""Rasa's JSON: `rasa_nlu_data` with `common_examples`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.annotated import entity
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

_ROOT = "rasa_nlu_data"
_EXAMPLES = ("common_examples", "intent_examples", "entity_examples")


def is_rasa_json(head: Head) -> bool:
    """Return whether an object has Rasa's data."""
    return head.text[:1] == "{" and f'"{_ROOT}"' in head.text[:1000]


def read_rasa_json(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`; other sections are counted as unread."""
    for item in read_json_values(
        source,
        lambda keys: keys in ((), (_ROOT,)) or (keys[:1] == (_ROOT,) and len(keys) == 2),
        "{",
    ):
        keys, row = item.keys, item.row
        if len(keys) != 3 or keys[1] not in _EXAMPLES:
            if len(keys) > 1:
                source.pass_over(f"entries of `{keys[1]}`")
            continue
        try:
            fields = _fields(item.value, row.where)
        except DataError as error:
            source.refuse(error)
        else:
            yield Row(row.source, row.line, row.unit, fields, row.record)


def _fields(value: Any, where: str) -> dict[str, Any]:
    try:
        entities = value.get("entities")
        fields = {"text": value["text"], "label": value.get("intent")}
        if entities is not None:
            fields["entities"] = [entity(e["start"], e["end"], e["entity"]) for e in entities]
        return fields
    except (TypeError, KeyError, AttributeError):
        raise DataError(
            f"the example is {shorten(value)}",
            where=where,
            expected="an object with text, intent, and entities of start, end and entity",
        ) from None
