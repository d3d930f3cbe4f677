"""CLU of Azure AI Language: a project whose `assets` have `utterances`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from manyheads.data.readers.annotated import entity, from_utf16
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

_UTTERANCES = ("assets", "utterances")
_UTF16 = "Utf16CodeUnit"


def is_clu(head: Head) -> bool:
    """Return whether an object is a project with assets."""
    return head.text[:1] == "{" and '"projectFileVersion"' in head.text and '"assets"' in head.text


def read_clu(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`."""
    unit = _UTF16
    for item in read_json_values(source, lambda keys: keys == _UTTERANCES[: len(keys)], "{"):
        if item.keys == ("stringIndexType",):
            unit = item.value
        elif item.keys == (*_UTTERANCES, ""):
            row = item.row
            yield from source.attempt(row, _fields, item.value, unit == _UTF16, row.where)


def _fields(value: Any, is_utf16: bool, where: str) -> dict[str, Any]:
    try:
        text = value["text"]
        convert = from_utf16(text) if is_utf16 else lambda position: position
        entities = [_entity(item, convert) for item in value.get("entities") or ()]
        return {"text": text, "label": value.get("intent"), "entities": entities}
    except (TypeError, KeyError, AttributeError):
        raise DataError(
            f"the utterance is {shorten(value)}",
            where=where,
            expected="an object with text, intent, and entities of category, offset and length",
        ) from None


def _entity(item: Any, convert: Callable[[int], int]) -> dict[str, Any]:
    """Return an entity by characters, given the conversion of the file's positions to them."""
    start, end = item["offset"], item["offset"] + item["length"]
    return entity(convert(start), convert(end), item["category"])
