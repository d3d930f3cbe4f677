"""Files and folders are written completely or not at all, however the writer stops."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import resource
import shutil
import signal
import stat
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from files import contents_of
from manyheads.storage import (
    StorageError,
    atomic,
    atomic_file,
    atomic_folder,
    sha256,
    sha256_file,
    temporary,
    write_json,
)
from manyheads.storage.atomic import write_bytes
from manyheads.storage.temporary import remove_leftovers
from small_disk import small_disk

OLD, NEW = b"the old contents", b"the new contents"


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def fail_with(code: int) -> Callable[..., None]:
    def fail(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    return fail


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed_while(folder: Path, step: str, action: str) -> None:
    """Run `action` in a copy of this process that is killed when it reaches `step`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads
        child = os.fork()
    if not child:
        try:
            os.chdir(folder)
            exec(f"{step}\n{action}", {**globals(), "pathlib": pathlib, "shutil": shutil})
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL


# Files


def test_a_file_gets_its_new_contents_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_bytes(path, OLD)
    write_bytes(path, NEW)
    write_json(tmp_path / "value.json", {"b": [1, 2.5, None], "a": "\ud800é"})
    assert path.read_bytes() == NEW
    assert json.loads((tmp_path / "value.json").read_bytes()) == {
        "b": [1, 2.5, None],
        "a": "\ud800é",
    }
    assert names(tmp_path) == ["file", "value.json"]


def test_json_cannot_express_not_a_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "value.json", float("nan"))
    assert names(tmp_path) == []


