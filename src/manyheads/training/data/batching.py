"""Drawing batches: which records a batch has is a pure function of the seed and the round.

A round deals all records of a source once. Batches hold sentences of similar length, so that there
is little padding; each round is shuffled anew. `schedules` determines which task is next.

Batches are dealt on demand, so that an epoch of any length starts at once, at any of its steps.
"""

from __future__ import annotations

import math
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from manyheads.training.data.permutation import Permutation
from manyheads.training.data.token_bins import TokenBins

POOL_BATCHES = 64
"""The approximate number of batches whose shuffled records are sorted by length together."""

Rows = NDArray[np.int64]

_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True)
class Source:
    """Records that batches for the same tasks are drawn from."""

    name: str
    tasks: tuple[str, ...]
    dataset: int
    """The index of the rows' data set."""
    rows: NDArray[np.signedinteger[Any]]
    lengths: NDArray[np.signedinteger[Any]]
    """Sub-tokens of each row."""
    batch_size: int
    """The most records of a batch."""
    bins: TokenBins | None = None
    """The rows by length, if batches have a budget of sub-tokens instead of a size."""
    max_records: int | None = None
    """The most records of a round; None: all. Not with a budget."""

    @property
    def round_size(self) -> int:
        """The number of records that a round deals."""
        count = len(self.rows)
        return count if self.max_records is None else min(count, self.max_records)

    @property
    def batches(self) -> int:
        """The number of batches in a round."""
        if self.bins is not None:
            return self.bins.batches
        return math.ceil(self.round_size / self.batch_size)


@dataclass(frozen=True, slots=True)
class Part:
    """One source's contribution to an optimiser step."""

    source: int
    """The index of the source."""
    batches: tuple[Rows, ...]
    """Each [B], rows of the source's data set."""

    @property
    def records(self) -> int:
        """The number of records."""
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step: the batches whose gradients it accumulates, by source."""

    parts: tuple[Part, ...]

    @property
    def records(self) -> int:
        """The number of records in the step."""
        return sum(part.records for part in self.parts)


def generator(seed: int, *place: int | str) -> np.random.Generator:
    """Return the random generator of a place in training, such as (epoch, source name)."""
    key = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in place]
    return np.random.default_rng([seed, *key])


class Lazy(Sequence[_T_co]):
    """A sequence that makes its items on demand. Subclasses define `__len__` and `item`."""

    @abstractmethod
    def item(self, index: int) -> _T_co:
        """Make the item at an index from 0."""

    @overload
    def __getitem__(self, index: int) -> _T_co: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_T_co]: ...
    def __getitem__(self, index: int | slice) -> _T_co | Sequence[_T_co]:
        if isinstance(index, slice):
            return [self.item(i) for i in range(*index.indices(len(self)))]
        return self.item(range(len(self))[index])


class Capped:
    """The order of the rows in a round of a capped source.

    The rounds are cut from one endless sequence: all rows shuffled, all rows shuffled anew, and so
    on. After any round, row counts differ by at most one.

    Args:
        source: the rows.
        seed: the run's seed.
        number: the round, from 0.
    """

    def __init__(self, source: Source, seed: int, number: int) -> None:
        self._count, self._begin = len(source.rows), number * source.round_size
        self._first = self._begin // self._count
        # A round has at most all rows, so that it spans at most two permutations.
        self._shuffles = [
            Permutation.draw(self._count, generator(seed, "cap", again, source.name))
            for again in (self._first, self._first + 1)
        ]

    def __getitem__(self, places: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return the rows at some positions of the round."""
        again, within = np.divmod(places + self._begin, self._count)
        earlier, later = (shuffle[within] for shuffle in self._shuffles)
        return np.where(again == self._first, earlier, later)


class Shares(Lazy[Rows]):
    """A round of a source's rows, dealt into shuffled batches of similar length.

    The rows are shuffled and divided into pools; the rows of a pool are sorted by length and cut
    into batches, which are shuffled again. Batch sizes differ by at most one.

    Args:
        source: the rows.
        seed: the run's seed.
        number: the round, from 0.
        count: the number of batches; some are empty if there are fewer rows.
    """

    def __init__(self, source: Source, seed: int, number: int, count: int) -> None:
        self._source, self._count = source, count
        self._place = (seed, number, source.name)
        self._pools = max(1, round(count / POOL_BATCHES))
        self._shuffle: Permutation | Capped
        if source.round_size < len(source.rows):
            self._shuffle = Capped(source, seed, number)
        else:
            self._shuffle = Permutation.draw(len(source.rows), generator(*self._place))
        self._dealt: tuple[int, list[Rows]] = (-1, [])

    def __len__(self) -> int:
        return self._count

    def item(self, index: int) -> Rows:
        """Return the rows of one batch."""
        pool = ((index + 1) * self._pools - 1) // self._count
        if self._dealt[0] != pool:
            self._dealt = (pool, self._deal(pool))
        return self._dealt[1][index - self._first(pool)]

    def _first(self, pool: int) -> int:
        """Return the first batch of a pool."""
        return pool * self._count // self._pools

    def _deal(self, pool: int) -> list[Rows]:
        batches = np.arange(self._first(pool), self._first(pool + 1) + 1)
        cuts = batches * self._source.round_size // self._count
        order = self._shuffle[np.arange(cuts[0], cuts[-1])]
        # The shuffled order breaks ties between equal lengths.
        order = order[np.argsort(self._source.lengths[order], kind="stable")]
        dealt = np.split(self._source.rows[order].astype(np.int64), cuts[1:-1] - cuts[0])
        turns = generator(*self._place, pool).permutation(len(dealt))
        return [dealt[i] for i in turns]


class Budgeted(Lazy[Rows]):
    """All rows of a source, dealt into shuffled batches within a budget of sub-tokens.

    Args:
        source: the rows, with bins.
        seed: the run's seed.
        number: the round, from 0.
    """

    def __init__(self, source: Source, seed: int, number: int) -> None:
        assert source.bins is not None
        self._source, self._bins = source, source.bins
        place = (seed, number, source.name)
        self._turns = Permutation.draw(self._bins.batches, generator(*place))
        self._shuffles = [
            Permutation.draw(part.records, generator(*place, bin_number))
            for bin_number, part in enumerate(self._bins.parts)
        ]

    def __len__(self) -> int:
        return self._bins.batches

    def item(self, index: int) -> Rows:
        """Return the rows of one batch."""
        bin_number, places = self._bins.places(int(self._turns[np.asarray([index])][0]))
        first = self._bins.parts[bin_number].first
        order = self._bins.order[first + self._shuffles[bin_number][places]]
        rows: Rows = self._source.rows[order].astype(np.int64)
        return rows


def draw_batches(source: Source, seed: int, epoch: int) -> Sequence[Rows]:
    """Deal a round of a source's rows into batches of similar length.

    Args:
        source: the rows.
        seed: the run's seed.
        epoch: the epoch, or the round if a source has several in one, from 0; each is shuffled
            anew.
    """
    if source.bins is not None:
        return Budgeted(source, seed, epoch)
    return Shares(source, seed, epoch, source.batches)


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """Return the seed of a step's dropout, so that a step does not depend on those before.

    Args:
        seed: the run's seed.
        step: optimiser steps done.
        process: the process's rank; each drops other elements.
    """
    place = (step, process) if process else (step,)
    return int(generator(seed, "step", *place).integers(0, 2**63))
