"""Write files and folders completely or not at all, so that no interruption can damage them.

New contents are written to a temporary sibling, flushed to disk, and renamed over the old in one
step of the file system; then the folder is flushed too. At any moment, even after a power cut, a
reader finds the old contents or the new, never a part of them. The next writer removes what a
killed one left behind, which it recognises by the name and by the missing lock.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import json
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, cast

from manyheads.errors import ManyheadsError
from manyheads.storage.locked import only_writer, unlock
from manyheads.storage.temporary import (
    create_temporary_file,
    create_temporary_folder,
    remove_leftovers,
    sibling,
)

StrPath = str | os.PathLike[str]

_BUFFER = 1 << 20
_RENAME_EXCHANGE = 2
_AT_FDCWD = -100

# errno -> (what was found, what was expected, what to do)
_ROOM = ("room for the new contents beside the old", "Free some space or choose another folder")
_WRITABLE = "a location that this user can access"
_NO_LOCKS = ("its file system has no locks", "one with `flock`", "Choose another folder")
_REASONS = {
    errno.ENOSPC: ("the disk is full", *_ROOM),
    errno.EDQUOT: ("the disk quota is used up", *_ROOM),
    errno.EFBIG: ("the file system does not support so large a file", "", "Choose another disk"),
    errno.EROFS: ("the file system is read-only", _WRITABLE, "Choose another folder"),
    errno.EACCES: ("permission is denied", _WRITABLE, "Change the permissions or the path"),
    errno.EPERM: ("the system does not permit it", _WRITABLE, "Choose another path"),
    errno.ENOENT: ("there is no such file or folder", "", "Check the path"),
    errno.ENOTDIR: ("there is a file where a folder is needed", "a folder", "Correct the path"),
    errno.EISDIR: ("it is a folder", "a file", "Correct the path"),
    errno.ENAMETOOLONG: ("the name is too long", "", "Choose a shorter one"),
    errno.ELOOP: ("its symbolic links form a loop", "", "Correct the links"),
    errno.EIO: ("the disk reported an input/output error", "", "Check the disk"),
    errno.ENXIO: ("it is a socket or a device", "a file", "Correct the path"),
    errno.EMFILE: ("too many files are open", "", "Raise the limit with `ulimit -n`"),
    errno.ENOLCK: _NO_LOCKS,
    errno.ENOSYS: _NO_LOCKS,
    errno.ENOTSUP: _NO_LOCKS,
}


class StorageError(ManyheadsError):
    """A file or folder that could not be written or read."""


def explain(error: OSError, path: StrPath, action: str = "written") -> StorageError:
    """Convert the system's error about a path into one that suggests a fix.

    Args:
        error: the system's error.
        path: the file or folder that the user knows, not a temporary one.
        action: the action that failed, such as "written" or "read".
    """
    system = error.strerror or str(error) or type(error).__name__
    found, expected, fix = _REASONS.get(error.errno or 0, (system, "", "Check the path"))
    if action == "written":
        if error.errno == errno.ENOENT:
            found, fix = "its folder does not exist or was removed", "Create the folder"
        elif error.errno in (errno.ENOSPC, errno.EDQUOT):
            found += _free_space(path)
        fix += "; what was saved before is untouched"
    return StorageError(
        f"cannot be {action}: {found}", expected=expected, fix=f"{fix}.", where=os.fspath(path)
    )


@contextmanager
def explained(path: StrPath, action: str = "written") -> Iterator[None]:
    """Convert the system's errors in the body to errors about `path` (see `explain`)."""
    try:
        yield
    except OSError as error:
        raise explain(error, path, action) from error


def write_bytes(path: StrPath, data: bytes | bytearray | memoryview) -> None:
    """Write a file completely or not at all.

    Raises:
        StorageError: it could not be written; the old contents are unchanged.
    """
    with atomic_file(path) as file:
        file.write(data)


