"""Records as lines of JSON: one way to write them, whatever values a reader found.

Values that JSON lacks are written so that nothing is lost: a `Decimal` as a number if it is whole
or a float has the same digits, and else as text; dates and times as text in ISO 8601, durations and
UUIDs as Python writes them. Integers have all their digits. Half a character (an unpaired
surrogate) is escaped, and read as such again. Everything else, such as bytes, is refused.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from manyheads.errors import DataError

_MOST_DIGITS = 308
"""The most digits of a whole `Decimal` that is written as an integer; floats have no more."""


def json_line(record: Mapping[str, Any], where: str = "") -> bytes:
    """Write a record as a line of JSON in UTF-8.

    Args:
        record: its fields.
        where: its place, for messages.

    Raises:
        DataError: a field has a value that JSON lacks.
    """
    try:
        text = _ENCODER.encode(record)
    except _FAILURES as error:
        for name, value in record.items():
            json_text(value, name, where)
        raise _refused("the record", error, where) from None
    # Inside the quotes of JSON, Python's escapes of surrogates are JSON's.
    return text.encode(errors="backslashreplace") + b"\n"


def json_text(value: Any, field: str, where: str = "") -> str:
    """Write a field's value as JSON, in whole Unicode characters.

    Raises:
        DataError: it, or a part of it, is of a type that JSON lacks.
    """
    try:
        text = _ENCODER.encode(value)
    except _FAILURES as error:
        raise _refused(f"`{field}`", error, where) from None
    return text.encode(errors="backslashreplace").decode()


def json_list(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Turn lines of JSON into those of one list, with one more for its end."""
    before = b"[\n"
    for line in lines:
        yield before + line.rstrip(b"\n")
        before = b",\n"
    yield (b"[" if before == b"[\n" else b"") + b"\n]\n"


def plain(value: Any) -> Any:
    """Return a single value as one that JSON has, as the module describes.

    Raises:
        TypeError: it has no such form.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Decimal):
        return _number(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta | uuid.UUID):
        return str(value)
    raise TypeError(f"it is, or contains, a value of the type {type(value).__name__}")


def _refused(what: str, error: Exception, where: str) -> DataError:
    return DataError(
        f"{what} cannot be written as JSON ({error})",
        where=where,
        expected="texts, numbers, dates, and lists and objects of them",
        fix="Leave it out, or write it as text.",
    )


def _number(value: Decimal) -> int | float | str:
    """Return an equal number, or the digits where there is none."""
    if not value.is_finite():
        return str(value)
    if value.adjusted() < _MOST_DIGITS and (whole := int(value)) == value:
        return whole
    number = float(value)
    # By its shortest digits, which are the ones that are written: 0.1 is not exactly a float.
    return number if Decimal(repr(number)) == value else str(value)


_ENCODER = json.JSONEncoder(ensure_ascii=False, default=plain)
_FAILURES = (TypeError, ValueError, RecursionError)
"""Of a value without a form in JSON, of too many digits or a circle, of too deep a nesting."""
