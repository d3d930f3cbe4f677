"""Records in memory, read like a file: dicts, pairs, columns, a DataFrame, an Arrow table or a data
set.

A collection of records has a name for as long as it is needed; configurations and messages hold the
name (`records:train`) in place of a path.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from numbers import Real
from threading import Lock
from typing import Any

from manyheads.config import Config
from manyheads.data.readers.class_names import Names, class_names, stored_names, with_names
from manyheads.data.readers.classes import one_or_many
from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.spacy_json import spacy_fields
from manyheads.errors import DataError, RequestError, counted, listing, shorten

_PREFIX = "records:"
_TEXTS = ("text", "tokens")
_SETTINGS = tuple(Config.model_fields)
_ROWS = 256
_named: dict[str, Any] = {}
_lock = Lock()


def is_in_memory(path: str) -> bool:
    """Return whether a path is the name of records in memory."""
    return path.startswith(_PREFIX)


def are_records(data: object) -> bool:
    """Return whether an object is a collection of records rather than paths or a configuration."""
    if isinstance(data, str | bytes) or data is None:
        return False
    if isinstance(data, Mapping):
        return _are_columns(data)
    if _is_frame(data) or _is_arrow(data) or hasattr(data, "column_names"):
        return True
    if isinstance(data, list | tuple):
        return not data or isinstance(data[0], Mapping) or _is_pair(data[0])
    return isinstance(data, Iterator)


def have_fields(data: object) -> bool:
    """Return whether an object is a collection of records with named fields."""
    if isinstance(data, list | tuple):
        return len(data) > 0 and isinstance(data[0], Mapping)
    return are_records(data) and not isinstance(data, Iterator)


def are_splits(data: object) -> bool:
    """Return whether an object is a mapping from splits to their records, such as a DatasetDict."""
    if not isinstance(data, Mapping) or any(name in data for name in (*_TEXTS, *_SETTINGS)):
        return False
    return any(are_records(one) and not isinstance(one, Mapping) for one in data.values())


def _are_columns(data: Mapping[Any, Any]) -> bool:
    """Return whether a mapping has the values of each field, rather than a configuration's."""
    return any(name in data for name in _TEXTS) and all(map(is_column, data.values()))


