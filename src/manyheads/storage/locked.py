"""Open files under the operating system's lock, which ends with the process that holds it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def open_locked(
    path: Path, flags: int, mode: int = 0o666, *, required: bool = True, wait: bool = False
) -> int:
    """Open a file and lock it; its descriptor, which is returned, holds the lock while it is open.

    Args:
        path: the file.
        flags: those of `os.open`.
        mode: the permissions of a new file.
        required: whether it is an error if the file system has no locks. Otherwise the file is
            then opened without.
        wait: whether to wait while another descriptor holds the lock.

    Raises:
        BlockingIOError: another descriptor holds the lock, and `wait` is false.
        OSError: the file cannot be opened or locked.
    """
    while True:
        descriptor = os.open(path, flags, mode)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
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
def locked_folder(path: Path) -> Iterator[None]:
    """Hold a folder's lock, once no other writer has it; without locks, nothing is held.

    Raises:
        OSError: the folder cannot be opened.
    """
    descriptor = open_locked(path, os.O_RDONLY, required=False, wait=True)
    try:
        yield
    finally:
        os.close(descriptor)


def is_same(descriptor: int, path: Path) -> bool:
    """Return whether a path names the file that is open."""
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except OSError:
        return False
