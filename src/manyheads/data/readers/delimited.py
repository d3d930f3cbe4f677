"""CSV and TSV with a header; scored pairs of sentences may lack one."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.table import table_rows
from manyheads.data.readers.text_lines import Line, read_lines
from manyheads.errors import DataError, at

SEPARATOR = re.compile(r'(?i)"?sep=([^\r\n"])"?(?:\r?\n|\Z)')
"""The line before the header by which Excel learns what separates the cells."""
_QUOTED = re.compile(r'"((?:[^"]|"")*)"', re.DOTALL)


def read_csv(source: Source) -> Iterator[Row]:
    """Yield the rows of a file with commas between its cells."""
    return read_cells(source, ",")


def read_semicolons(source: Source) -> Iterator[Row]:
    """Yield the rows of a file with semicolons between its cells, quoted as in CSV."""
    return read_cells(source, ";")


def read_tsv(source: Source) -> Iterator[Row]:
    """Yield the rows of a file with tabs between its cells, quoted or not (see `_TsvRecords`)."""
    return read_cells(source, "\t")


def read_cells(source: Source, delimiter: str) -> Iterator[Row]:
    """Yield the rows of a delimited file, its columns named by the header or the layout."""
    return table_rows(source, read_records(source, delimiter), "line")


def read_records(source: Source, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the cells of each record, the header included, with its first line's number.

    A line such as `sep=;` before the header is no record, and states the delimiter.

    Raises:
        DataError: the first record is broken; the errors of later ones go to the source.
    """
    lines = _CountedLines(source)
    first = lines.peek()
    if isinstance(first, str) and (stated := SEPARATOR.fullmatch(first)):
        delimiter = stated[1]
        next(lines)
    # This limit is the whole process's, and low: it is raised and never lowered.
    csv.field_size_limit(max(csv.field_size_limit(), source.limit))
    reader = (
        _TsvRecords(lines)
        if delimiter == "\t"
        else csv.reader(
            lines, delimiter=delimiter, strict=True,
            skipinitialspace=_is_spaced(lines.peek(), delimiter),
        )
    )  # fmt: skip
    begun = False
    while True:
        line = lines.begin()
        try:
            cells = next(reader)
            # A row without any value, as spreadsheets write, is like a blank line; but below the
            # header, predictions have an answer to every row.
            keeps_all = source.keeps_empty_rows and (begun or source.layout.numbered)
            if cells and (len(cells) == 1 or any(cells) or keeps_all):
                begun = True
                yield line, cells
        except StopIteration:
            return
        except csv.Error as error:
            problem = DataError(
                f"broken CSV: {error}",
                where=at(source.name, line),
                expected='cells that contain quotes to be quoted, with each quote doubled ("")',
            )
            if not begun:
                raise problem from None
            source.refuse(problem)
        except DataError as problem:
            if not begun:
                raise
            source.refuse(problem)


def _is_spaced(header: Line | None, delimiter: str) -> bool:
    """Return whether a space follows every delimiter of the header, and so is part of no cell."""
    cells = header.split(delimiter)[1:] if isinstance(header, str) else []
    return bool(cells) and all(cell[:1] == " " for cell in cells)


class _CountedLines(Iterator[str]):
    """Lines for the csv module, which collects a record until its quotes close; limited here."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lines: Iterator[Line] = read_lines(source, keep_ends=True)
        self._ahead: list[Line] = []
        self._number = 0
        self._first = 1
        self._size = 0

    def begin(self) -> int:
        """Begin a record; return its first line."""
        self._first, self._size = self._number + 1, 0
        return self._first

    def peek(self) -> Line | None:
        """Return the line that comes next, or None at the end of the file."""
        if not self._ahead:
            self._ahead = [line for line in (next(self._lines, None),) if line is not None]
        return self._ahead[0] if self._ahead else None

    def __next__(self) -> str:
        line = self._ahead.pop() if self._ahead else next(self._lines)
        self._number += 1
        if isinstance(line, DataError):
            raise line
        self._size += len(line)
        if self._size > self._source.limit:
            raise self._source.too_large(self._first)
        return line


class _TsvRecords(Iterator[list[str]]):
    """Records of TSV, which some tools quote like CSV and others do not quote at all.

    Quotes around a cell are removed. A cell that begins with a quote and does not end with one is
    ordinary text if this line and the next have as many cells as the header; otherwise it continues
    over tabs or line breaks to the closing quote.
    """

    def __init__(self, lines: _CountedLines) -> None:
        self._lines = lines
        self._width: int | None = None

    def __next__(self) -> list[str]:
        line = next(self._lines)
        content = line.removesuffix("\n").removesuffix("\r")
        cells = content.split("\t") if content else []
        if self._is_quoted(cells):
            cells = next(csv.reader(_joined(line, self._lines), delimiter="\t", strict=True))
        else:
            cells = list(map(_unquoted, cells))
        if self._width is None and cells:
            self._width = len(cells)
        return cells

    def _is_quoted(self, cells: Sequence[str]) -> bool:
        """Return whether a cell's quotes enclose tabs or line breaks."""
        if not any(cell[:1] == '"' and not _QUOTED.fullmatch(cell) for cell in cells):
            return False
        following = self._lines.peek()
        is_alike = not isinstance(following, str) or following.count("\t") + 1 == self._width
        return len(cells) != self._width or not is_alike


def _joined(line: str, more: Iterator[str]) -> Iterator[str]:
    yield line
    yield from more


def _unquoted(cell: str) -> str:
    match = _QUOTED.fullmatch(cell) if cell[:1] == '"' else None
    if match is not None:
        return match.group(1).replace('""', '"')
    if "\r" in cell:
        raise csv.Error("a carriage return in a cell without quotes")
    return cell
