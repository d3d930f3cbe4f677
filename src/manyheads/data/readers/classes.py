"""Lists of classes: read as `labels` if a text has several or a task reads lists, else `label`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress

from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError


def one_or_many(read: Callable[[Source], Iterator[Row]], source: Source) -> Iterator[Row]:
    """Yield rows whose `labels` become `label` if no row of the file has more than one.

    Tools write a list of classes even if each text has one; only the whole file, or a task that
    reads lists (`Layout.lists`), shows which is meant, so the file is read twice. A text without a
    class then has no label.
    """
    if source.layout.keeps_lists("labels") or _have_several(read, source.quiet()):
        yield from read(source)
        return
    for row in read(source):
        fields = dict(row.fields)
        if "labels" in fields:
            fields["label"] = next(iter(fields.pop("labels") or ()), None)
        yield Row(row.source, row.line, row.unit, fields, row.record)


def _have_several(read: Callable[[Source], Iterator[Row]], source: Source) -> bool:
    # Broken records are reported by the second reading.
    with suppress(DataError):
        return any(len(row.fields.get("labels") or ()) > 1 for row in read(source))
    return False
