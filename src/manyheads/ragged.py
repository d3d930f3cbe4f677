"""Rows of different lengths in one flat array, on disk where memory would not do."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

SPILL_BYTES = 256 << 20
"""Values beyond this go to an unnamed temporary file that is mapped into memory."""

Integers = NDArray[np.signedinteger[Any]]


@dataclass(frozen=True, slots=True)
class Ragged:
    """Rows of integers: row i is `values[offsets[i]:offsets[i + 1]]`."""

    values: Integers
    offsets: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The length of each row."""
        return np.diff(self.offsets)

    def row(self, i: int) -> Integers:
        """Return one row, without a copy."""
        return self.values[self.offsets[i] : self.offsets[i + 1]]

    def padded(self, rows: Integers, fill: int, width: int | None = None) -> NDArray[np.int64]:
        """Gather rows into a rectangle, filled up at the right.

        Args:
            rows: the rows' numbers.
            fill: the value behind the end of a row.
            width: columns; default, the longest of the rows (at least one).
        """
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        columns = np.arange(width or max(1, int(lengths.max(initial=0))))
        inside = columns < lengths[:, None]
        if not len(self.values):
            return np.full(inside.shape, fill, np.int64)
        places = np.where(inside, starts[:, None] + columns, 0)
        return np.where(inside, self.values[places], fill).astype(np.int64, copy=False)


class FlatBuilder:
    """Collects integers of unknown number in bounded memory."""

    def __init__(self, dtype: type[np.signedinteger[Any]], limit: int = SPILL_BYTES) -> None:
        self._dtype = np.dtype(dtype)
        self._limit = limit
        self._chunks: list[Integers] = []
        self._bytes = 0
        self._count = 0
        self._file: IO[bytes] | None = None

    def extend(self, values: Iterable[int] | Integers) -> None:
        """Append values."""
        chunk = np.asarray(values, self._dtype)
        self._chunks.append(chunk)
        self._count += len(chunk)
        self._bytes += chunk.nbytes
        if self._bytes > self._limit:
            self._spill()

    def _spill(self) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="manyheads-")  # noqa: SIM115 - mapped below
        for chunk in self._chunks:
            self._file.write(chunk.tobytes())
        self._chunks, self._bytes = [], 0

    def finish(self) -> Integers:
        """Return all values, mapped from disk if there were too many for memory."""
        if self._file is None:
            return np.concatenate([np.empty(0, self._dtype), *self._chunks])
        self._spill()
        with self._file as file:
            file.flush()
            return np.memmap(file, self._dtype, mode="r", shape=(self._count,))


class RaggedBuilder:
    """Collects rows for a `Ragged`."""

    def __init__(self, dtype: type[np.signedinteger[Any]], limit: int = SPILL_BYTES) -> None:
        self._values = FlatBuilder(dtype, limit)
        self._lengths = FlatBuilder(np.int32, limit)

    def extend(self, rows: list[Integers]) -> None:
        """Append rows."""
        if rows:
            self._values.extend(np.concatenate(rows))
            self._lengths.extend([len(row) for row in rows])

    def finish(self) -> Ragged:
        """Return all rows."""
        lengths = self._lengths.finish()
        offsets = np.zeros(len(lengths) + 1, np.int64)
        np.cumsum(lengths, out=offsets[1:])
        return Ragged(self._values.finish(), offsets)
