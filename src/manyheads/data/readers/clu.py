"""CLU of Azure AI Language: a project whose `assets` have `utterances`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from manyheads.data.readers.annotated import entity, from_utf16
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import JsonValue, read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.splits import chosen_splits
from manyheads.errors import DataError, shorten

_UNIT = ("stringIndexType",)
_UTTERANCES = ("assets", "utterances")
_UTF16 = "Utf16CodeUnit"


def is_clu(head: Head) -> bool:
    """Return whether an object is a project with assets."""
    return head.text[:1] == "{" and '"projectFileVersion"' in head.text and '"assets"' in head.text


def read_clu(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the intent as `label`, of the chosen data sets.

    Raises:
        DataError: the file has utterances for training and for testing, and neither is chosen.
    """
    is_utf16 = _counts_utf16(source.quiet())
    wanted = chosen_splits(source, map(_dataset, _utterances(source.quiet())))
    for item in _utterances(source):
        if _dataset(item) in wanted:
            row = item.row
            yield from source.attempt(row, _fields, item.value, is_utf16, row.where)


def _utterances(source: Source) -> Iterator[JsonValue]:
    return (item for item in _values(source) if item.keys == (*_UTTERANCES, ""))


def _dataset(item: JsonValue) -> str:
    """Return whether an utterance is for training, as by default, or for testing."""
    return str(item.row.fields.get("dataset") or "Train")


def _values(source: Source) -> Iterator[JsonValue]:
    return read_json_values(source, lambda keys: keys == _UTTERANCES[: len(keys)], "{")


def _counts_utf16(source: Source) -> bool:
    """Return whether positions are in UTF-16 units; the unit may stand after the utterances."""
    # Broken JSON is reported by the second reading.
    with suppress(DataError):
        return next((v.value for v in _values(source) if v.keys == _UNIT), _UTF16) == _UTF16
    return True


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
