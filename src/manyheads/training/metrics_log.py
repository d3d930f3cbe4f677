"""metrics.jsonl: one JSON object a line, no line twice and none missing after a resume."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from manyheads.errors import ModelError, at
from manyheads.storage import explained

METRICS_FILE = "metrics.jsonl"


class MetricsLog:
    """Appends to a metrics file.

    A checkpoint remembers how long the file was (`flush`); a resumed run cuts it back to that
    length, and so drops the lines of steps that it does again.

    Args:
        path: the file.
        length: bytes to keep of it; 0 starts anew.

    Raises:
        ModelError: the file is shorter than the checkpoint remembers.
    """

    also: Callable[[Mapping[str, Any]], None] | None = None
    """Takes each line, too."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self._path = path
        with explained(path):
            size = path.stat().st_size if path.exists() else 0
            if size < length:
                raise ModelError(
                    f"the file has {size} bytes", where=at(path),
                    expected=f"at least the {length} that the checkpoint remembers",
                    fix="Put the file back, or start the run anew with --overwrite.",
                )  # fmt: skip
            self._file = path.open("ab" if length else "wb")
            self._file.truncate(length)
            # Appending goes to the end by itself, but the position told is where it was before.
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
    """What a process has that writes no log, because another one of its run does."""

    def __init__(self) -> None:
        """Open nothing."""

    def __exit__(self, *_: object) -> None:
        """Close nothing."""

    def write(self, values: Mapping[str, Any]) -> None:
        """Write nothing."""

    def sync(self) -> int:
        """Return the length of nothing."""
        return 0
