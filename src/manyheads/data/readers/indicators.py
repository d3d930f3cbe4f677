"""Tables with a column of 0 and 1 for each label."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from manyheads.data.readers.delimited import read_cells, read_records
from manyheads.data.readers.head import HEAD_BYTES, Head
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.table import TEXT_COLUMNS
from manyheads.errors import DataError, listing

_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True}
_NOT_KNOWN = "-1"
_NUMBERING = re.compile(r"(?i)((.*_)?(id|index|idx))?")
"""Names of columns that number the records; pandas writes such a column without a name."""


def is_indicators(head: Head) -> bool:
    """Return whether several columns hold only 0 and 1, and one other column holds texts.

    A table with a column named `text` or `tokens` does not count: each of its columns of 0 and 1
    may be a task of its own.
    """
    end = -1 if len(head.data) >= HEAD_BYTES else None
    delimiter = "\t" if head.ending == ".tsv" else ","
    try:
        # The last record may be cut off.
        records = list(csv.reader(head.text.splitlines(True), delimiter=delimiter))[:end]
    except csv.Error:
        return False
    header = [cell.strip() for cell in records[0]] if records else []
    if {*header, *head.layout.names.values()} & set(TEXT_COLUMNS) or head.layout.numbered:
        return False
    columns, ones = _open_columns(header, records[1:], head.layout.names)
    labels = [name for i, name in columns.items() if i in ones and not _NUMBERING.fullmatch(name)]
    return len(labels) > 1 and _text_column(header, records[1:], columns) is not None


def read_indicators(source: Source) -> Iterator[Row]:
    """Yield a row's fields, and as `labels` the names of the columns that have a 1.

    The columns of labels are those that hold only 0, 1 and -1. One without a 1 gives no class, and
    is passed over. A row with a -1, which stands for an unknown value, has no labels.

    Raises:
        DataError: there is no such column.
    """
    delimiter = "\t" if source.path.name.lower().endswith((".tsv", ".tsv.gz")) else ","
    columns, without_one, text = _columns(source, delimiter)
    if without_one:
        what = f"columns of 0 and 1 that have no 1, and so give no class: {listing(without_one)}"
        source.pass_over(what, len(without_one))
    left_out = {*columns, *without_one}
    if text is not None:
        names = {**source.layout.names, text: "text"}
        source = replace(source, layout=replace(source.layout, names=names))
    for row in read_cells(source, delimiter):
        values = [row.fields.get(name) for name in columns]
        fields = {name: value for name, value in row.fields.items() if name not in left_out}
        fields["labels"] = (
            None
            if _NOT_KNOWN in values
            else [name for name, value in zip(columns, values, strict=True) if _VALUES[str(value)]]
        )
        yield Row(row.source, row.line, row.unit, fields)


def _columns(source: Source, delimiter: str) -> tuple[list[str], list[str], str | None]:
    """Return the columns of labels, those without a 1, and the text's if no column has its name."""
    records = (cells for _, cells in read_records(source.quiet(), delimiter))
    header = next(records, [])
    names = source.layout.names
    open_columns, ones = _open_columns(header, records, names)
    named = {
        i: names.get(name.strip(), name.strip())
        for i, name in open_columns.items()
        if not _NUMBERING.fullmatch(name.strip())
    }
    labels = [name for i, name in named.items() if i in ones]
    if not labels:
        raise DataError(
            f"no column holds only 0 and 1: {listing(header)}",
            where=source.name,
            expected="a column of 0 and 1 for each label",
        )
    text = None
    if not {*(name.strip() for name in header), *names.values()} & set(TEXT_COLUMNS):
        again = (cells for _, cells in read_records(source.quiet(), delimiter))
        text = _text_column(next(again), again, open_columns)
    return labels, [name for i, name in named.items() if i not in ones], text


def _open_columns(
    header: list[str], records: Iterable[list[str]], named: Iterable[str]
) -> tuple[dict[int, str], set[int]]:
    """Return the columns with no other values than 0, 1 and -1, and those that have a 1."""
    taken = set(named)
    columns = {i: cell for i, cell in enumerate(header) if cell not in taken}
    ones: set[int] = set()
    for cells in records:
        if len(cells) != len(header):
            continue
        for i in [i for i in columns if cells[i] not in (*_VALUES, _NOT_KNOWN)]:
            del columns[i]
        ones.update(i for i in columns if _VALUES.get(cells[i]))
    return columns, ones


def _text_column(
    header: list[str], records: Iterable[list[str]], others: Mapping[int, str]
) -> str | None:
    """Return the only column beside the others and numberings, if it has cells of several words."""
    rest = [
        i for i, name in enumerate(header)
        if i not in others and not _NUMBERING.fullmatch(name.strip())
    ]  # fmt: skip
    if len(rest) != 1:
        return None
    words = any(len(cells[rest[0]].split()) > 1 for cells in records if len(cells) == len(header))
    return header[rest[0]].strip() if words else None
