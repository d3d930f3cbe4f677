"""Prevent two runs from writing to one folder at once; a dead run never blocks a new one.

The lock is the operating system's (`flock`): it ends with the process that holds it, however that
process ends. The locked file names its owner, for the message to a second run.
"""

from __future__ import annotations

import functools
import json
import os
import shlex
import socket
import sys
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from manyheads.errors import RequestError, option, shorten
from manyheads.storage.atomic import StrPath, explain
from manyheads.storage.locked import is_same, open_locked
from manyheads.storage.temporary import remove_leftovers

LOCK_NAME = ".manyheads.lock"
_MAX_OWNER_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock, as it described itself."""

    pid: int
    host: str
    since: str
    command: str

    @classmethod
    def current(cls) -> Owner:
        """Describe this process."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            command=shorten_command(sys.argv),
        )

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """Read the owner of a lock; None if the file does not describe one."""
        try:
            with path.open("rb") as file:
                value = json.loads(file.read(_MAX_OWNER_BYTES))
            return cls(
                pid=int(value["pid"]),
                host=str(value["host"]),
                since=str(value["since"]),
                command=str(value["command"]),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def describe(self) -> str:
        """Name the process for a message."""
        return (
            f"process {self.pid} on {shorten(self.host)[1:-1]}, "
            f"running since {shorten(self.since)[1:-1]}: {shorten(self.command, 200)[1:-1]}"
        )


class RunLock:
    """The right to write to a folder, held by one process at a time.

    Use it as a context manager around everything that writes to the folder. Entering it also
    removes the temporary files of killed writers.

    Args:
        folder: the folder; it must exist.

    Raises:
        RequestError: on entering, if another process holds the lock, which the message names.
        StorageError: on entering, if the folder cannot be written to.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK_NAME
        self._descriptor: int | None = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock (raises as the class describes)."""
        if self._descriptor is not None:
            raise RuntimeError("the lock is already held by this object")
        try:
            self._descriptor = self._locked()
        except BlockingIOError:
            raise self._refusal(Owner.read(self.path)) from None
        except OSError as error:
            raise explain(error, self.folder) from error
        _watch_forks()
        _held.add(self)
        remove_leftovers(self.folder)

    def release(self) -> None:
        """Release the lock, if it is held and the folder still exists."""
        if self._descriptor is not None and is_same(self._descriptor, self.path):
            with suppress(OSError):
                self.path.unlink()
        self.forget()

    def forget(self) -> None:
        """Close this process's descriptor of the lock without touching the file."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = None

    def _locked(self) -> int:
        """Create, lock and sign the file; return its descriptor."""
        descriptor = open_locked(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        try:
            os.truncate(descriptor, 0)
            os.pwrite(descriptor, _as_bytes(Owner.current()), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor

    def _refusal(self, holder: Owner | None) -> RequestError:
        if holder is None:
            who, fix = "another process", "Wait for it, or end it"
        elif holder.host == socket.gethostname():
            who, fix = holder.describe(), f"Wait for it, or end it with `kill {holder.pid}`"
        else:
            who, fix = holder.describe(), "Wait for it, or end it there"
        return RequestError(
            f"in use by {who}",
            expected="one run at a time in a folder",
            fix=f"{fix}, or give this run another folder with {option('--save-dir')}.",
            where=os.fspath(self.folder),
        )


def shorten_command(arguments: list[str]) -> str:
    """Write a command line for a message, cut to 200 characters."""
    command = shlex.join(arguments)
    return command if len(command) <= 200 else f"{command[:200]}..."


def _as_bytes(owner: Owner) -> bytes:
    return (json.dumps(asdict(owner)) + "\n").encode("ascii")


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    """Close the locks in forked children: a child that outlives the run would keep them held."""

    def forget_all() -> None:
        for lock in tuple(_held):
            lock.forget()

    os.register_at_fork(after_in_child=forget_all)
