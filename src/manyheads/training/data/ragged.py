"""Rows of different lengths in one flat array, mapped from disk if it is large."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import IO, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from manyheads.storage import explained

SPILL_BYTES = 8 << 20
"""A larger array goes to an unnamed temporary file that is mapped into memory."""

Integers = NDArray[np.signedinteger[Any]]

_Number = TypeVar("_Number", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of numbers: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: NDArray[Any]
    offsets: Integers
    """[rows + 1] int64."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Integers:
        """The length of each row."""
        return np.diff(self.offsets)

    def lengths_of(self, rows: Integers) -> Integers:
        """Return the lengths of the given rows."""
        return self.offsets[rows + 1] - self.offsets[rows]

    def row(self, i: int) -> Integers:
        """Return one row, without a copy."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def padded(self, rows: Integers, fill: float, width: int | None = None) -> NDArray[Any]:
        """Gather rows into a rectangle, padded at the right: int64, or the rows' type if floats.

        Args:
            rows: indices of the rows.
            fill: the value of the padding.
            width: columns; default, the longest of the rows (at least one).
        """
        starts, lengths = self.offsets[rows], self.lengths_of(rows)
        columns = np.arange(width or max(1, int(lengths.max(initial=0))))
        inside = columns < lengths[:, None]
        dtype = np.int64 if self.values.dtype.kind == "i" else self.values.dtype
        if not len(self.values):
            return np.full(inside.shape, fill, dtype)
        places = np.where(inside, starts[:, None] + columns, 0)
        return np.where(inside, self.values[places], fill).astype(dtype, copy=False)


def zeros(
    shape: int | tuple[int, ...], dtype: type[_Number], limit: int = SPILL_BYTES
) -> NDArray[_Number]:
    """Return a writable array of zeros, in memory or, beyond a limit in bytes, mapped from disk.

    Raises:
        StorageError: the disk has no space for it.
    """
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if size <= limit:
        return np.zeros(shape, dtype)
    with _temporary_file() as file:
        with explained(tempfile.gettempdir()):
            _reserve(file, size)
        return np.memmap(file, dtype, mode="r+", shape=shape)


def _reserve(file: IO[bytes], size: int) -> None:
    """Allocate a file, so that a full disk fails here and not at the first write."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, size)
    else:
        file.truncate(size)


def _temporary_file() -> IO[bytes]:
    return tempfile.TemporaryFile(prefix="manyheads-")


class FlatBuilder:
    """Collects any number of values in bounded memory."""

    def __init__(self, dtype: type[np.number[Any]], limit: int = SPILL_BYTES) -> None:
        self._dtype = np.dtype(dtype)
        self._limit = limit
        self._chunks: list[Integers] = []
        self._bytes = 0
        self._count = 0
        self._file: IO[bytes] | None = None

    def extend(self, values: Iterable[int] | NDArray[Any]) -> None:
        """Append values."""
        chunk = np.asarray(values, self._dtype)
        self._chunks.append(chunk)
        self._count += len(chunk)
        self._bytes += chunk.nbytes
        if self._bytes > self._limit:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = _temporary_file()
        for chunk in self._chunks:
            self._file.write(chunk.tobytes())
        self._chunks, self._bytes = [], 0

    def finish(self) -> Integers:
        """Return all values, mapped from disk if they exceeded the limit."""
        if self._file is None:
            return np.concatenate([np.empty(0, self._dtype), *self._chunks])
        self._spill()
        with self._file as file:
            file.flush()
            return np.memmap(file, self._dtype, mode="r", shape=(self._count,))


class RaggedBuilder:
    """Collects the rows of a `Ragged`."""

    def __init__(self, dtype: type[np.number[Any]], limit: int = SPILL_BYTES) -> None:
        self._values = FlatBuilder(dtype, limit)
        self._offsets = FlatBuilder(np.int64, limit)
        self._offsets.extend([0])
        self._end = 0

    def extend(self, rows: Sequence[NDArray[Any]]) -> None:
        """Append rows."""
        if rows:
            self._values.extend(np.concatenate(rows))
            ends = self._end + np.cumsum([len(row) for row in rows])
            self._offsets.extend(ends)
            self._end = int(ends[-1])

    def finish(self) -> Ragged:
        """Return all rows."""
        return Ragged(self._values.finish(), self._offsets.finish())
