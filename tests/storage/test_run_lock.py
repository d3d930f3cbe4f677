"""One run at a time writes to a folder, and a dead run never blocks a living one."""

from __future__ import annotations

import errno
import json
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
if sys.argv[2] == "existence":
    run_lock.fcntl = None
with run_lock.RunLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture(params=["flock", "existence"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The system's locks, and what is done where a file system has none."""
    if request.param == "existence":
        monkeypatch.setattr(run_lock, "fcntl", None)
    return str(request.param)


@contextmanager
def holder(folder: Path, way: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the lock until it reads a line."""
    command = [sys.executable, "-c", HOLD, os.fspath(folder), way]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_run_is_refused_and_the_first_one_named(tmp_path: Path, way: str) -> None:
    with holder(tmp_path, way) as first:
        with pytest.raises(RequestError, match="in use by process") as caught, RunLock(tmp_path):
            pytest.fail("two runs hold one lock")
        message = str(caught.value)
        assert message.startswith(f"{tmp_path}: in use by process {first.pid} on ")
        assert f"-c {tmp_path} {way}; expected one run at a time in a folder" in message
        assert message.endswith(
            f"Wait for it, or end it with `kill {first.pid}`, "
            "or give this run another folder with --save_dir."
        )
        first.communicate("\n")
    with RunLock(tmp_path):
        pass
    assert names(tmp_path) == []


def test_a_killed_run_does_not_block_the_next(tmp_path: Path, way: str) -> None:
    with holder(tmp_path, way) as first:
        first.kill()
        first.wait()
    assert len(names(tmp_path)) == 1
    with RunLock(tmp_path) as lock:
        owner = Owner.read(lock.path)
        assert owner is not None
        assert owner.pid == os.getpid()
    assert names(tmp_path) == []


def test_the_lock_can_be_taken_again_after_its_release(tmp_path: Path, way: str) -> None:
    for _ in range(2):
        with RunLock(tmp_path) as lock:
            assert lock.path.exists()
            with pytest.raises(RequestError, match=f"in use by process {os.getpid()} on"):
                RunLock(tmp_path).acquire()
            with pytest.raises(RuntimeError, match="already held by this object"):
                lock.acquire()
        lock.release()
    assert names(tmp_path) == []


def test_taking_the_lock_clears_away_what_killed_writers_left(tmp_path: Path) -> None:
    (tmp_path / ".file.0123abcd.manyheads-tmp").touch()
    with RunLock(tmp_path):
        assert names(tmp_path) == [run_lock.LOCK_NAME]


def test_a_lock_file_that_its_owner_just_removed_is_not_taken_for_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = run_lock.fcntl.flock
    calls: list[int] = []

    def owner_leaves_first(descriptor: int, operation: int) -> None:
        calls.append(descriptor)
        if len(calls) == 1:
            (tmp_path / run_lock.LOCK_NAME).unlink()
        flock(descriptor, operation)

    monkeypatch.setattr(run_lock.fcntl, "flock", owner_leaves_first)
    with RunLock(tmp_path), pytest.raises(RequestError, match=f"in use by process {os.getpid()}"):
        RunLock(tmp_path).acquire()
    assert len(calls) == 3


def test_a_file_system_without_locks_is_recognised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(run_lock.fcntl, "flock", unsupported)
    with RunLock(tmp_path), pytest.raises(RequestError, match=f"process {os.getpid()}"):
        RunLock(tmp_path).acquire()
    assert names(tmp_path) == []


def test_another_failure_of_the_lock_is_explained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(run_lock.fcntl, "flock", fail)
    with pytest.raises(StorageError, match="input/output error"):
        RunLock(tmp_path).acquire()


def test_a_missing_folder_is_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing: cannot be written: its folder does not exist"):
        RunLock(tmp_path / "missing").acquire()


def test_a_folder_removed_meanwhile_does_not_hinder_the_release(tmp_path: Path, way: str) -> None:
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


def fallback_owner(folder: Path, **changes: object) -> Path:
    """Leave the file of an owner where no system lock tells whether it lives."""
    owner = Owner.current()
    fields = {name: getattr(owner, name) for name in Owner.__slots__} | changes
    path = folder / ".manyheads.owner"
    path.write_text(json.dumps(fields))
    return path


@pytest.fixture
def _no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_lock, "fcntl", None)


@pytest.mark.usefixtures("_no_flock")
def test_an_owner_on_another_machine_is_believed(tmp_path: Path) -> None:
    path = fallback_owner(tmp_path, host="elsewhere", pid=2**22 + 1)
    with pytest.raises(RequestError, match=f"on elsewhere.*if it is gone, remove {path}"):
        RunLock(tmp_path).acquire()


@pytest.mark.usefixtures("_no_flock")
def test_a_process_number_used_again_is_not_taken_for_the_owner(tmp_path: Path) -> None:
    fallback_owner(tmp_path, life="another boot 1")
    with RunLock(tmp_path):
        pass


@pytest.mark.usefixtures("_no_flock")
@pytest.mark.parametrize("text", ["", "[" * 100_000, '{"pid": {}}', "\x00", '{"pid": 1}'])
def test_an_unreadable_owner_is_believed_and_can_be_removed(tmp_path: Path, text: str) -> None:
    path = fallback_owner(tmp_path)
    path.write_text(text)
    with pytest.raises(RequestError, match=f"in use by another process; .*remove {path}"):
        RunLock(tmp_path).acquire()


@pytest.mark.usefixtures("_no_flock")
def test_who_comes_late_to_a_dead_owner_gives_a_living_one_its_file_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = fallback_owner(tmp_path, life="another boot 1")
    is_dead = Owner.is_dead

    def somebody_is_faster(owner: Owner) -> bool:
        dead = is_dead(owner)
        fallback_owner(tmp_path, command="faster")
        return dead

    monkeypatch.setattr(Owner, "is_dead", somebody_is_faster)
    with pytest.raises(RequestError, match=r"in use by process .*: faster; expected"):
        RunLock(tmp_path).acquire()
    assert names(tmp_path) == [path.name]


def test_a_symbolic_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "precious").write_bytes(b"precious")
    (tmp_path / run_lock.LOCK_NAME).symlink_to("precious")
    with pytest.raises(StorageError, match="symbolic links"):
        RunLock(tmp_path).acquire()
    assert (tmp_path / "precious").read_bytes() == b"precious"


def test_a_long_command_line_is_cut() -> None:
    assert shorten_command(["manyheads", "train", "a b"]) == "manyheads train 'a b'"
    assert len(shorten_command(["x" * 1000])) == 203
