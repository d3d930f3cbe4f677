"""What every reader takes and gives: a source, and rows of named fields with their place."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from manyheads.errors import DataError, at

MAX_RECORD_BYTES = 16 * 2**20
"""The largest record that is read. Python objects take up to some forty times the bytes of what
they are read from, so this bounds memory at several hundred megabytes whatever a file holds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One record as its file has it: fields by name, nothing checked yet.

    `line` is the line it begins at, or its number where a format has no lines (`unit` says
    which); `record` is its number where it has both.
    """

    source: str
    line: int
    unit: str
    fields: Mapping[str, Any]
    record: int | None = None

    @property
    def where(self) -> str:
        """The row's place in words, for messages."""
        place = at(self.source, self.line, self.unit)
        return place if self.record is None else f"{place} (record {self.record})"


@dataclass(frozen=True, slots=True)
class Source:
    """A file to read, and what to do with records in it that cannot be read."""

    path: Path
    name: str
    """The path as the user wrote it."""
    limit: int = MAX_RECORD_BYTES
    on_error: Callable[[DataError], None] | None = None

    def refuse(self, error: DataError) -> None:
        """Hand on the error of one record, and return where the others can still be read.

        Raises:
            DataError: nobody asked to go on.
        """
        if self.on_error is None:
            raise error
        self.on_error(error)

    def too_large(self, line: int) -> DataError:
        """Make the error for a record beyond the limit."""
        return DataError(
            f"a record of more than {self.limit:,} bytes begins here",
            where=at(self.name, line),
            expected="a sentence and its labels",
            fix="Look for a missing line break, quote or bracket, or split the record.",
        )
