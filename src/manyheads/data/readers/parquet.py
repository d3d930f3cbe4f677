"""Parquet tables, through pyarrow where it is installed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from manyheads.data.readers.class_names import class_names, with_names
from manyheads.data.readers.optional import optional_module
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, at, shorten

_BATCH_ROWS = 256


def read_parquet(source: Source) -> Iterator[Row]:
    """Yield the rows of a Parquet file, numbered from 1.

    Class names that the `datasets` library left in the file replace its indices.

    Raises:
        DataError: pyarrow is not installed, or cannot read the file.
    """
    arrow = optional_module("pyarrow", "reading Parquet", source.name)
    parquet = optional_module("pyarrow.parquet", "reading Parquet", source.name)
    # ArrowException's kinds, and what to_pylist says of texts that are not UTF-8.
    return _rows(source, parquet, (arrow.ArrowException, OSError, ValueError))


def _rows(source: Source, parquet: Any, failures: tuple[type[Exception], ...]) -> Iterator[Row]:
    number = 0
    try:
        with parquet.ParquetFile(source.path) as file:
            names = _stored_names(file.schema_arrow.metadata)
            for batch in file.iter_batches(batch_size=_BATCH_ROWS):
                for fields in batch.to_pylist():
                    number += 1
                    try:
                        with_names(fields, names, at(source.name, number, "row"))
                    except DataError as error:
                        source.refuse(error)
                    else:
                        yield Row(source.name, number, "row", fields)
    except failures as error:
        raise DataError(
            f"not a sound Parquet file after {number} rows ({shorten(str(error), 200)})",
            where=source.name,
            fix="Write the file anew.",
        ) from error


def _stored_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """Return the class names that the `datasets` library keeps in a table's metadata."""
    try:
        stored: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
        features = stored["info"]["features"]
    except (ValueError, RecursionError, TypeError, KeyError):
        return {}
    return class_names(features) if isinstance(features, dict) else {}
