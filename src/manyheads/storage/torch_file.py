"""Check that a torch file is safe to hand to torch.

A `.pt` file is a zip with one record for each tensor and a pickle, `data.pkl`, that puts them
together. `torch.load(weights_only=True)` runs no code from it, and with `mmap=True` it takes no
memory for the tensors. This module refuses what torch does not limit:

- a compressed record of a gigabyte of zeros, records that claim more bytes than the file has, and a
  zip directory, which grows tenfold when it is read;
- `bytearray(1 << 40)`: torch calls more functions than tensors need;
- a container that occurs twice, which can nest to a billion copies, and millions of opcodes;
- dictionary keys that take forever to hash: nested tuples, and integers chosen to collide.

Formats: APPNOTE.TXT 6.3, sections 4.3 and 4.5; the opcodes as `pickletools` documents them.
"""

from __future__ import annotations

import os
import pickletools
import struct
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

from manyheads.errors import ModelError, shorten

MAX_RECORDS = 100_000
MAX_PICKLE_BYTES = 256 << 20
MAX_OPCODES = 1_000_000
_CHUNK = 1 << 20
_HEADER = 1 << 12
"""Bytes at the start of a record that are always copied: torch's headers are shorter."""

_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")

_REBUILD = "torch._utils _rebuild_tensor_v2"
_ORDERED_DICT = "collections OrderedDict"
_KINDS = ("Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool")
_STORAGES = frozenset(f"torch {kind}Storage" for kind in _KINDS)
_GLOBALS = _STORAGES | {_REBUILD, _ORDERED_DICT}
_TEXT, _NOTHING = "BINUNICODE", "EMPTY_TUPLE"
_KEYS = frozenset({_TEXT, "BININT", "BININT1", "BININT2"})
_PUT, _GET = ("BINPUT", "LONG_BINPUT"), ("BINGET", "LONG_BINGET")
_TUPLES = ("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3")
_OPCODES = _KEYS.union(
    *(_PUT, _GET, _TUPLES, ("PROTO", "STOP", "MARK", "GLOBAL", "BINPERSID", "REDUCE")),
    ("NONE", "NEWTRUE", "NEWFALSE", "LONG1", "BINFLOAT", _NOTHING),
    ("EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM", "SETITEMS"),
)


def check_torch_file(file: BinaryIO, where: str) -> None:
    """Refuse a torch file that could take unlimited memory or time.

    Args:
        file: the open file; its position does not matter.
        where: its name in an error.

    Raises:
        ModelError: it is not a torch file, is truncated or damaged, or holds anything but tensors,
            text and numbers.
    """
    size = file.seek(0, os.SEEK_END)
    with _opened(file, size, where) as archive:
        check_pickle(_program(archive, size, where), where)


@contextmanager
def private_copy(file: BinaryIO, where: str, *, tensors: bool) -> Iterator[BinaryIO]:
    """Copy a torch file into memory that no other process can write to.

    The check and torch then read the same bytes, even if the file is overwritten meanwhile.

    Args:
        file: the open file; its position does not matter.
        where: its name in an error.
        tensors: whether to copy the tensors; if not, most of their bytes are zeros, which take
            no memory.

    Raises:
        ModelError: the file is not a zip.
    """
    size = file.seek(0, os.SEEK_END)
    ranges = _tensor_ranges(file, size, where)  # which refuses other files uncopied
    with _private_file() as copy:
        copy.truncate(size)
        place = 0
        for start, end in (*(() if tensors else ranges), (size, size)):
            _copy_range(file, copy, place, min(start, size))
            place = max(place, end)
        yield copy


def _private_file() -> BinaryIO:
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("torch-file", os.MFD_CLOEXEC)
        return cast(BinaryIO, os.fdopen(descriptor, "w+b", buffering=0))
    # macOS has no files in memory. This one has no name.
    return cast(BinaryIO, tempfile.TemporaryFile(prefix="manyheads-", buffering=0))