def test_the_old_contents_stay_visible_until_the_new_are_complete(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    with atomic_file(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW


def test_contents_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def note_fsync(descriptor: int) -> None:
        steps.append(f"flush {'folder' if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 'file'}")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        assert self.read_bytes() == NEW
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(atomic.os, "fsync", note_fsync)
    monkeypatch.setattr(Path, "replace", note_replace)
    write_bytes(tmp_path / "file", NEW)
    assert steps == ["flush file", "rename", "flush folder"]


def test_an_exception_in_the_body_leaves_the_old_contents(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)

    def interrupted() -> None:
        with atomic_file(path) as file:
            file.write(NEW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents_of(tmp_path) == {"file": OLD}


def test_a_private_file_is_private_while_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    with atomic_file(tmp_path / "file") as file:
        file.write(NEW)
        modes = {stat.S_IMODE(one.stat().st_mode) for one in tmp_path.iterdir()}
    assert modes == {0o600}


def test_another_failure_in_the_body_is_not_blamed_on_the_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "file"):
        (tmp_path / "missing").read_bytes()


def test_a_new_file_obeys_the_umask_and_an_old_one_keeps_its_mode(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_bytes(tmp_path / "new", NEW)
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o600)
    write_bytes(tmp_path / "new", OLD)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600


def test_a_symbolic_link_is_kept(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder/file")
    write_bytes(tmp_path / "link", NEW)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "folder/file").read_bytes() == NEW


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_bytes(pipe, NEW)
        assert os.read(reader, 100) == NEW
    finally:
        os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


def test_a_file_with_the_longest_possible_name_can_be_written(tmp_path: Path) -> None:
    name = "é" * 127 + "x"
    write_bytes(tmp_path / name, OLD)
    write_bytes(tmp_path / name, NEW)
    assert contents_of(tmp_path) == {name: NEW}


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (errno.ENOSPC, r"the disk is full \(.* free\); expected room .*Free some space"),
        (errno.EDQUOT, "the disk quota is used up"),
        (errno.EROFS, "the file system is read-only; expected .*Choose another folder"),
        (errno.EACCES, "permission is denied"),
        (errno.EIO, "the disk reported an input/output error"),
        (errno.ENOENT, "its folder does not exist or was removed. Create the folder"),
        (errno.EBUSY, "cannot be written: Device or resource busy"),
    ],
)
@pytest.mark.parametrize("step", ["fsync", "rename"])
def test_a_failed_write_is_explained_and_leaves_the_old_contents(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int, message: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    if step == "fsync":
        monkeypatch.setattr(atomic.os, "fsync", fail_with(code))
    else:
        monkeypatch.setattr(Path, "replace", fail_with(code))
    with pytest.raises(StorageError, match=message) as caught:
        write_bytes(path, NEW)
    assert str(caught.value).startswith(f"{path}: cannot be written: ")
    assert str(caught.value).endswith("; what was saved before is untouched.")
    assert contents_of(tmp_path) == {"file": OLD}


def test_a_file_system_that_cannot_flush_is_not_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(atomic.os, "fsync", fail_with(errno.EINVAL))
    write_bytes(tmp_path / "file", NEW)
    assert contents_of(tmp_path) == {"file": NEW}


@pytest.mark.parametrize("size", [5_000, 3 << 20])
def test_a_write_that_the_system_cuts_short_is_explained(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(StorageError, match="file system does not support so large a file"):
            write_bytes(path, bytes(size))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert contents_of(tmp_path) == {"file": OLD}


def test_a_missing_folder_and_a_folder_in_the_way_are_explained(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="its folder does not exist or was removed"):
        write_bytes(tmp_path / "missing/file", NEW)
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(StorageError, match="there is a file where a folder is needed"):
        write_bytes(tmp_path / "file/file", NEW)
    with pytest.raises(StorageError, match="it is a folder; expected a file"):
        write_bytes(tmp_path, NEW)
    with pytest.raises(StorageError, match=r"path 'a\\x00b' is not valid"):
        write_bytes("a\0b", NEW)
    (tmp_path / "circle").symlink_to("circle")
    with pytest.raises(StorageError, match="its symbolic links form a loop"):
        write_bytes(tmp_path / "circle/file", NEW)


FILE_STEPS = {
    "after it made the temporary file": "atomic.io.BufferedWriter = die",
    "before the flush to the disk": "os.fsync = die",
    "before the new name": "pathlib.Path.replace = die",
    "after the new name": "atomic.sync_folder = die",
}


@pytest.mark.parametrize("step", FILE_STEPS.values(), ids=FILE_STEPS.keys())
def test_a_killed_writer_leaves_a_whole_file_and_the_next_one_cleans_up(
    tmp_path: Path, step: str
) -> None:
    path = tmp_path / "file"
    path.write_bytes(OLD)
    killed_while(tmp_path, step, f"atomic.write_bytes('file', {NEW!r})")
    assert path.read_bytes() == (NEW if "sync_folder" in step else OLD)
    write_bytes(path, b"later")
    assert contents_of(tmp_path) == {"file": b"later"}


def test_cleaning_up_spares_living_writers_and_other_names(tmp_path: Path) -> None:
    killed_while(tmp_path, FILE_STEPS["before the new name"], "atomic.write_bytes('dead', b'x')")
    (tmp_path / ".notes.0123abcd.tmp").write_bytes(b"mine")
    with atomic_file(tmp_path / "alive") as file, atomic_folder(tmp_path / "folder") as folder:
        file.write(NEW)
        (folder / "inner").write_bytes(NEW)
        assert remove_leftovers(tmp_path, "alive") == 0
        assert remove_leftovers(tmp_path, "other") == 0
        assert remove_leftovers(tmp_path) == 1
    assert contents_of(tmp_path) == {
        ".notes.0123abcd.tmp": b"mine",
        "alive": NEW,
        "folder/inner": NEW,
    }


def test_a_writer_whose_new_file_was_taken_for_a_leftover_makes_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = temporary.fcntl.flock
    victims: list[str] = []

    def clean_up_first(descriptor: int, operation: int) -> None:
        if len(victims) < 2:
            (victim,) = tmp_path.glob(".*.manyheads-tmp")
            victim.rmdir() if victim.is_dir() else victim.unlink()
            victims.append(victim.name)
        flock(descriptor, operation)

    monkeypatch.setattr(temporary.fcntl, "flock", clean_up_first)
    write_bytes(tmp_path / "file", NEW)
    assert len(set(victims)) == 2
    victims.clear()
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, NEW)
    assert len(set(victims)) == 2
    assert contents_of(tmp_path) == {"file": NEW} | {
        f"best/{name}": data for name, data in expected(NEW).items()
    }


def test_without_locks_files_are_written_and_no_leftover_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(temporary.fcntl, "flock", fail_with(errno.ENOTSUP))
    leftover = tmp_path / ".file.0123abcd.manyheads-tmp"
    leftover.touch()
    write_bytes(tmp_path / "file", NEW)
    assert contents_of(tmp_path) == {leftover.name: b"", "file": NEW}


# Folders


def fill(folder: Path, data: bytes) -> None:
    (folder / "inner").mkdir()
    (folder / "inner/file").write_bytes(data)
    (folder / f"only in {data.decode()}").write_bytes(data)


def expected(data: bytes) -> dict[str, bytes]:
    return {"inner/file": data, f"only in {data.decode()}": data}


class OtherLibrary:
    """A C library without `renameat2`, as that of macOS."""

    def __init__(self, name: None, *, use_errno: bool) -> None: ...


@pytest.fixture(params=["exchange", "two renames", "other library"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The two ways of swapping folders, and a system that has the second alone."""
    if request.param == "two renames":
        monkeypatch.setattr(atomic, "_exchange", fail_with(errno.EINVAL))
    if request.param == "other library":
        monkeypatch.setattr("manyheads.storage.atomic.ctypes.CDLL", OtherLibrary)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_a_folder_is_replaced_as_a_whole(tmp_path: Path) -> None:
    for data in (OLD, NEW):
        with atomic_folder(tmp_path / "best") as folder:
            fill(folder, data)
        assert contents_of(tmp_path / "best") == expected(data)
        assert names(tmp_path) == ["best"]


@pytest.mark.parametrize("mode", [0o700, 0o2770])
@pytest.mark.usefixtures("way")
def test_a_folder_keeps_its_mode(tmp_path: Path, mode: int) -> None:
    best = tmp_path / "best"
    best.mkdir()
    best.chmod(mode)
    with atomic_folder(best) as folder:
        assert stat.S_IMODE(folder.stat().st_mode) == mode
        fill(folder, NEW)
    assert stat.S_IMODE(best.stat().st_mode) == mode
    assert contents_of(best) == expected(NEW)


@pytest.mark.usefixtures("way")
def test_everything_in_a_folder_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync, swap = os.fsync, atomic._swap

    def note_fsync(descriptor: int) -> None:
        flushed.append(os.fstat(descriptor).st_ino)
        fsync(descriptor)

    def check_then_swap(temporary: Path, target: Path) -> None:
        entries = [temporary, *temporary.rglob("*")]
        assert len(entries) == 4
        assert sorted(flushed) == sorted(entry.stat().st_ino for entry in entries)
        swap(temporary, target)

    monkeypatch.setattr(atomic.os, "fsync", note_fsync)
    monkeypatch.setattr(atomic, "_swap", check_then_swap)
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, NEW)
    assert flushed[-1] == tmp_path.stat().st_ino


@pytest.mark.usefixtures("way")
def test_an_exception_while_filling_leaves_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, OLD)

    def interrupted() -> None:
        with atomic_folder(tmp_path / "best") as folder:
            fill(folder, NEW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert contents_of(tmp_path / "best") == expected(OLD)
    assert names(tmp_path) == ["best"]


@pytest.mark.usefixtures("way")
def test_a_signal_while_the_old_folder_is_removed_leaves_nothing_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, OLD)
    rmtree = shutil.rmtree

    def interrupted(folder: Path, ignore_errors: bool) -> None:
        monkeypatch.setattr(shutil, "rmtree", rmtree)
        rmtree(folder / "inner", ignore_errors=ignore_errors)
        raise KeyboardInterrupt

    def replace() -> None:
        with atomic_folder(tmp_path / "best") as folder:
            fill(folder, NEW)
            monkeypatch.setattr(shutil, "rmtree", interrupted)

    held = [*Path("/dev/fd").iterdir()]
    with pytest.raises(KeyboardInterrupt):
        replace()
    assert [*Path("/dev/fd").iterdir()] == held, "the lock is released"
    assert contents_of(tmp_path / "best") == expected(NEW)
    assert names(tmp_path) == ["best"]


@pytest.mark.parametrize("step", ["fsync", "rename"])
@pytest.mark.usefixtures("way")
def test_a_failed_folder_is_explained_and_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, OLD)
    if step == "fsync":
        monkeypatch.setattr(atomic.os, "fsync", fail_with(errno.ENOSPC))
    else:
        monkeypatch.setattr(atomic, "_swap", fail_with(errno.ENOSPC))
    with (
        pytest.raises(StorageError, match="best: cannot be written: the disk is full"),
        atomic_folder(tmp_path / "best") as folder,
    ):
        fill(folder, NEW)
    assert contents_of(tmp_path / "best") == expected(OLD)
    assert names(tmp_path) == ["best"]


def test_an_error_about_a_file_outside_the_folder_is_not_blamed_on_it(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_folder(tmp_path / "best"):
        (tmp_path / "missing").read_bytes()
    with (
        pytest.raises(StorageError, match="best: cannot be"),
        atomic_folder(tmp_path / "best") as f,
    ):
        (f / "missing").read_bytes()
    assert names(tmp_path) == []


def test_a_file_in_the_way_of_a_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "best").write_bytes(OLD)
    with (
        pytest.raises(StorageError, match="there is a file where a folder is needed"),
        atomic_folder(tmp_path / "best"),
    ):
        pytest.fail("the folder must not be filled")
    assert contents_of(tmp_path) == {"best": OLD}


NO_EXCHANGE = """
def refuse(*_):
    raise OSError(22, "")
atomic._exchange = refuse
"""
FOLDER_STEPS = {
    "while it fills the folder": ("", "die()", OLD),
    "before the flush to the disk": ("os.fsync = die", "", OLD),
    "before the exchange": ("atomic._exchange = die", "", OLD),
    "after the exchange": ("shutil.rmtree = die", "", NEW),
    "before the first rename": (
        NO_EXCHANGE + "pathlib.Path.rename = die",
        "",
        OLD,
    ),
    "between the two renames": (
        NO_EXCHANGE + "rename = pathlib.Path.rename\n"
        "def once(self, to):\n    rename(self, to)\n    die()\npathlib.Path.rename = once",
        "",
        OLD,
    ),
    "after the two renames": (
        NO_EXCHANGE + "shutil.rmtree = die",
        "",
        NEW,
    ),
}


@pytest.mark.parametrize(
    ("step", "body", "survivor"), FOLDER_STEPS.values(), ids=FOLDER_STEPS.keys()
)
def test_a_killed_writer_leaves_a_whole_folder_and_the_next_one_cleans_up(
    tmp_path: Path, step: str, body: str, survivor: bytes
) -> None:
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, OLD)
    action = f"""
with atomic.atomic_folder('best') as folder:
    (folder / 'inner').mkdir()
    (folder / 'inner/file').write_bytes({NEW!r})
    {body}
    (folder / 'only in {NEW.decode()}').write_bytes({NEW!r})
"""
    killed_while(tmp_path, step, action)
    if not (tmp_path / "best").exists():
        assert remove_leftovers(tmp_path) == 2
    assert contents_of(tmp_path / "best") == expected(survivor)
    with atomic_folder(tmp_path / "best") as folder:
        fill(folder, b"later")
    assert contents_of(tmp_path / "best") == expected(b"later")
    assert names(tmp_path) == ["best"]


def test_a_folder_moved_aside_by_a_living_writer_is_not_put_back(tmp_path: Path) -> None:
    aside = tmp_path / ".best.0123abcd.manyheads-old"
    aside.mkdir()
    lock = temporary.lock_folder(aside)
    try:
        assert remove_leftovers(tmp_path) == 0
    finally:
        os.close(lock)
    assert remove_leftovers(tmp_path) == 1
    assert names(tmp_path) == ["best"]


# A real file system that fills up


def test_a_full_disk_ends_with_a_message_and_the_last_good_state(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        write_bytes(disk / "file", OLD)
        with atomic_folder(disk / "best") as folder:
            fill(folder, OLD)
        message = r"the disk is full \(.* of 1\.0 MB free\); expected room"
        with pytest.raises(StorageError, match=rf"file: cannot be written: {message}"):
            write_bytes(disk / "file", bytes(2 << 20))
        with (
            pytest.raises(StorageError, match=rf"best: cannot be written: {message}"),
            atomic_folder(disk / "best") as folder,
        ):
            (folder / "large").write_bytes(bytes(2 << 20))
        assert names(disk) == ["best", "file"]
        assert (disk / "file").read_bytes() == OLD
        assert contents_of(disk / "best") == expected(OLD)
        write_bytes(disk / "file", bytes(1 << 19))  # the failed attempts freed their space


def test_a_read_only_disk_ends_with_a_message(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", options=",ro") as disk:
        with pytest.raises(StorageError, match="the file system is read-only"):
            write_bytes(disk / "file", NEW)
        with (
            pytest.raises(StorageError, match="the file system is read-only"),
            atomic_folder(disk / "best"),
        ):
            pytest.fail("the folder must not be filled")


# Checksums


def test_the_checksum_of_a_file_is_that_of_its_contents(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    (tmp_path / "file").write_bytes(data)
    assert sha256_file(tmp_path / "file") == sha256(data)
    assert sha256(b"abc").startswith("ba7816bf8f01cfea")
    with pytest.raises(StorageError, match="missing: cannot be read: there is no such file"):
        sha256_file(tmp_path / "missing")