def is_missing(value: object) -> bool:
    """Return whether a value stands for a missing one: None, NaN, NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    # NaN is the one number that differs from itself. numpy's own kinds of it are numbers too.
    return isinstance(value, Real) and bool(value != value)


def is_column(values: object) -> bool:
    """Return whether an object is a column of values in a mapping of columns."""
    return isinstance(values, list | tuple) or (
        hasattr(values, "tolist") and getattr(values, "ndim", 0) > 0
    )


def _is_pair(item: object) -> bool:
    """Return whether an item is a text with its label, or with annotations as spaCy has them.

    A list of two strings is no pair, since it may be a sentence of two words.
    """
    if not isinstance(item, list | tuple) or len(item) != 2 or not isinstance(item[0], str):
        return False
    return isinstance(item, tuple) or isinstance(item[1], Mapping)


@contextmanager
def in_memory(records: Any, name: str) -> Iterator[str]:
    """Give records a name under which `read_rows` can read them within the block.

    Args:
        records: dicts; pairs of a text and its class, or its annotations as spaCy has them; a dict
            of columns; a pandas or polars DataFrame; an Arrow table; or a data set of the
            `datasets` library. An iterator is kept as a list in the meantime.
        name: their name in messages.

    Raises:
        RequestError: they are something else, such as several splits, or columns that differ in
            length or have the same name.
    """
    if not are_records(records):
        raise _no_records(records)
    if isinstance(records, Mapping):
        _check_lengths(records)
    if hasattr(records, "read_all"):  # Arrow's reader of batches
        records = records.read_all()
    _check_names(records)
    kept = list(records) if isinstance(records, Iterator) else records
    with _lock:
        key = f"{_PREFIX}{name}"
        number = 2
        while key in _named:
            key, number = f"{_PREFIX}{name}-{number}", number + 1
        _named[key] = kept
    try:
        yield key
    finally:
        del _named[key]


def _no_records(found: Any) -> RequestError:
    """Make the error for an object, or the items of a list, that are no records."""
    if isinstance(found, list | tuple):
        first = found[0]
        what = f"record 1 is of the type {type(first).__name__}"
        expected = "a dict, or a pair such as (text, label)"
    else:
        first = found
        what = f"the records are of the type {type(found).__name__}"
        expected = (
            "a list of dicts or of pairs such as (text, label), a dict of columns with `text` or "
            "`tokens`, a DataFrame, an Arrow table, a Dataset, or a path"
        )
    fix = "Choose a split, such as data['train']." if are_splits(found) else ""
    if type(first).__module__.startswith("spacy."):
        fix = 'Write the docs to a file, DocBin(docs=docs).to_disk("x.spacy"), and give its path.'
    return RequestError(what, expected=expected, fix=fix)


def read_memory(source: Source) -> Iterator[Row]:
    """Yield the records of a collection, numbered from 1.

    NumPy arrays and numbers become Python lists and numbers. A missing value in a DataFrame (None,
    NaN, NA) becomes None. Class names of a data set replace its indices.

    Raises:
        DataError: the records no longer exist, or one is neither a mapping of fields nor a pair.
    """
    if source.name not in _named:
        raise DataError(
            "the records were in memory and no longer exist",
            where=source.name,
            expected="labelled data",
            fix="Pass the records again, or a file.",
        )
    records = _named[source.name]
    if isinstance(records, list | tuple) and any(_is_annotated(item) for item in records):
        yield from one_or_many(_rows, source)
    else:
        yield from _rows(source)


def _rows(source: Source) -> Iterator[Row]:
    records = _named[source.name]
    names = _class_names(records)
    for number, fields in enumerate(_items(records), 1):
        row = Row(source.name, number, "record", {})
        yield from source.attempt(row, _record, fields, names, row.where)


def _record(fields: Any, names: Mapping[str, Names], where: str) -> dict[str, Any]:
    """Return the fields of a record with plain values and class names.

    Raises:
        DataError: it is neither a mapping nor a pair, or a class index has no name.
    """
    if _is_annotated(fields):
        return spacy_fields([str(fields[0]), _plain(fields[1])], where)
    if _is_pair(fields):
        text, label = str(fields[0]), _plain(fields[1])
        return {"text": text, "labels" if isinstance(label, list) else "label": label}
    if not isinstance(fields, Mapping):
        raise DataError(
            f"{shorten(fields)} is not a record", where=where, expected="a dict, or a pair such as "
            "(text, label)",
        )  # fmt: skip
    plain = {str(key): _plain(value) for key, value in fields.items()}
    return with_names(plain, names, where)


def _is_annotated(item: object) -> bool:
    return _is_pair(item) and isinstance(item[1], Mapping)  # type: ignore[index]


def _check_lengths(columns: Mapping[Any, Any]) -> None:
    """Refuse columns that do not have a value for each record.

    Raises:
        RequestError: their lengths differ.
    """
    lengths = {name: len(column) for name, column in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = listing(f"{counted(n, 'value')} ({name})" for name, n in lengths.items())
        raise RequestError(
            f"the columns have {shown}",
            expected="as many values in each column as there are records",
        )


def _check_names(records: Any) -> None:
    """Refuse columns of the same name, of which all but one would be lost.

    Raises:
        RequestError: there are some.
    """
    if _is_arrow(records):
        names = records.schema.names
    else:
        names = records if isinstance(records, Mapping) else getattr(records, "columns", ())
    for name, number in Counter(map(str, names)).items():
        if number > 1:
            raise RequestError(
                f"there are {number} columns {name!r}",
                expected="columns of different names",
                fix="Rename or leave out the others.",
            )


def _is_arrow(data: object) -> bool:
    return hasattr(data, "to_pylist") and hasattr(data, "schema")


def _is_frame(data: object) -> bool:
    return hasattr(data, "columns") and (hasattr(data, "itertuples") or hasattr(data, "iter_rows"))


def _class_names(records: Any) -> Mapping[str, Names]:
    if _is_arrow(records):
        return stored_names(records.schema.metadata)
    features: Any = getattr(records, "features", None)
    return class_names(features.to_dict()) if hasattr(features, "to_dict") else {}


def _items(records: Any) -> Iterable[Any]:
    if _is_arrow(records):
        return (
            row
            for start in range(0, records.num_rows, _ROWS)
            for row in records.slice(start, _ROWS).to_pylist()
        )
    if hasattr(records, "itertuples"):
        columns = list(records.columns)
        rows = records.itertuples(index=False, name=None)
        return ({c: _present(v) for c, v in zip(columns, row, strict=True)} for row in rows)
    if hasattr(records, "iter_rows"):
        rows = records.iter_rows(named=True)
        return ({column: _present(value) for column, value in row.items()} for row in rows)
    if isinstance(records, Mapping):
        cells = zip(*records.values(), strict=True)
        return (dict(zip(records, map(_present, row), strict=True)) for row in cells)
    given: Any = getattr(records, "format", None)
    if isinstance(given, Mapping) and given["type"] not in (None, "custom"):
        # A data set that gives its rows as tensors, tables or frames; a transform is the user's.
        shown = None if given["output_all_columns"] else given["columns"]
        records = records.with_format(None, columns=shown)
    items: Iterable[Any] = records
    return items


def _present(value: Any) -> Any:
    """Return a cell of a DataFrame, or None where its value is missing."""
    return None if is_missing(value) else value


def _plain(value: Any) -> Any:
    """Convert NumPy values and members of enumerations, at any depth, to values that JSON has."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, str):  # a member of an enumeration
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value
