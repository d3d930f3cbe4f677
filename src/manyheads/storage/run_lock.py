"""Keep two runs from writing to one folder at a time, without a dead run ever blocking one.

The lock is the operating system's (`flock`): it goes with the process that holds it, however that
ends. Where a file system has no such locks, the file's existence is the lock, and its owner is
looked up to see whether it still lives.
"""

from __future__ import annotations

import errno
import functools
import json
import os
import secrets
import shlex
import socket
import sys
import time
import weakref
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

from manyheads.errors import RequestError, shorten
from manyheads.storage.atomic import StrPath, explain
from manyheads.storage.temporary import remove_leftovers

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None  # type: ignore[assignment]

LOCK_NAME = ".manyheads.lock"
_OWNER_NAME = ".manyheads.owner"
_MAX_OWNER_BYTES = 64 << 10
# What `flock` reports where the file system has none.
_NO_LOCKS = (errno.ENOTSUP, errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.EBADF)


@dataclass(frozen=True, slots=True)
class Owner:
    """The process that holds a lock, as it wrote itself down."""

    pid: int
    host: str
    since: str
    command: str
    life: str
    """Which life of this process number: the boot and the moment the process started in it."""

    @classmethod
    def current(cls) -> Owner:
        """Describe this process."""
        return cls(
            pid=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime("%Y-%m-%d %H:%M:%S %z"),
            command=shorten_command(sys.argv),
            life=_life(os.getpid()),
        )

    @classmethod
    def read(cls, path: Path) -> Owner | None:
        """Read who holds a lock; None when its file says nothing usable."""
        try:
            with path.open("rb") as file:
                value = json.loads(file.read(_MAX_OWNER_BYTES))
            return cls(
                pid=int(value["pid"]),
                host=str(value["host"]),
                since=str(value["since"]),
                command=str(value["command"]),
                life=str(value["life"]),
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            return None

    def is_dead(self) -> bool:
        """Tell whether this process is known to live no more.

        Of a process on another machine nothing is known.
        """
        if self.host != socket.gethostname() or self.pid <= 0:
            return False
        if sys.platform == "win32":
            return False  # there, signal 0 would end the process
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
        life = _life(self.pid)
        return bool(life and self.life) and life != self.life

    def describe(self) -> str:
        """Name the process for a message."""
        return (
            f"process {self.pid} on {shorten(self.host)[1:-1]}, "
            f"running since {shorten(self.since)[1:-1]}: {shorten(self.command, 200)[1:-1]}"
        )


class RunLock:
    """The right to write to a folder, held by one process at a time.

    Use it as a context manager around everything that writes to the folder. Entering it also
    clears away what killed writers left there.

    Args:
        folder: the folder; it must exist.

    Raises:
        RequestError: on entering, when another process holds the lock; it is named.
        StorageError: on entering, when the folder cannot be written to.
    """

    def __init__(self, folder: StrPath) -> None:
        self.folder = Path(folder)
        self.path = self.folder / LOCK_NAME
        self._descriptor: int | None = None
        self._owner: Owner | None = None

    def __enter__(self) -> RunLock:
        self.acquire()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def acquire(self) -> None:
        """Take the lock, or say who has it (the class says what is raised)."""
        if self._owner is not None:
            raise RuntimeError("the lock is already held by this object")
        owner = Owner.current()
        self.path = self.folder / LOCK_NAME
        try:
            if not self._acquire_by_flock(owner):
                self._acquire_by_existence(owner)
        except OSError as error:
            raise explain(error, self.folder) from error
        self._owner = owner
        remove_leftovers(self.folder)

    def release(self) -> None:
        """Give the lock back. Nothing happens when it is not held, or the folder is gone."""
        if self._owner is not None and self._owner == Owner.read(self.path):
            with suppress(OSError):
                self.path.unlink()
        self.forget()

    def forget(self) -> None:
        """Drop this process's hold on the lock's file without touching what others see."""
        if self._descriptor is not None:
            with suppress(OSError):
                os.close(self._descriptor)
        self._descriptor = self._owner = None

    def _acquire_by_flock(self, owner: Owner) -> bool:
        """Take the system's lock; return False where there is none."""
        if fcntl is None:
            return False
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not _is_same(descriptor, self.path):
                    continue  # its owner removed it between our opening and locking it
                os.truncate(descriptor, 0)
                os.pwrite(descriptor, _as_bytes(owner), 0)
                self._descriptor, descriptor = descriptor, -1
                _watch_forks()
                _held.add(self)
                return True
            except BlockingIOError:
                raise self._refusal(Owner.read(self.path)) from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                return False
            finally:
                if descriptor >= 0:
                    os.close(descriptor)

    def _acquire_by_existence(self, owner: Owner) -> None:
        """Take the lock by being the one that creates its file."""
        with suppress(FileNotFoundError):
            self.path.unlink()  # left by the attempt to lock it; its existence means nothing
        self.path = self.folder / _OWNER_NAME
        aside = self.folder / f"{_OWNER_NAME}.{secrets.token_hex(4)}"
        while True:
            try:
                descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
            except FileExistsError:
                holder = Owner.read(self.path)
                if holder is None or not holder.is_dead():
                    raise self._refusal(holder) from None
                # Of several that find the same dead owner, one renames its file. Whoever comes
                # late has caught a living one's, and gives it back.
                with suppress(FileNotFoundError):
                    self.path.rename(aside)
                    if Owner.read(aside) != holder:
                        aside.rename(self.path)
                        raise self._refusal(Owner.read(self.path)) from None
                    aside.unlink()
            else:
                with os.fdopen(descriptor, "wb") as file:
                    file.write(_as_bytes(owner))
                return

    def _refusal(self, holder: Owner | None) -> RequestError:
        if holder is None:
            who, fix = "another process", f"If no run is going on, remove {self.path}"
        elif holder.host == socket.gethostname():
            who, fix = holder.describe(), f"Wait for it, or end it with `kill {holder.pid}`"
        else:
            who, fix = holder.describe(), f"Wait for it; if it is gone, remove {self.path}"
        return RequestError(
            f"in use by {who}",
            expected="one run at a time in a folder",
            fix=f"{fix}, or give this run another folder with --save_dir.",
            where=os.fspath(self.folder),
        )


def shorten_command(arguments: list[str], limit: int = 200) -> str:
    """Write a command line for a message, cut to a length."""
    command = shlex.join(arguments)
    return command if len(command) <= limit else f"{command[:limit]}..."


def _as_bytes(owner: Owner) -> bytes:
    return (json.dumps(asdict(owner)) + "\n").encode("ascii")


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


_held: weakref.WeakSet[RunLock] = weakref.WeakSet()


@functools.cache
def _watch_forks() -> None:
    """Close lock files in forked children: a child that outlives the run would hold the lock."""

    def forget_all() -> None:
        for lock in tuple(_held):
            lock.forget()

    os.register_at_fork(after_in_child=forget_all)


def _life(pid: int) -> str:
    """Tell one life of a process number from the next, where the system says (Linux)."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        # The name, in parentheses, may hold spaces; the start time is the 22nd field.
        start = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
        return f"{boot} {start[19]}"
    except (OSError, IndexError):
        return ""
