"""CSV and TSV with a header; scored pairs of sentences also without one."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from typing import Any

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import Line, read_lines
from manyheads.errors import DataError, at, listing, nearest, shorten

TEXT_COLUMNS = ("text", "tokens")

PAIR_COLUMNS = ("text", "text2", "score")
"""The columns of a file that has no header and begins with a pair of texts and a number, as the STS
benchmark does."""


def read_csv(source: Source) -> Iterator[Row]:
    """Yield the rows of a file with commas between its cells."""
    return _read_delimited(source, ",")


def read_tsv(source: Source) -> Iterator[Row]:
    """Yield the rows of a file with tabs between its cells, quoted as in CSV."""
    return _read_delimited(source, "\t")


def _read_delimited(source: Source, delimiter: str) -> Iterator[Row]:
    """Yield a row's cells by the header's names.

    Cells are texts: `tokens` is split at white space, and an empty cell of any column but the
    text's is nothing.
    """
    lines = _CountedLines(source)
    # A limit of the whole process, and a low one: it is only ever raised.
    csv.field_size_limit(max(csv.field_size_limit(), source.limit))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] | None = None
    while True:
        line = lines.begin()
        try:
            cells = next(reader)
            if header is None and _is_pair(cells):
                header = list(PAIR_COLUMNS)
            if header is None:
                header = _header(cells, at(source.name, line), delimiter)
            elif cells:
                yield Row(source.name, line, "line", _fields(header, cells, source.name, line))
        except StopIteration:
            return
        except csv.Error as error:
            place = at(source.name, line)
            problem = DataError(
                f"broken CSV: {error}",
                where=place,
                expected='cells with quotes in them quoted, and each quote in them doubled ("")',
            )
            if header is None:
                raise problem from None
            source.refuse(problem)
        except DataError as problem:
            if header is None:
                raise
            source.refuse(problem)


class _CountedLines(Iterator[str]):
    """Lines for the csv module, which keeps a record until its quotes close: bounded here."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines: Iterator[Line] = read_lines(source, keep_ends=True)
        self._number = 0
        self._first = 1
        self._size = 0

    def begin(self) -> int:
        """Begin a record; return its first line."""
        self._first, self._size = self._number + 1, 0
        return self._first

    def __next__(self) -> str:
        line = next(self._lines)
        self._number += 1
        if isinstance(line, DataError):
            raise line
        self._size += len(line)
        if self._size > self._source.limit:
            raise self._source.too_large(self._first)
        return line


def _is_pair(cells: Sequence[str]) -> bool:
    """Tell whether a first line is no header but a scored pair: no column is called by a number."""
    if len(cells) != len(PAIR_COLUMNS) or any(cell.strip() in TEXT_COLUMNS for cell in cells):
        return False
    try:
        return math.isfinite(float(cells[2])) and bool(cells[0].strip() and cells[1].strip())
    except ValueError:
        return False


def _header(cells: Sequence[str], where: str, delimiter: str) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None or "" in names:
        what = f"the column {shorten(twice)} twice" if twice else "a column without a name"
        raise DataError(
            f"the header has {what}", where=where, expected="a name of its own for each column"
        )
    if not any(name in TEXT_COLUMNS for name in names):
        hint = next(
            (nearest(name, TEXT_COLUMNS) for name in names if nearest(name, TEXT_COLUMNS)), ""
        )
        fix = "Name the column of the text `text` in the first line."
        if len(names) == 1 and (other := next((c for c in ";\t,|" if c in names[0]), None)):
            fix = f"Cells are separated by {delimiter!r} here, not {other!r}: convert or rename it."
        raise DataError(
            f"the header has no column `text` or `tokens`, only: {listing(names)}{hint}",
            where=where,
            expected="a header with the columns' names in the first line",
            fix=fix,
        )
    return names


def _fields(header: Sequence[str], cells: Sequence[str], name: str, line: int) -> dict[str, Any]:
    if len(cells) != len(header):
        raise DataError(
            f"{len(cells)} cells, beginning with {shorten(cells[0])}",
            where=at(name, line),
            expected=f"{len(header)}, as the header has ({listing(header)})",
            fix="Quote cells that have separators or line breaks in them.",
        )
    fields: dict[str, Any] = {
        key: cell or (cell if key in ("text", "text2", "tokens") else None)
        for key, cell in zip(header, cells, strict=True)
    }
    tokens = fields.get("tokens")
    if tokens is not None:
        fields["tokens"] = tokens.split()
    return fields
