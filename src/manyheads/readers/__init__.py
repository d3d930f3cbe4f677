"""Readers: records out of files of every format, streamed, with errors that name the place.

One module a format. `read_rows` is the door; a format is added as a module with one function
from a `Source` to rows, and a line in `formats.FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from manyheads.errors import DataError
from manyheads.readers.formats import FORMATS, format_named, format_of
from manyheads.readers.hub import is_dataset_name
from manyheads.readers.row import MAX_RECORD_BYTES, Row, Source

__all__ = ["FORMATS", "MAX_RECORD_BYTES", "Row", "is_dataset_name", "read_rows"]


def read_rows(
    path: str | os.PathLike[str],
    *,
    format: str | None = None,
    limit_bytes: int = MAX_RECORD_BYTES,
    on_error: Callable[[DataError], None] | None = None,
) -> Iterator[Row]:
    """Stream the records of a file, a folder or a named data set, in order.

    Args:
        path: a file or folder, or `datasets:NAME[:CONFIG][@SPLIT]`.
        format: a name from `FORMATS`; by default the path's content and ending say it.
        limit_bytes: the largest record that is read; what is held in memory follows from it.
        on_error: takes the errors of single records where the others can still be read;
            without it, the first error is raised.

    Raises:
        DataError: something cannot be read, or there is not a single record.
    """
    name = os.fspath(path)
    source = Source(Path(name), name, limit_bytes, on_error)
    if format is not None:
        chosen = format_named(format)
    elif is_dataset_name(name):
        chosen = FORMATS["datasets"]
    else:
        chosen = format_of(source.path, name)
    return _rows(source, chosen.read)


def _rows(source: Source, read: Callable[[Source], Iterator[Row]]) -> Iterator[Row]:
    found = False
    inner = source.on_error

    def note(error: DataError) -> None:
        nonlocal found
        found = True
        if inner is not None:
            inner(error)

    for row in read(replace(source, on_error=note) if inner else source):
        found = True
        yield row
    if not found:
        raise DataError("there is no record in it", where=source.name, expected="at least one")
