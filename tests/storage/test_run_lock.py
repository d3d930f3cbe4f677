"""One run at a time writes to a folder, and a dead run never blocks another."""

from __future__ import annotations

import errno
import fcntl
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from manyheads.errors import RequestError
from manyheads.storage import RunLock, StorageError, run_lock
from manyheads.storage.run_lock import Owner, shorten_command

HOLD = """
import sys
from manyheads.storage import run_lock
with run_lock.RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@contextmanager
def holder(folder: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it reads a line."""
    command = [sys.executable, "-c", HOLD, os.fspath(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        with pytest.raises(RequestError, match="in use by process") as caught, RunLock(tmp_path):
            pytest.fail("two runs hold one lock")
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}: in use by process {first.pid} on ")
        assert f"-c {tmp_path}; expected one run at a time in a folder" in message
        assert message.endswith(
            f"Wait for it, or end it with `kill {first.pid}`, "
            "or give this run another folder with `save_dir`."
        )
        first.communicate("\n")
    with RunLock(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_killed_run_does_not_block_the_next(tmp_path: Path) -> None:
    with holder(tmp_path) as first:
        first.kill()
        first.wait()
    assert len(names(tmp_path)) == 1
    with RunLock(tmp_path) as lock:
        owner = Owner.read(lock.path)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert names(tmp_path) == []


def test_the_lock_can_be_taken_again_after_its_release(tmp_path: Path) -> None:
    for _ in range(2):
        with RunLock(tmp_path) as lock:
            assert lock.path.exists()
            with pytest.raises(RequestError, match=f"in use by process {os.getpid()} on"):
                RunLock(tmp_path).acquire()
            with pytest.raises(RuntimeError, match="already held by this object"):
                lock.acquire()
        lock.release()
    assert names(tmp_path) == []


def test_taking_the_lock_removes_what_killed_writers_left(tmp_path: Path) -> None:
    (tmp_path / ".file.0123abcd.manyheads-tmp").touch()
    with RunLock(tmp_path):
        assert names(tmp_path) == [run_lock.LOCK_NAME]


def test_a_lock_file_that_its_owner_just_removed_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock
    calls: list[int] = []

    def owner_leaves_first(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / run_lock.LOCK_NAME).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", owner_leaves_first)
    with RunLock(tmp_path), pytest.raises(RequestError, match=f"in use by process {os.getpid()}"):
        RunLock(tmp_path).acquire()
    assert len(calls) == 3


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOTSUP, "its file system has no locks; expected one with `flock`"),
        (errno.ENOLCK, "its file system has no locks"),
        (errno.EIO, "input/output error"),
    ],
)
def test_a_failure_of_the_lock_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, message: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", fail)
    with pytest.raises(StorageError, match=message):
        RunLock(tmp_path).acquire()


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing: cannot be written: its folder does not exist"):
        RunLock(tmp_path / "missing").acquire()


def test_the_lock_is_released_even_if_its_folder_was_removed(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with RunLock(folder) as lock:
        lock.path.unlink()
        folder.rmdir()


def test_a_forked_child_neither_holds_nor_releases_the_lock(tmp_path: Path) -> None:
    script = f"""
import os, signal, sys
from manyheads.storage.run_lock import RunLock
lock = RunLock({os.fspath(tmp_path)!r})
lock.acquire()
child = os.fork()
if child == 0:
    lock.release()
    print("child", flush=True)
    sys.stdin.readline()
    os._exit(0)
sys.stdin.readline()
os.kill(os.getpid(), signal.SIGKILL)
"""
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        assert parent.stdout.readline() == "child\n"
        with pytest.raises(RequestError, match=f"in use by process {parent.pid} "):
            RunLock(tmp_path).acquire()
        parent.kill()
        parent.wait()
        # The child lives on, waiting for its input.
        with RunLock(tmp_path):
            pass
        parent.stdin.close()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "in use by another process; .*Wait for it, or end it, or give"),
        ("[" * 100_000, "in use by another process"),
        ('{"pid": {}}', "in use by another process"),
        ("\x00", "in use by another process"),
        (
            '{"pid": 1, "host": "elsewhere", "since": "today", "command": "manyheads"}',
            "process 1 on elsewhere, running since today: manyheads; .*or end it there",
        ),
    ],
)
def test_an_owner_is_described_as_far_as_its_file_allows(
    tmp_path: Path, text: str, message: str
) -> None:
    with RunLock(tmp_path) as lock:
        lock.path.write_text(text)
        with pytest.raises(RequestError, match=message):
            RunLock(tmp_path).acquire()


def test_a_symbolic_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / run_lock.LOCK_NAME).symlink_to("precious")
    with pytest.raises(StorageError, match="symbolic links"):
        RunLock(tmp_path).acquire()
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_long_command_line_is_cut() -> None:
    assert shorten_command(["manyheads", "train", "a b"]) == "manyheads train 'a b'"
    assert len(shorten_command(["x" * 1000])) == 203
