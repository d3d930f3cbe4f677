"""metrics.jsonl: one JSON object per line; a resumed run neither repeats nor loses a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from manyheads.errors import ModelError, at, counted, option
from manyheads.storage import explained

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends to a metrics file.

    A checkpoint records the file's size (`sync`); a resumed run truncates the file to that size,
    and so drops the lines of steps that it repeats.

    Args:
        path: the file.
        length: bytes to keep; 0 starts a new file.

    Raises:
        ModelError: the file is shorter than the checkpoint recorded.
    """

    also: Callable[[Mapping[str, Any]], None] | None = None
    """Also receives each line."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self._path = path
        with explained(path):
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise ModelError(
                    f"the file has {counted(size, 'byte')}", where=at(path),
                    expected=f"at least the {length} that the checkpoint recorded",
                    fix="Put the file back, or start the run anew with "
                    f"{option('--overwrite')}.",
                )  # fmt: skip
            self._file = path.open("ab" if length else "wb")
            self._file.truncate(length)
            # Appending writes at the end anyway, but the reported position would not follow.
            self._file.seek(length)

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, values: Mapping[str, Any]) -> None:
        """Append a line."""
        with explained(self._path):
            self._file.write(json.dumps(values).encode() + b"\n")
            self._file.flush()
        if self.also is not None:
            self.also(values)

    def sync(self) -> int:
        """Make all lines durable and return the file's length in bytes."""
        with explained(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            return self._file.tell()


class NoLog(MetricsLog):
    """The log of a process that writes none, because another process of its run does."""

    def __init__(self) -> None:
        """Open no file."""

    def __exit__(self, *_: object) -> None:
        """Close no file."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Ignore the line."""

    def sync(self) -> int:
        """Return 0."""
        return 0
