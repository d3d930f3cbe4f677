"""Batches by a budget of sub-tokens: rows grouped by length, so that batches are nearly full."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.training.data.ragged import SPILL_BYTES, zeros

NARROW = 0.85
"""The length of a bin's shortest row relative to its longest, once the bin has enough rows."""

ENOUGH_BATCHES = 8
"""The number of batches from which a bin is not widened."""

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Bin:
    """Rows of similar length, which share batches only with each other."""

    first: int
    """The position of the first in the order by length."""
    records: int
    longest: int
    """Sub-tokens of the longest row."""
    batches: int


@dataclass(frozen=True)
class TokenBins:
    """A source's rows by length.

    The number of batches depends only on the rows' lengths, so it is the same in every epoch.
    """

    parts: tuple[Bin, ...]
    order: NDArray[np.signedinteger[Any]]
    """[N] indices of the source's rows, bin by bin."""
    ends: NDArray[np.int64]
    """For each bin, the number of batches up to its end."""

    @property
    def batches(self) -> int:
        """The number of batches."""
        return int(self.ends[-1]) if len(self.ends) else 0

    def places(self, batch: int) -> tuple[int, NDArray[np.int64]]:
        """Return the bin of a batch, and the batch's positions in the bin's own order."""
        number = int(np.searchsorted(self.ends, batch, side="right"))
        part = self.parts[number]
        within = batch - (int(self.ends[number]) - part.batches)
        # Evenly, so that the last batch is not a small remainder.
        start, stop = (k * part.records // part.batches for k in (within, within + 1))
        return number, np.arange(start, stop)


def make_bins(
    lengths: NDArray[np.signedinteger[Any]], budget: int, limit: int = SPILL_BYTES
) -> TokenBins:
    """Group rows into bins.

    A batch of a bin has at most as many rows as fit the budget when padded to the bin's longest
    row. A row that is longer than the budget is a batch by itself.

    Args:
        lengths: [N] sub-tokens of each row.
        budget: sub-tokens of a batch, padding included.
        limit: bytes of the order to hold in memory.
    """
    counts = np.zeros(1, np.int64)
    for start in range(0, len(lengths), _CHUNK):
        found = np.bincount(lengths[start : start + _CHUNK], minlength=len(counts))
        found[: len(counts)] += counts
        counts = found
    parts = _cut(counts, budget)
    ends = np.cumsum([part.batches for part in parts], dtype=np.int64)
    return TokenBins(parts, _order(lengths, parts, limit), ends)


def join_bins(groups: Sequence[tuple[NDArray[np.int64], TokenBins]]) -> TokenBins:
    """Join the bins of groups of a source's rows, which share no batches.

    Args:
        groups: for each, the indices of its rows among the source's, and its bins.
    """
    parts: list[Bin] = []
    first = 0
    for indices, bins in groups:
        parts += [replace(part, first=first + part.first) for part in bins.parts]
        first += len(indices)
    order = np.concatenate([indices[bins.order] for indices, bins in groups])
    return TokenBins(tuple(parts), order, np.cumsum([part.batches for part in parts]))


def _cut(counts: NDArray[np.int64], budget: int) -> tuple[Bin, ...]:
    """Cut the lengths into bins, from the longest down.

    Args:
        counts: the number of rows of each length from 0.
        budget: sub-tokens of a batch.
    """
    found: list[tuple[int, int]] = []
    longest = records = 0
    for length in np.flatnonzero(counts)[::-1].tolist():
        size = max(1, budget // longest) if longest else 1
        enough = records >= ENOUGH_BATCHES * size
        # Rows beyond the budget have batches by themselves, so they share no bin with others.
        if records and ((enough and length < NARROW * longest) or longest > budget >= length):
            found.append((longest, records))
            records = 0
        longest = longest if records else length
        records += int(counts[length])
    if records:
        found.append((longest, records))
    parts, first = [], 0
    for longest, records in reversed(found):
        size = max(1, budget // longest)
        parts.append(Bin(first, records, longest, -(-records // size)))
        first += records
    return tuple(parts)


def _order(
    lengths: NDArray[np.signedinteger[Any]], parts: Sequence[Bin], limit: int
) -> NDArray[np.signedinteger[Any]]:
    """Return the indices of all rows by bin, in their original order within each."""
    dtype: type[np.signedinteger[Any]] = np.int32 if len(lengths) < 2**31 else np.int64
    longest = np.asarray([part.longest for part in parts])
    following = np.asarray([part.first for part in parts], np.int64)
    order = zeros(len(lengths), dtype, limit)
    for start in range(0, len(lengths), _CHUNK):
        bins = np.searchsorted(longest, lengths[start : start + _CHUNK])
        by_bin = np.argsort(bins, kind="stable")
        sizes = np.bincount(bins, minlength=len(parts))
        ahead = np.cumsum(sizes) - sizes
        places = np.arange(len(bins)) + np.repeat(following - ahead, sizes)
        order[places] = start + by_bin
        following += sizes
    return order