def write_json(path: StrPath, value: Any) -> None:
    """Write a value as a JSON file, completely or not at all (see `write_bytes`).

    The text is ASCII, so that any editor can save it, and so that lone surrogates can be written.
    """
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """Return the bytes that `write_json` writes: ASCII, keys in order, a newline at the end.

    Raises:
        ValueError: a number is not finite, which JSON cannot express.
    """
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode("ascii")


def require_folder(path: StrPath) -> None:
    """Refuse a file without a folder, before the work begins whose result it is to hold.

    Raises:
        StorageError: the file's folder does not exist.
    """
    if not _real(path).parent.is_dir():
        raise explain(FileNotFoundError(errno.ENOENT, ""), path)


@contextmanager
def atomic_file(path: StrPath) -> Iterator[BinaryIO]:
    """Open a file for writing that appears under its name only when it is complete.

    After an exception in the body the old contents are unchanged. A symbolic link is followed; a
    device or pipe, such as `/dev/stdout`, is written to directly.

    Raises:
        StorageError: it could not be written; the old contents are unchanged.
    """
    target = _real(path)
    mode = _mode(target)
    if mode is not None and not stat.S_ISREG(mode):
        with explained(path):
            stream = target.open("wb")
        with stream:
            yield cast(BinaryIO, stream)
        return
    remove_leftovers(target.parent, target.name)
    with explained(path):
        temporary, descriptor = create_temporary_file(
            target, 0o666 if mode is None else mode & 0o777
        )
    raw = _ReportingFile(descriptor, path)
    file = io.BufferedWriter(raw, _BUFFER)
    try:
        yield cast(BinaryIO, file)
        file.flush()
        with explained(path):
            if mode is not None:
                temporary.chmod(mode & 0o777)
            _sync(descriptor)
            temporary.replace(target)
            sync_folder(target.parent)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink()
        # A library that writes to the file may have raised its own error.
        if raw.failure is not None and error is not raw.failure and isinstance(error, Exception):
            raise raw.failure from error
        raise
    finally:
        # Closing the raw file first: after a failed write, closing the buffer would try again.
        with suppress(OSError):
            raw.close()  # which releases the lock


