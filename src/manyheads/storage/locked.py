"""Open files under the operating system's lock, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_PATIENCE = 30.0
"""Seconds to wait for another writer of a folder: more than one ever takes that is not stopped."""


def open_locked(path: Path, flags: int, mode: int = 0o666, *, required: bool = True) -> int:
    """Open a file and lock it; its descriptor, which is returned, holds the lock while it is open.

    Args:
        path: the file.
        flags: those of `os.open`.
        mode: the permissions of a new file.
        required: whether it is an error if the file system has no locks. Otherwise the file is
            then opened without.

    Raises:
        BlockingIOError: another descriptor holds the lock.
        OSError: the file cannot be opened or locked.
    """
    while True:
        descriptor = os.open(path, flags, mode)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise
            except OSError:
                if required:
                    raise
            # Its owner may have removed or renamed the file between our opening and locking it.
            if is_same(descriptor, path):
                locked, descriptor = descriptor, -1
                return locked
        finally:
            if descriptor >= 0:
                os.close(descriptor)


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Wait for other writers of a folder, and keep them waiting.

    A writer that is stopped (Ctrl-Z) must not stop others: after half a minute one goes on without
    the lock, as it does where the file system has none.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = None
    end = time.monotonic() + _PATIENCE
    while descriptor is None and time.monotonic() < end:
        try:
            descriptor = open_locked(folder, os.O_RDONLY, required=False)
        except BlockingIOError:
            time.sleep(0.02)
    try:
        yield
    finally:
        if descriptor is not None:
            unlock(descriptor)


def unlock(descriptor: int) -> None:
    """Close a descriptor and release its lock, even if a forked child has a copy of it."""
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def is_same(descriptor: int, path: Path) -> bool:
    """Return whether a path names the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
