"""CLU of Azure AI Language: a project whose `assets` have `utterances`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.annotated import entity
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
        units = text.encode("utf-16-le", "surrogatepass") if is_utf16 else None
        entities = [_entity(item, units) for item in value.get("entities") or ()]
        return {"text": text, "label": value.get("intent"), "entities": entities}
    except (TypeError, KeyError, AttributeError):
        raise DataError(
            f"the utterance is {shorten(value)}",
            where=where,
            expected="an object with text, intent, and entities of category, offset and length",
        ) from None


def _entity(item: Any, units: bytes | None) -> dict[str, Any]:
    """Return an entity by characters; the file may count the UTF-16 units of its text."""
    start, end = item["offset"], item["offset"] + item["length"]
    if units is not None:
        start, end = (len(units[: 2 * n].decode("utf-16-le", "replace")) for n in (start, end))
    return entity(start, end, item["category"])
