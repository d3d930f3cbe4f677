"""CLINC150: one JSON object of lists of `[text, intent]`, a list for each split."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from manyheads.data.readers.head import Head
from manyheads.data.readers.json_stream import Keys, read_json_values
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.splits import chosen_splits
from manyheads.errors import DataError, shorten

_BEGINNING = re.compile(r'\{\s*"(?:oos_)?(?:train|val|test)"\s*:\s*\[\s*\[\s*"')


def is_clinc(head: Head) -> bool:
    """Return whether an object begins with a split of pairs."""
    return _BEGINNING.match(head.text) is not None


def read_clinc(source: Source) -> Iterator[Row]:
    """Yield `text` and the intent as `label`, of the chosen splits (`FILE@train`).

    Raises:
        DataError: the file has several splits and none is chosen.
    """
    wanted = chosen_splits(source, _splits(source))
    for item in read_json_values(source, lambda keys: len(keys) < 2, "{"):
        if item.keys[0] not in wanted:
            continue
        value, row = item.value, item.row
        if type(value) is list and [*map(type, value)] == [str, str]:
            fields = {"text": value[0], "label": value[1]}
            yield Row(row.source, row.line, row.unit, fields, row.record)
        else:
            source.refuse(
                DataError(
                    f"the record is {shorten(value)}",
                    where=row.where,
                    expected='["text", "intent"]',
                )
            )


def _splits(source: Source) -> Iterable[str]:
    """Return the names of all splits, empty ones included, in a pass that holds one record."""
    names: dict[str, None] = {}

    def enter(keys: Keys) -> bool:
        names.update(dict.fromkeys(keys[:1]))
        return len(keys) < 2

    for _ in read_json_values(source.quiet(), enter, "{"):
        pass
    return names
