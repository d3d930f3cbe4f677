"""JSON lines, one object a line, and clear errors for text that is not JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from manyheads.data.readers.row import Row, Source
from manyheads.data.readers.text_lines import sound_lines
from manyheads.errors import DataError, shorten

SPACE = " \t\r\n"


class _RepeatedKeyError(ValueError):
    """An object that has a key twice."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _RepeatedKeyError(next(key for i, key in enumerate(keys) if key in keys[:i]))
    return values


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_json_lines(source: Source) -> Iterator[Row]:
    """Yield the objects of a JSON lines file; blank lines are skipped."""
    for row, value in read_line_values(source):
        yield from source.attempt(row, expect_object, value, row.where)


def read_line_values(source: Source) -> Iterator[tuple[Row, Any]]:
    """Yield the JSON value of each line, of any kind, with its place; blank lines are skipped."""
    for number, line in sound_lines(source):
        if line.strip(SPACE):
            row = Row(source.name, number, "line", {})
            try:
                value = DECODER.decode(line)
            except (ValueError, RecursionError) as error:
                source.refuse(broken(error, row.where))
            else:
                yield row, value


def expect_object(value: object, where: str) -> dict[str, Any]:
    """Return the value if it is an object.

    Raises:
        DataError: it is another kind of value.
    """
    if type(value) is dict:
        return value
    raise DataError(
        f"the record is {shorten(value)}",
        where=where,
        expected='an object such as {"text": "...", "label": "..."}',
    )


def broken(error: ValueError | RecursionError, where: str, column: int | None = None) -> DataError:
    """Make the error for text that is not JSON, with its column if known."""
    if isinstance(error, RecursionError):
        return DataError(
            "the JSON is nested too deeply to be a record",
            where=where,
            expected="an object of texts, numbers and short lists",
        )
    if isinstance(error, json.JSONDecodeError):
        place = f"column {error.colno if column is None else column}"
        if error.doc[error.pos : error.pos + 1] == "\ufeff":
            return DataError(
                f"an invisible byte-order mark (U+FEFF) at {place}", where=where, expected="JSON",
                fix="Remove it; files that are joined may each begin with one.",
            )  # fmt: skip
        message = (error.msg[:1].lower() + error.msg[1:]).removesuffix(" at").removesuffix(":")
        return DataError(
            f"broken JSON at {place}: {message}", where=where, fix="Correct the file there."
        )
    if isinstance(error, _RepeatedKeyError):
        return DataError(
            f"the key {shorten(str(error))} twice in one object",
            where=where,
            expected="each key once",
            fix="Keep one of the two.",
        )
    # The one other failure: integers beyond sys.get_int_max_str_digits().
    return DataError("the JSON has a number of thousands of digits", where=where)
