"""Readers: records out of files of every format, streamed, with errors that name the place.

One module a format. `read_rows` is the door; a format is added as a module with one function
from a `Source` to rows, and a line in `formats.FORMATS`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from manyheads.data.readers.formats import FORMATS, format_named, format_of
from manyheads.data.readers.hub import is_dataset_name
from manyheads.data.readers.row import MAX_RECORD_BYTES, Row, Source
from manyheads.errors import DataError

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
        DataError: something cannot be read, or there is not a single record. What shows before
            the first record, such as a missing file, is raised at once.
    """
    given = os.fspath(path)
    # A file's name may hold bytes that are no characters; messages show them escaped.
    name = given.encode(errors="backslashreplace").decode()
    counter = _Counter(on_error)
    source = Source(Path(given), name, limit_bytes, counter.note if on_error else None)
    if format is not None:
        chosen = format_named(format)
    elif is_dataset_name(name):
        chosen = FORMATS["datasets"]
    else:
        chosen = format_of(source.path, name)
    return counter.rows(chosen.read(source), name)


class _Counter:
    """Sees to it that a file without any record, sound or broken, is an error."""

    def __init__(self, on_error: Callable[[DataError], None] | None) -> None:
        self._on_error = on_error
        self._found = False

    def note(self, error: DataError) -> None:
        self._found = True
        if self._on_error is not None:
            self._on_error(error)

    def rows(self, rows: Iterator[Row], name: str) -> Iterator[Row]:
        for row in rows:
            self._found = True
            yield row
        if not self._found:
            raise DataError("there is no record in it", where=name, expected="at least one")
