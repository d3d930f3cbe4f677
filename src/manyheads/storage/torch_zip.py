"""Read what a torch file claims to hold, before torch does.

A `.pt` file is a zip of one record for each tensor and a pickle, `data.pkl`, that puts them
together. What the zip's directory says is held against the file, and what the pickle says against
the directory: a claim that the file does not bear out never reaches torch.

Format: APPNOTE.TXT 6.3, sections 4.3 and 4.5.
"""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from typing import Any, BinaryIO

from manyheads.errors import ModelError, shorten
from manyheads.storage.torch_pickle import Record, damaged, hostile, walk_pickle

MAX_RECORDS = 100_000
MAX_PICKLE_BYTES = 256 << 20

_LOCAL_HEADER = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END64_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")


def read_claims(file: BinaryIO, where: str) -> Any:
    """Read the value that a torch file holds, with a `TensorClaim` in place of each tensor.

    Args:
        file: the open file; its position does not matter.
        where: what to call it in an error.

    Returns:
        What `walk_pickle` returns.

    Raises:
        ModelError: it is not a torch file, is cut or damaged, or holds anything else.
    """
    records = _Reader(file, where).records()
    data = records.get("data.pkl")
    if data is None:
        raise _not_a_checkpoint("is a zip, but not one that torch wrote (no data.pkl)", where)
    if data.size > MAX_PICKLE_BYTES:
        raise hostile(f"describes its contents in {data.size} bytes", where)
    file.seek(data.offset)
    program = file.read(data.size)
    if zlib.crc32(program) != data.crc:
        raise damaged("its description of the contents (data.pkl) has changed", where)
    return walk_pickle(program, records, where)


def _not_a_checkpoint(found: str, where: str) -> ModelError:
    return ModelError(
        found,
        expected="a checkpoint that `manyheads train` wrote",
        fix="Correct the path. Nothing in the file was executed.",
        where=where,
    )


class _Reader:
    """The directory of a zip that torch wrote: stored as it is, nothing hidden or overlapping."""

    def __init__(self, file: BinaryIO, where: str) -> None:
        self.file, self.where = file, where
        self.size = file.seek(0, os.SEEK_END)

    def records(self) -> dict[str, Record]:
        """Return every record by its name, without the folder that all of them are in."""
        self._check_start()
        start = self._check_directory()
        try:
            with zipfile.ZipFile(self.file) as archive:
                entries = sorted(archive.infolist(), key=lambda entry: entry.header_offset)
        except (zipfile.BadZipFile, NotImplementedError, ValueError, struct.error) as error:
            raise damaged(
                f"its directory cannot be read ({shorten(str(error))})", self.where
            ) from None
        ends = [*(entry.header_offset for entry in entries), start][1:]
        records: dict[str, Record] = {}
        for entry, end in zip(entries, ends, strict=True):
            name = entry.filename.partition("/")[2]
            told = f"its record {shorten(name)} is"
            if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1:
                raise hostile(f"{told} compressed or encrypted", self.where)
            if name in records or entry.file_size != entry.compress_size:
                raise hostile(f"{told} described in two ways", self.where)
            records[name] = Record(self._data_offset(entry, end), entry.file_size, entry.CRC)
        return records

    def _check_start(self) -> None:
        self.file.seek(0)
        magic = self.file.read(4)
        if not magic:
            raise _not_a_checkpoint("is empty", self.where)
        if magic[:1] == b"\x80":
            raise _not_a_checkpoint("is a bare pickle, which could run code when read", self.where)
        if magic != b"PK\x03\x04":
            raise _not_a_checkpoint(f"is not a torch file (it begins with {magic!r})", self.where)

    def _check_directory(self) -> int:
        """Check the end of the file, and return where the directory begins.

        Its size is checked before it is read: its entries grow tenfold in memory.
        """
        tail_size = _END64.size + _END64_LOCATOR.size + _END.size
        self.file.seek(max(0, self.size - tail_size))
        tail = self.file.read(tail_size).rjust(tail_size, b"\0")
        signature, _, _, _, count, length, offset, comment = _END.unpack(tail[-_END.size :])
        if signature != b"PK\x05\x06" or comment:
            raise damaged("it is cut; the directory at its end is missing", self.where)
        end = self.size - _END.size
        locator = _END64_LOCATOR.unpack(tail[_END64.size : -_END.size])
        if locator[0] == b"PK\x06\x07":
            end = self.size - tail_size
            signature, _, _, _, _, _, _, count, length, offset = _END64.unpack(tail[: _END64.size])
            if signature != b"PK\x06\x06" or locator[2] != end:
                raise damaged("the directory at its end is garbled", self.where)
        if offset + length != end:
            raise damaged("the directory at its end is not where it says", self.where)
        if count > MAX_RECORDS or length > MAX_RECORDS * 200:
            raise hostile(f"has a directory of {count} records, {length} bytes", self.where)
        return int(offset)

    def _data_offset(self, entry: zipfile.ZipInfo, end: int) -> int:
        """Return where a record's bytes begin, if they end before the next one's header."""
        self.file.seek(entry.header_offset)
        header = self.file.read(_LOCAL_HEADER.size)
        if len(header) == _LOCAL_HEADER.size:
            signature, *_, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            name = self.file.read(name_length)
            offset: int = entry.header_offset + len(header) + name_length + extra_length
            if (
                signature == b"PK\x03\x04"
                and name == entry.orig_filename.encode("utf-8", "surrogateescape")
                and offset + entry.file_size <= end
            ):
                return offset
        raise damaged(f"its record {shorten(entry.filename)} is not where it says", self.where)