@contextmanager
def atomic_folder(path: StrPath) -> Iterator[Path]:
    """Yield an empty folder to fill, which replaces `path` only when it is complete.

    It has the permissions of the old folder, if there is one, and its owner can always fill it.
    Old and new are exchanged in one step if the file system can do so, as local ones can, and by
    two renames otherwise. Everything in the old folder is removed. After an exception in the body
    the old folder is unchanged.

    Raises:
        StorageError: it could not be written; the old folder is unchanged.
    """
    target = _real(path)
    with explained(path):
        mode = _mode(target)
        if mode is not None and not stat.S_ISDIR(mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    remove_leftovers(target.parent, target.name)
    with explained(path):
        temporary, lock = create_temporary_folder(target)
    try:
        if mode is not None:
            # Before it is filled, so that it is never less private than the old one.
            wanted = stat.S_IMODE(mode) | stat.S_IRWXU
            with explained(path):
                # Some network file systems have the same modes everywhere, and refuse changes.
                if stat.S_IMODE(temporary.stat().st_mode) != wanted:
                    temporary.chmod(wanted)
        try:
            yield temporary
        except OSError as error:
            if _concerns(error, temporary):
                raise explain(error, path) from error
            raise
        with explained(path):
            _sync_tree(temporary)
            _swap(temporary, target)
            sync_folder(target.parent)
    finally:
        try:
            _remove(temporary)  # after an exchange the old folder
        finally:
            unlock(lock)


def sync_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a new name in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _sync(descriptor)
    finally:
        os.close(descriptor)


def sha256(data: bytes | bytearray | memoryview) -> str:
    """Return the SHA-256 of some bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: StrPath) -> str:
    """Return the SHA-256 of a file's contents, in hexadecimal, in constant memory.

    Raises:
        StorageError: it could not be read.
    """
    with explained(path, "read"), Path(path).open("rb", buffering=0) as file:
        digest = hashlib.sha256()
        buffer = bytearray(_BUFFER)
        view = memoryview(buffer)
        while count := file.readinto(buffer):
            digest.update(view[:count])
        return digest.hexdigest()


class _ReportingFile(io.FileIO):
    """A raw file whose failed writes raise errors about the path that the user knows.

    Other errors in the body that writes are left alone.
    """

    def __init__(self, descriptor: int, path: StrPath) -> None:
        super().__init__(descriptor, "wb")
        self._path = path
        self.failure: StorageError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = explain(error, self._path)
            raise self.failure from error


def require_space(folder: StrPath, needed: int, what: str) -> None:
    """Refuse a folder whose disk has too little free space, if the system reports it.

    Args:
        folder: a folder that exists.
        needed: bytes that will be written at least.
        what: what they are, in words.

    Raises:
        StorageError: there are fewer.
    """
    with suppress(OSError):
        usage = shutil.disk_usage(folder)
        # Some network file systems report nothing.
        if usage.total and usage.free < needed:
            raise StorageError(
                f"the disk has too little space for {what} ({_readable(usage.free)} of "
                f"{_readable(usage.total)} free)",
                expected=f"at least {_readable(needed)}",
                fix="Free some space or choose another folder.",
                where=os.fspath(folder),
            )


def _free_space(path: StrPath) -> str:
    """Describe how much space is left, if the system reports it."""
    place = Path(path).absolute()
    for folder in (place, *place.parents):
        with suppress(OSError):
            usage = shutil.disk_usage(folder)
            return f" ({_readable(usage.free)} of {_readable(usage.total)} free)"
    return ""


def _readable(count: int) -> str:
    size = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _real(path: StrPath) -> Path:
    """Follow symbolic links, so that a link stays one and the file it names is replaced."""
    with explained(path):
        try:
            return Path(os.path.realpath(path))
        except ValueError as error:  # a null byte
            raise StorageError(f"path {os.fspath(path)!r} is not valid: {error}") from error


def _mode(path: Path) -> int | None:
    try:
        return path.stat().st_mode
    except OSError:
        return None


def _concerns(error: OSError, folder: Path) -> bool:
    """Return whether an error is about a file in a folder, or names no file."""
    if isinstance(error.filename, str | bytes):
        return Path(os.fsdecode(error.filename)).is_relative_to(folder)
    return error.filename is None


def _sync(descriptor: int) -> None:
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some file systems cannot flush and report one of these; real failures have other codes.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def _sync_tree(folder: Path) -> None:
    """Flush every file under a folder, then the folders from the innermost out."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            with (Path(parent) / name).open("rb") as file:
                _sync(file.fileno())
        sync_folder(Path(parent))


def _swap(temporary: Path, target: Path) -> None:
    """Replace a folder with a complete one; the caller then removes `temporary`."""
    if not target.exists():
        temporary.rename(target)
        return
    # Another process that writes to the folder under its lock finishes first.
    with only_writer(target):
        try:
            _exchange(temporary, target)
        except OSError as error:
            # NFS and 9p cannot, nor can macOS. If the writer is killed between the renames,
            # `remove_leftovers` moves the old folder back.
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):
                raise
            aside = target.rename(sibling(target, "old"))
            temporary.rename(target)
            _remove(aside)


def _remove(folder: Path) -> None:
    """Remove a folder that may be gone; a signal in the middle takes effect when it is removed."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def _exchange(first: Path, second: Path) -> None:
    """Exchange two paths in one step.

    Raises:
        OSError: the system or the file system cannot, or not these two.
    """
    library = ctypes.CDLL(None, use_errno=True)
    if not hasattr(library, "renameat2"):  # the C library of macOS
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS), os.fspath(second))
    a, b = os.fsencode(first), os.fsencode(second)
    if library.renameat2(_AT_FDCWD, a, _AT_FDCWD, b, _RENAME_EXCHANGE) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), os.fspath(second))
