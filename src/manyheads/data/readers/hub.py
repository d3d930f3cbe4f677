"""Data sets of the `datasets` library, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from manyheads.data.readers.class_names import Names, class_names, with_names
from manyheads.data.readers.optional import optional_module
from manyheads.data.readers.row import Row, Source
from manyheads.errors import DataError, listing, nearest, shorten

PREFIX = "datasets:"
_NAME = re.compile(r"datasets:(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<split>[^:@]+))?")


def is_dataset_name(path: str) -> bool:
    """Return whether a path names a data set of the `datasets` library."""
    return path.startswith(PREFIX)


def read_dataset(source: Source) -> Iterator[Row]:
    """Stream a split of a data set: `datasets:NAME`, `datasets:NAME:CONFIG@SPLIT`.

    NAME is a name on the hub (`owner/name`) or a folder. The split may be omitted if there is only
    one. Class names replace class indices.

    Raises:
        DataError: `datasets` is not installed, or cannot find or read the data set.
    """
    match = _NAME.fullmatch(source.name)
    if match is None:
        raise DataError(
            f"{source.name!r} does not name a data set",
            expected="datasets:NAME, datasets:NAME:CONFIG or datasets:NAME:CONFIG@SPLIT",
        )
    split = _open(source.name, match["name"], match["config"], match["split"])
    names = class_names(split.features.to_dict()) if split.features else {}
    return _rows(source, iter(split), names)


def _rows(
    source: Source, rows: Iterator[Mapping[str, Any]], names: Mapping[str, Names]
) -> Iterator[Row]:
    number = 0
    while True:
        number += 1
        try:
            fields = dict(next(rows))
        except StopIteration:
            return
        # The library documents no common base class of its errors.
        except Exception as error:
            raise _failed(source.name, f"stopped before record {number}", error) from error
        row = Row(source.name, number, "record", {})
        yield from source.attempt(row, with_names, fields, names, row.where)


def _open(where: str, name: str, config: str | None, split: str | None) -> Any:
    datasets = optional_module("datasets", "reading a data set by name", where)
    # Older versions run a data set's own Python code.
    if int(datasets.__version__.split(".")[0]) < 4:
        raise DataError(
            f"the datasets library is of version {datasets.__version__}",
            where=where,
            expected="version 4 or newer, which runs no code of a data set",
            fix="Run: pip install -U datasets",
        )
    try:
        splits = datasets.load_dataset(name, config, streaming=True)
    except Exception as error:
        raise _failed(where, "the data set cannot be opened", error) from error
    if split is None and len(splits) == 1:
        return next(iter(splits.values()))
    if split not in splits:
        found = f"no split {split!r}{nearest(split, splits)}" if split else "several splits"
        raise DataError(
            found,
            where=where,
            expected=f"one of: {listing(splits)}",
            fix=f"Write {where.split('@')[0]}@SPLIT.",
        )
    return splits[split]


def _failed(where: str, what: str, error: Exception) -> DataError:
    return DataError(
        f"{what} ({type(error).__name__}: {shorten(str(error), 300)})",
        where=where,
        fix="Check the name and the connection; offline, only what is on this machine is found.",
    )
