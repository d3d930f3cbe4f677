"""metrics.jsonl: one JSON object per line; a resumed run neither repeats nor loses a line."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from manyheads.storage import explained


class MetricsLog:
    """Appends to a metrics file.

    A checkpoint records the file's size (`sync`); a resumed run truncates the file to that size,
    and so drops the lines of steps that it repeats. See `restored_log` for a file that is shorter.

    Args:
        path: the file.
        length: bytes to keep; 0 starts a new file.
    """

    also: Callable[[Mapping[str, Any]], None] | None = None
    """Also receives each line."""

    def __init__(self, path: Path, length: int = 0) -> None:
        self._path = path
        with explained(path):
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


def restored_log(
    path: Path, length: int, history: Sequence[Mapping[str, Any]], report: Callable[[str], None]
) -> MetricsLog:
    """Open the log of a run that starts or goes on.

    A checkpoint is enough to resume from. If the file is missing, or shorter than the checkpoint
    recorded, its whole lines are kept, and the epochs that they lack are written again.

    Args:
        path: the file.
        length: the bytes that the checkpoint recorded.
        history: an entry for each complete epoch.
        report: receives a message if the file is shorter.
    """
    with explained(path):
        found = path.read_bytes() if length and path.exists() else b""
    if len(found) >= length:
        return MetricsLog(path, length)
    whole = found[: found.rfind(b"\n") + 1]
    try:
        lines = [json.loads(line) for line in whole.splitlines()]
        logged = {line["epoch"] for line in lines if line["event"] == "epoch"}
    except (ValueError, KeyError, TypeError):
        whole, logged = b"", set()
    report(
        f"warning: {path} is missing or cut off; the epochs of the checkpoint are written to it "
        "again, and the values of single steps before it are lost."
    )
    log = MetricsLog(path, len(whole))
    for entry in history:
        if entry["epoch"] not in logged:
            log.write({"event": "epoch", **entry})
    return log


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
