"""Parquet tables, through pyarrow where it is installed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.class_names import stored_names, with_names
from manyheads.data.readers.optional import optional_module
from manyheads.data.readers.parquet_footer import column_sizes
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, at, counted, shorten

_BATCH_ROWS = 256
_RATIO, _SMALL = 1000, 2**26


def unpacks_too_far(packed: int, unpacked: int) -> bool:
    """Return whether compressed data expand to more bytes than texts plausibly do."""
    return unpacked > _SMALL and unpacked > _RATIO * packed


def read_parquet(source: Source) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1.

    Class names that the `datasets` library stored in the file replace its indices. Texts stay
    dictionary-encoded, each distinct one once, until their rows are made: a small file can repeat
    a text any number of times.

    Raises:
        DataError: pyarrow is not installed, or cannot read the file.
    """
    arrow = optional_module("pyarrow", "reading Parquet", source.name)
    optional_module("pyarrow.compute", "reading Parquet", source.name)
    parquet = optional_module("pyarrow.parquet", "reading Parquet", source.name)
    # ArrowException's subclasses, and what to_pylist raises for texts that are not UTF-8.
    return _rows(source, arrow, parquet, (arrow.ArrowException, OSError, ValueError))


def _rows(
    source: Source, arrow: Any, parquet: Any, failures: tuple[type[Exception], ...]
) -> Iterator[Row]:
    number = 0
    try:
        with parquet.ParquetFile(source.path) as file:
            names = stored_names(file.schema_arrow.metadata)
            rows = _rows_at_once(source)
            texts = _text_columns(file.schema)
        with parquet.ParquetFile(source.path, read_dictionary=texts) as file:
            for batch in _batches(file, rows):
                step = _rows_of(batch, arrow, source, number + 1)
                for start in range(0, batch.num_rows, step):
                    for fields in batch.slice(start, step).to_pylist():
                        number += 1
                        row = Row(source.name, number, "row", {})
                        yield from source.attempt(row, with_names, fields, names, row.where)
    except failures as error:
        raise DataError(
            f"not a sound Parquet file after {counted(number, 'row')} ({shorten(str(error), 200)})",
            where=source.name,
            fix="Write the file again.",
        ) from error


def _batches(file: Any, rows: int) -> Iterator[Any]:
    # A batch of several row groups would have a dictionary for each, and pyarrow cannot make lists
    # and structures of texts from those.
    for group in range(file.num_row_groups):
        yield from file.iter_batches(batch_size=rows, row_groups=[group])


def _text_columns(schema: Any) -> list[str]:
    columns = map(schema.column, range(len(schema)))
    return [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]


def _rows_at_once(source: Source) -> int:
    """Return how many rows to decode at once, according to the sizes that the file states.

    Raises:
        DataError: rows are larger than a record may be, or the file expands too far.
        ValueError: its footer is damaged.
    """
    largest = 1
    for column in column_sizes(source.path):
        share = (column.unpacked + 8 * column.values) // max(column.rows, 1)
        if share > source.limit or unpacks_too_far(column.packed, column.unpacked):
            raise DataError(
                f"the column {shorten(column.name)} unpacks from {column.packed:,} to "
                f"{column.unpacked:,} bytes in {counted(column.rows, 'row')}",
                where=source.name,
                expected=f"rows of at most {source.limit:,} bytes",
                fix="Split the records, or write them as JSON lines.",
            )
        largest = max(largest, share)
    return max(1, min(_BATCH_ROWS, source.limit // largest))


def _rows_of(batch: Any, arrow: Any, source: Source, first: int) -> int:
    """Return how many rows of a batch to convert at once, according to its longest text.

    Raises:
        DataError: a text is longer than a record may be.
    """
    longest = 1
    for column in batch.columns:
        while arrow.types.is_list(column.type) or arrow.types.is_large_list(column.type):
            column = column.values
        if arrow.types.is_dictionary(column.type):
            lengths = arrow.compute.binary_length(column.dictionary)
            longest = max(longest, arrow.compute.max(lengths).as_py() or 1)
    if longest > source.limit:
        raise DataError(
            f"a text of {longest:,} bytes",
            where=f"{at(source.name, first, 'row')} or one of the next {batch.num_rows - 1}",
            expected=f"at most {source.limit:,}",
            fix="Split the record.",
        )
    return max(1, min(_BATCH_ROWS, source.limit // longest))
