"""The sizes that a Parquet file states in its footer, read without pyarrow.

When asked for the sizes of a column, pyarrow ends the whole process on some damaged footers, which
it refuses when it reads rows. The footer is in Thrift's compact protocol
(https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MAGIC = b"PAR1"
_DEEPEST = 32
_LARGEST = 1 << 28

# Numbers of the fields in parquet.thrift.
_ROW_GROUPS, _COLUMNS, _ROWS, _META = 4, 1, 3, 3
_PATH, _VALUES, _UNPACKED, _PACKED = 3, 5, 6, 7


@dataclass(frozen=True, slots=True)
class ColumnSize:
    """A column of a row group."""

    name: str
    rows: int
    values: int
    unpacked: int
    """Bytes of its pages once decompressed."""
    packed: int


def column_sizes(path: Path) -> Iterator[ColumnSize]:
    """Yield the size of every column of every row group.

    Raises:
        ValueError: the footer is damaged.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        file.seek(max(0, end - 8))
        tail = file.read(8)
        length = int.from_bytes(tail[:4], "little")
        if tail[4:] != _MAGIC or length > min(end - 8, _LARGEST):
            raise ValueError("no footer of a Parquet file")
        file.seek(end - 8 - length)
        footer = _Compact(file.read(length)).struct()
    for group in _list(footer.get(_ROW_GROUPS)):
        rows = _count(group, _ROWS)
        for column in _list(group.get(_COLUMNS)):
            meta = column.get(_META)
            if not isinstance(meta, dict):
                raise ValueError("a column without metadata")
            parts = meta.get(_PATH)
            names = [p for p in parts if isinstance(p, bytes)] if isinstance(parts, list) else []
            yield ColumnSize(
                b".".join(names).decode("utf-8", "replace"),
                rows,
                *(_count(meta, number) for number in (_VALUES, _UNPACKED, _PACKED)),
            )


def _list(value: Any) -> list[dict[int, Any]]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ValueError("a footer without row groups or columns")
    return value


def _count(struct: dict[int, Any], number: int) -> int:
    value = struct.get(number)
    if type(value) is not int or value < 0:
        raise ValueError(f"a size of {value!r}")
    return value


class _Compact:
    """Reads values of Thrift's compact protocol: numbers, bytes, lists, and structs by field."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        fields: dict[int, Any] = {}
        number = 0
        while head := self._byte():
            kind, step = head & 15, head >> 4
            number = number + step if step else self._integer()
            # A Boolean's value is in the kind itself.
            fields[number] = kind == 1 if kind in (1, 2) else self._value(kind, depth + 1)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _DEEPEST:
            raise ValueError("values nested too deep")
        if kind in (1, 2, 3):
            return self._byte()
        if kind in (4, 5, 6):
            return self._integer()
        if kind == 7:
            return self._bytes(8)
        if kind == 8:
            return self._bytes(self._varint())
        if kind in (9, 10):
            head = self._byte()
            size = head >> 4 if head >> 4 < 15 else self._varint()
            return [self._value(head & 15, depth + 1) for _ in range(size)]
        if kind == 12:
            return self.struct(depth)
        raise ValueError(f"a value of kind {kind}")

    def _bytes(self, count: int) -> bytes:
        found = self._data[self._at : self._at + count]
        if len(found) < count:
            raise ValueError("a footer that ends too early")
        self._at += count
        return found

    def _byte(self) -> int:
        return self._bytes(1)[0]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise ValueError("a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)
