"""JSON lines: one object a line."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.json_values import SPACE, parse_object
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import read_lines
from manyheads.errors import DataError, at


def read_json_lines(source: Source) -> Iterator[Row]:
    """Yield the objects of a JSON lines file; blank lines are skipped."""
    name = source.name
    for number, line in enumerate(read_lines(source), 1):
        if isinstance(line, DataError):
            source.refuse(line)
            continue
        if not line.strip(SPACE):
            continue
        try:
            fields = parse_object(line, at(name, number))
        except DataError as error:
            source.refuse(error)
            continue
        yield Row(name, number, "line", fields)
