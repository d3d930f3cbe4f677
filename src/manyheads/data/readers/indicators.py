"""Tables with a column of 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Iterator

from manyheads.data.readers.delimited import read_cells, read_records
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, listing

_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True}
_NOT_KNOWN = "-1"


def read_indicators(source: Source) -> Iterator[Row]:
    """Yield a row's fields with, as `labels`, the names of the columns that have a 1.

    The columns of labels are those that hold 0 and 1 alone in every row, and -1 where nothing is
    known, which makes a row without labels.

    Raises:
        DataError: there is no such column.
    """
    delimiter = "\t" if source.path.name.lower().endswith((".tsv", ".tsv.gz")) else ","
    columns = _columns(source, delimiter)
    for row in read_cells(source, delimiter):
        values = [row.fields.get(name) for name in columns]
        fields = {name: value for name, value in row.fields.items() if name not in columns}
        fields["labels"] = (
            None
            if _NOT_KNOWN in values
            else [name for name, value in zip(columns, values, strict=True) if _VALUES[str(value)]]
        )
        yield Row(row.source, row.line, row.unit, fields)


def _columns(source: Source, delimiter: str) -> list[str]:
    quiet = source.quiet()
    records = read_records(quiet, delimiter)
    header = next((cells for _, cells in records), [])
    named = set(source.layout.names)
    open_columns = {i: cell for i, cell in enumerate(header) if cell not in named}
    ones: set[int] = set()
    for _, cells in records:
        if len(cells) != len(header):
            continue
        for i in [i for i in open_columns if cells[i] not in (*_VALUES, _NOT_KNOWN)]:
            del open_columns[i]
        ones.update(i for i in open_columns if _VALUES.get(cells[i]))
    names = [name.strip() for i, name in open_columns.items() if i in ones]
    if not names:
        raise DataError(
            f"no column holds 0 and 1 alone: {listing(header)}",
            where=source.name,
            expected="a column of 0 and 1 for each label",
        )
    return [source.layout.names.get(name, name) for name in names]