def _tensor_ranges(file: BinaryIO, size: int, where: str) -> list[tuple[int, int]]:
    """Return the ranges of the file that hold large tensors, without their first few elements."""
    with _opened(file, size, where) as archive:
        ranges = [
            (entry.header_offset + _HEADER, entry.header_offset + entry.file_size)
            for entry in archive.infolist()
            if not entry.filename.endswith("/data.pkl")
        ]
    return sorted((start, end) for start, end in ranges if start < end)


def _copy_range(file: BinaryIO, copy: BinaryIO, start: int, end: int) -> None:
    for place in range(start, end, _CHUNK):
        # If the file has been truncated, the copy keeps zeros there, which the checks detect.
        os.pwrite(copy.fileno(), os.pread(file.fileno(), min(_CHUNK, end - place), place), place)


@contextmanager
def _opened(file: BinaryIO, size: int, where: str) -> Iterator[zipfile.ZipFile]:
    """Open a zip after a check of its start and the size of its directory."""
    _check_start(file, where)
    _check_directory(file, size, where)
    try:
        with zipfile.ZipFile(file) as archive:
            yield archive
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, struct.error) as error:
        raise damaged(f"it is no sound zip ({shorten(str(error))})", where) from None


def damaged(found: str, where: str) -> ModelError:
    """Return the error for a file that has changed since it was written."""
    return ModelError(
        f"is damaged: {found}",
        expected="the bytes that were written",
        fix="Use another checkpoint, or restore this one from a copy.",
        where=where,
    )


def hostile(found: str, where: str) -> ModelError:
    """Return the error for a file that holds something that no checkpoint does."""
    return ModelError(
        found,
        expected="tensors, text and numbers only, as `manyheads train` writes them",
        fix="Do not use this file unless you know what it is. Nothing in it was executed.",
        where=where,
    )


def _not_a_checkpoint(found: str, where: str) -> ModelError:
    return ModelError(
        found,
        expected="a checkpoint that `manyheads train` wrote",
        fix="Correct the path. Nothing in the file was executed.",
        where=where,
    )


def _check_start(file: BinaryIO, where: str) -> None:
    file.seek(0)
    magic = file.read(4)
    if not magic:
        raise _not_a_checkpoint("is empty", where)
    if magic[:1] == b"\x80":
        raise _not_a_checkpoint("is a bare pickle, which could run code when read", where)
    if magic != b"PK\x03\x04":
        raise _not_a_checkpoint(f"is not a torch file (it begins with {magic!r})", where)


def _check_directory(file: BinaryIO, size: int, where: str) -> None:
    """Check the end of the zip, and the place and size of its directory, before reading it.

    The directory must end where the file does: torch and `zipfile` search for it in different ways
    if it does not.
    """
    tail_size = _END64.size + _END64_LOCATOR.size + _END.size
    file.seek(max(0, size - tail_size))
    tail = file.read(tail_size).rjust(tail_size, b"\0")
    signature, _, _, _, count, length, offset, comment = _END.unpack(tail[-_END.size :])
    if signature != b"PK\x05\x06" or comment:
        raise damaged("it is cut; the directory at its end is missing", where)
    end = size - _END.size
    locator = _END64_LOCATOR.unpack(tail[_END64.size : -_END.size])
    if locator[0] == b"PK\x06\x07":
        end = size - tail_size
        signature, _, _, _, _, _, _, count, length, offset = _END64.unpack(tail[: _END64.size])
        if signature != b"PK\x06\x06" or locator[2] != end:
            raise damaged("the directory at its end is garbled", where)
    if offset + length != end:
        raise damaged("the directory at its end is not at the stated place", where)
    if count > MAX_RECORDS or length > MAX_RECORDS * 200:
        raise hostile(f"has a directory of {count} records, {length} bytes", where)


