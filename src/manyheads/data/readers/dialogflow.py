"""Dialogflow: the user's sentences of an intent, in the file `INTENT_usersays_LANGUAGE.json`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from manyheads.data.readers.annotated import from_pieces
from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import read_json_list
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, shorten

USERSAYS = "_usersays_"
_IGNORED = "@sys.ignore"
"""The type of words that are marked to be no entity."""
_NAME = re.compile(rf"(.+){USERSAYS}[A-Za-z-]+\.json")


def is_dialogflow(head: Head) -> bool:
    """Return whether the records are sentences in pieces, as Dialogflow exports them."""
    return bool(head.objects) and all({"data", "isTemplate"} <= o.keys() for o in head.objects)


def read_dialogflow(source: Source) -> Iterator[Row]:
    """Yield `text`, `entities`, and the file's intent as `label`; of a folder, all its files."""
    files = (
        sorted(source.path.glob(f"*{USERSAYS}*.json")) if source.path.is_dir() else [source.path]
    )
    for path in files:
        one = source if path == source.path else replace(source, path=path, name=str(path))
        match = _NAME.fullmatch(path.name)
        if match is None:
            raise DataError(
                f"the name {path.name!r} does not contain the intent",
                where=one.name,
                expected="INTENT_usersays_LANGUAGE.json, as Dialogflow names it",
                fix="Restore that name.",
            )
        for row in read_json_list(one):
            yield from source.attempt(row, _fields, row, match.group(1))


def _fields(row: Row, intent: str) -> dict[str, Any]:
    pieces = row.fields.get("data")
    if type(pieces) is not list or not all(
        type(piece) is dict and type(piece.get("text")) is str for piece in pieces
    ):
        raise DataError(
            f"`data` is {shorten(pieces)}",
            where=row.where,
            expected='pieces such as [{"text": "fly to "}, {"text": "Oslo", "alias": "city"}]',
        )
    found = from_pieces(
        (p["text"], None if p.get("meta") == _IGNORED else p.get("alias") or p.get("meta"))
        for p in pieces
    )
    return {**found, "label": intent}
