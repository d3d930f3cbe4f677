"""Temporary files and folders: made so that what a killed writer leaves can be told and removed.

A temporary name tells what it was to become, and its maker holds the system's lock on it. The
lock goes with the process, however that ends: what nobody holds is a leftover.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from contextlib import suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

_LEFTOVER = re.compile(r"\.(?P<name>.+)\.[0-9a-f]{8}\.manyheads-(?P<kind>tmp|old)", re.DOTALL)
# Where locks do not work, a leftover counts as abandoned when nothing was done to it so long.
_ABANDONED_AFTER = 24 * 3600.0


def create_temporary_file(target: Path) -> tuple[Path, int]:
    """Create and lock the file that will become `target`.

    Returns:
        Its path and its descriptor, which holds the lock while it is open.

    Raises:
        OSError: it could not be created.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0)
    flags |= getattr(os, "O_BINARY", 0)
    while True:
        temporary = _sibling(target, "tmp")
        descriptor = os.open(temporary, flags, 0o666)
        if fcntl is None:
            return temporary, descriptor
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Between these two calls somebody's clean-up may have taken it for abandoned.
        if os.fstat(descriptor).st_nlink:
            return temporary, descriptor
        os.close(descriptor)


def create_temporary_folder(target: Path) -> tuple[Path, int | None]:
    """Create and lock the folder that will become `target`.

    Returns:
        Its path and the descriptor that holds the lock while it is open, where there are locks.

    Raises:
        OSError: it could not be created.
    """
    while True:
        temporary = _sibling(target, "tmp")
        temporary.mkdir()
        try:
            lock = lock_folder(temporary)
        except FileNotFoundError:
            continue  # somebody's clean-up took it for abandoned
        if temporary.exists():
            return temporary, lock
        if lock is not None:
            os.close(lock)


def name_aside(target: Path) -> Path:
    """Return the name under which a folder waits while another takes its place."""
    return _sibling(target, "old")


def lock_folder(path: Path) -> int | None:
    """Hold a folder's lock, where there are locks, while the returned descriptor is open."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY)
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor


def remove_leftovers(folder: str | os.PathLike[str], name: str | None = None) -> int:
    """Remove what killed writers left in a folder; what a living one is at work on stays.

    A folder that was moved aside and not yet replaced is put back rather than removed. Nothing
    here is an error: a leftover that cannot be removed does no harm.

    Args:
        folder: where to look, not in its subfolders.
        name: look only for leftovers of this file or folder.

    Returns:
        How many were removed or put back.
    """
    dealt_with = 0
    wanted = None if name is None else _shortened(name)
    with suppress(OSError):
        for leftover in sorted(Path(folder).iterdir()):
            match = _LEFTOVER.fullmatch(leftover.name)
            if match is None or wanted not in (None, match["name"]):
                continue
            if not _abandoned(leftover):
                continue
            with suppress(OSError):
                target = leftover.with_name(name or match["name"])
                if match["kind"] == "old" and not os.path.lexists(target):
                    if name is None and _shortened(f"{target.name}x") == target.name:
                        continue  # a cut name: which folder it was, its next writer knows
                    leftover.rename(target)
                elif leftover.is_dir() and not leftover.is_symlink():
                    shutil.rmtree(leftover)
                else:
                    leftover.unlink()
                dealt_with += 1
    return dealt_with


def recover_folder(path: str | os.PathLike[str]) -> bool:
    """Put a folder back that a writer, killed between its two renames, had moved aside.

    Call it before saying that a folder is missing.

    Returns:
        Whether there was one.
    """
    target = Path(os.path.realpath(path))
    if target.exists() or not target.parent.is_dir():
        return False
    remove_leftovers(target.parent, target.name)
    return target.exists()


def _abandoned(path: Path) -> bool:
    """Tell whether no living process works on a temporary file or folder."""
    try:
        if fcntl is not None:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            finally:
                os.close(descriptor)
    except BlockingIOError:
        return False
    except OSError:
        pass  # no locks here, or not ours to open: its age must do
    try:
        return time.time() - path.lstat().st_mtime > _ABANDONED_AFTER
    except OSError:
        return False


def _shortened(name: str) -> str:
    """Cut a name so that the temporary one made from it is not too long for the file system."""
    return os.fsdecode(os.fsencode(name)[:200])


def _sibling(target: Path, kind: str) -> Path:
    name = f".{_shortened(target.name)}.{secrets.token_hex(4)}.manyheads-{kind}"
    return target.with_name(name)
