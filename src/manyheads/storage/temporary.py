"""Temporary files and folders, made so that those of a killed writer can be found and removed.

A temporary name includes its target's, and its writer holds the system's lock on it. The lock ends
with the process, however that ends: a temporary file that is not locked is a leftover.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.manyheads-(?P<kind>tmp|old)", re.DOTALL)


def create_temporary_file(target: Path, mode: int = 0o666) -> tuple[Path, int]:
    """Create and lock the file that will become `target`.

    Args:
        target: the file.
        mode: the most permissions that it has; the umask takes from them.

    Returns:
        Its path and its descriptor, which holds the lock while it is open.

    Raises:
        OSError: it could not be created.
    """
    while True:
        temporary = sibling(target, "tmp")
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, mode)
        _lock(descriptor)
        # Another process's clean-up may have removed it between the two calls.
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def create_temporary_folder(target: Path) -> tuple[Path, int]:
    """Create and lock the folder that will become `target`.

    Returns:
        Its path and the descriptor that holds the lock while it is open.

    Raises:
        OSError: it could not be created.
    """
    while True:
        temporary = sibling(target, "tmp")
        temporary.mkdir()
        try:
            lock = lock_folder(temporary)
        except FileNotFoundError:
            continue  # another process's clean-up removed it
        if temporary.exists():
            return temporary, lock
        os.close(lock)


def lock_folder(path: Path) -> int:
    """Hold a folder's lock while the returned descriptor is open."""
    descriptor = os.open(path, os.O_RDONLY)
    _lock(descriptor)
    return descriptor


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> int:
    """Remove what killed writers left in a folder; files of living writers stay.

    A folder that was moved aside and not yet replaced is moved back. A leftover that cannot be
    removed is not an error.

    Args:
        folder: the folder; its subfolders are not searched.
        name: look only for leftovers of this file or folder.

    Returns:
        The number of leftovers that were removed or moved back.
    """
    count = 0
    with suppress(OSError):
        for leftover in sorted(Path(folder).iterdir()):
            match = _LEFTOVER.fullmatch(leftover.name)
            wanted = match and (name is None or _shortened(name) == match["name"])
            if not match or not wanted or not _abandoned(leftover):
                continue
            target = leftover.with_name(name or match["name"])
            with suppress(OSError):
                if match["kind"] == "old" and not os.path.lexists(target):
                    leftover.rename(target)
                elif leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()
                count += 1
    return count


def is_temporary(name: str) -> bool:
    """Return whether a name is that of a temporary file or folder."""
    return _LEFTOVER.fullmatch(name) is not None


def sibling(target: Path, kind: str) -> Path:
    """Return a new name beside a file or folder, for its new version (`tmp`) or its old (`old`)."""
    return target.with_name(f".{_shortened(target.name)}.{secrets.token_hex(4)}.manyheads-{kind}")


def _lock(descriptor: int) -> None:
    # Without locks, the leftovers of killed writers stay; nothing else changes.
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _abandoned(path: Path) -> bool:
    """Return whether no living process holds the lock of a temporary file or folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(descriptor)
    except OSError:  # locked by a living writer, not accessible, or no locks here
        return False
    return True


def _shortened(name: str) -> str:
    """Shorten a name so that the temporary name made from it is not too long."""
    return os.fsdecode(os.fsencode(name)[:200])