def _program(archive: zipfile.ZipFile, size: int, where: str) -> bytes:
    """Return the pickle of a zip that torch wrote: uncompressed records in one folder."""
    entries = archive.infolist()
    names = [entry.filename.lower() for entry in entries]
    folder = entries[0].filename.partition("/")[0] if entries else ""
    for entry in entries:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
            raise hostile(f"its record {shorten(entry.filename)} is compressed or encrypted", where)
        if entry.file_size != entry.compress_size:
            raise hostile(f"its record {shorten(entry.filename)} has two sizes", where)
    if len(set(names)) != len(names):
        raise hostile("has two records of one name", where)
    if (claimed := sum(entry.file_size for entry in entries)) > size:
        raise hostile(f"claims {claimed} bytes of records in {size}", where)
    if f"{folder}/data.pkl" not in archive.NameToInfo:
        raise _not_a_checkpoint("is a zip, but not one that torch wrote (no data.pkl)", where)
    data = archive.getinfo(f"{folder}/data.pkl")
    if data.file_size > MAX_PICKLE_BYTES:
        raise hostile(f"describes its contents in {data.file_size} bytes", where)
    return archive.read(data)


def check_pickle(program: bytes, where: str) -> None:
    """Follow a pickle by the names of its values; nothing is called, imported or built.

    Raises:
        ModelError: it holds anything but tensors, text and numbers, or a container twice.
    """
    steps = _Steps(where)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(program)):
            if count >= MAX_OPCODES:
                raise hostile(f"describes its contents in more than {MAX_OPCODES} steps", where)
            steps.follow(opcode, argument)
        if steps.stack or steps.marks:
            raise ValueError("more than one value")
    except (ValueError, IndexError, KeyError, TypeError):
        raise hostile("describes its contents in a way that makes no sense", where) from None


class _Steps:
    """A pickle's stack and memo, with a name in place of each value.

    The name of a value is that of the opcode that made it; a global has its own name, and a tuple
    the names of its items.
    """

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def follow(self, opcode: pickletools.OpcodeInfo, argument: Any) -> None:
        """Apply an opcode to the names as pickle applies it to the values, or refuse it."""
        name = opcode.name
        if name not in _OPCODES:
            raise hostile(f"uses the pickle opcode {name}", self.where)
        if name == "PROTO" and argument != 2:
            raise hostile("is a pickle of another protocol than torch's", self.where)
        if name == "MARK":
            self.marks.append(len(self.stack))
        elif name in _PUT:
            self.memo[argument] = self.stack[-1]
        elif name in _GET:
            value = self.memo[argument]
            if value not in (_TEXT, _NOTHING) and value not in _GLOBALS:
                raise hostile("refers to one container twice", self.where)
            self.stack.append(value)
        else:
            items = self._taken(opcode)
            if opcode.stack_after:
                self.stack.append(self._result(name, argument, items))

    def _taken(self, opcode: pickletools.OpcodeInfo) -> list[Any]:
        """Take an opcode's arguments from the stack; a container that it adds to comes first."""
        count = len(opcode.stack_before)
        above: list[Any] = []
        if pickletools.markobject in opcode.stack_before:
            start, count = self.marks.pop(), count - 2
            above = self.stack[start:]
            del self.stack[start:]
        end = len(self.stack) - count
        if end < (self.marks[-1] if self.marks else 0):
            raise ValueError("a mark where a value is needed")
        taken = self.stack[end:]
        del self.stack[end:]
        return taken + above

    def _result(self, name: str, argument: Any, items: list[Any]) -> Any:
        """Return the name of the value that an opcode makes from others."""
        if name == "GLOBAL":
            if argument not in _GLOBALS:
                asked = shorten(argument.replace(" ", "."))
                raise hostile(f"asks for the Python object {asked}", self.where)
            return argument
        if name in _TUPLES:
            return tuple(item if isinstance(item, str) else "TUPLE" for item in items)
        if name in ("APPEND", "APPENDS"):
            return items[0]
        if name in ("SETITEM", "SETITEMS"):
            if not _KEYS.issuperset(items[1::2]):
                raise ValueError("a key that is neither text nor a small number")
            return items[0]
        if name == "BINPERSID":
            kind, storage, key, place, _ = items[0]
            if (kind, key, place) != (_TEXT,) * 3 or storage not in _STORAGES:
                raise ValueError("not a storage")
        if name == "REDUCE":
            function, arguments = items
            none = function == _ORDERED_DICT and arguments in (_NOTHING, ())
            if not none and (function != _REBUILD or arguments[0] != "BINPERSID"):
                raise hostile("describes a call that is not a tensor's", self.where)
        return name
