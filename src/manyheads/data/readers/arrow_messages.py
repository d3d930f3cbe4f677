"""The sizes that an Arrow file states of its compressed buffers, before anything unpacks them.

Messages of Arrow's IPC format have a FlatBuffers header
(https://arrow.apache.org/docs/format/Columnar.html#serialization-and-interprocess-communication-ipc).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAGIC = b"ARROW1\0\0"
"""The first bytes of a file. Without them and the footer, its contents are a stream."""

_CONTINUATION = 0xFFFFFFFF
# Numbers of the fields in Message.fbs.
_TYPE, _HEADER, _BODY_LENGTH = 1, 2, 3
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_DATA, _BUFFERS, _COMPRESSION = 1, 2, 3


def unpacked_sizes(data: memoryview, start: int) -> Iterator[tuple[int, int]]:
    """Yield the sizes in bytes of each compressed batch of a stream: packed and unpacked.

    Args:
        data: the file.
        start: where the stream begins in it.

    Raises:
        ValueError: it is damaged.
    """
    try:
        while start + 4 <= len(data):
            (length,) = struct.unpack_from("<I", data, start)
            start += 4
            if length == _CONTINUATION:
                (length,) = struct.unpack_from("<I", data, start)
                start += 4
            if not length:
                return
            body = start + length
            message = _Table.root(data[start:body])
            kind, header = message.number(_TYPE, "<B"), message.table(_HEADER)
            if header is not None and kind == _DICTIONARY_BATCH:
                header = header.table(_DATA)
            is_batch = kind in (_DICTIONARY_BATCH, _RECORD_BATCH)
            if is_batch and header is not None and header.place(_COMPRESSION) is not None:
                yield _sizes(header, data, body)
            start = body + max(0, message.number(_BODY_LENGTH, "<q"))
    except struct.error:
        raise ValueError("a message that ends too early") from None


def _sizes(batch: _Table, data: memoryview, body: int) -> tuple[int, int]:
    """Add up the packed and the unpacked bytes of a batch's buffers."""
    packed = unpacked = 0
    for offset, length in batch.pairs(_BUFFERS):
        if length > 0:
            (size,) = struct.unpack_from("<q", data, body + offset)
            packed += length
            # -1 stands for a buffer that is stored uncompressed.
            unpacked += max(size, length)
    return packed, unpacked


class _Table:
    """A table of a FlatBuffers message."""

    def __init__(self, data: memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._fields = at - struct.unpack_from("<i", data, at)[0]
        (self._end,) = struct.unpack_from("<H", data, self._fields)

    @classmethod
    def root(cls, data: memoryview) -> _Table:
        """Return a message's root table."""
        return cls(data, struct.unpack_from("<I", data)[0])

    def place(self, field: int) -> int | None:
        """Return the position of a field's value, or None if the table lacks it."""
        slot = 4 + 2 * field
        if slot + 2 > self._end:
            return None
        (offset,) = struct.unpack_from("<H", self._data, self._fields + slot)
        return self._at + offset if offset else None

    def number(self, field: int, form: str) -> int:
        """Return a number, or 0 if it is missing."""
        place = self.place(field)
        return 0 if place is None else int(struct.unpack_from(form, self._data, place)[0])

    def table(self, field: int) -> _Table | None:
        """Return a table inside this one."""
        place = self._pointed_at(field)
        return None if place is None else _Table(self._data, place)

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield the pairs of 64-bit numbers in a vector."""
        place = self._pointed_at(field)
        if place is None:
            return
        (count,) = struct.unpack_from("<I", self._data, place)
        for i in range(count):
            yield struct.unpack_from("<qq", self._data, place + 4 + 16 * i)

    def _pointed_at(self, field: int) -> int | None:
        place = self.place(field)
        return None if place is None else place + struct.unpack_from("<I", self._data, place)[0]
