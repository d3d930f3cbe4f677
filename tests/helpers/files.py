"""Writing records to files, and reading files of any format back; without torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from manyheads.data.readers import MAX_RECORD_BYTES, Layout, Row, read_rows
from manyheads.errors import DataError


def lines(records: Sequence[Any]) -> str:
    """Return records as JSON lines; a string is a line itself."""
    return "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records)


def write(path: Path, *records: Mapping[str, Any] | str) -> str:
    """Write records as JSON lines; returns the path as a string."""
    return str(write_records(path, records))


def write_records(path: Path, records: Sequence[Mapping[str, Any] | str]) -> Path:
    """Write records as JSON lines, in a folder that is created if missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(lines(records), encoding="utf-8")
    return path


def rows(path: str | Path, limit_bytes: int = MAX_RECORD_BYTES, **layout: Any) -> Iterator[Row]:
    """Stream a file, a folder or a data set, with the fields of `Layout`."""
    return read_rows(path, layout=Layout(**layout), limit_bytes=limit_bytes)


def read(path: str | Path, **options: Any) -> list[dict[str, Any]]:
    """Return the fields of all rows (see `rows`)."""
    return [dict(row.fields) for row in rows(path, **options)]


def message(path: str | Path, **options: Any) -> str:
    """Return the error of reading everything (see `rows`)."""
    with pytest.raises(DataError) as caught:
        for _ in rows(path, **options):
            pass
    return str(caught.value)


def contents_of(folder: Path) -> dict[str, bytes]:
    """Return the contents of all files below a folder, by their paths in it."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def unread(path: str | Path) -> dict[str, int]:
    """Return what a reader passes over in a file, with counts."""
    counts: dict[str, int] = {}
    for _ in read_rows(path, on_unread=counts.update):
        pass
    return counts
