"""Which records make a batch: a pure function of the seed and of how often they were all seen.

Batches hold sentences of similar length, so that little is padding; which ones, and in which
order, is drawn anew each time. Which task's batch is next is for `schedules` to say.

Nothing is laid out in advance: a batch is dealt when it is asked for, so that an epoch of any
length starts at once, at any of its steps.
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
"""Batches' worth of shuffled records that are sorted by length together, about."""

Rows = NDArray[np.int64]

_T_co = TypeVar("_T_co", covariant=True)


@dataclass(frozen=True)
class Source:
    """Records from which batches for the same tasks are drawn."""

    name: str
    tasks: tuple[str, ...]
    dataset: int
    """Which data set the rows are of."""
    rows: NDArray[np.signedinteger[Any]]
    lengths: NDArray[np.signedinteger[Any]]
    """Sub-tokens of each row."""
    batch_size: int
    """Records of a batch, at most."""
    bins: TokenBins | None = None
    """The rows by length, where batches have a budget of sub-tokens instead of a size."""
    max_records: int | None = None
    """How many records are dealt in one round, at most; not with a budget."""

    @property
    def round_size(self) -> int:
        """How many records are dealt in one round: all, unless they are capped."""
        count = len(self.rows)
        return count if self.max_records is None else min(count, self.max_records)

    @property
    def batches(self) -> int:
        """How many batches a round has."""
        if self.bins is not None:
            return self.bins.batches
        return math.ceil(self.round_size / self.batch_size)


@dataclass(frozen=True, slots=True)
class Part:
    """What one source gives to an optimiser step."""

    source: int
    """Its number."""
    batches: tuple[Rows, ...]
    """[B] rows of the source's data set each."""

    @property
    def records(self) -> int:
        """How many records there are."""
        return sum(len(batch) for batch in self.batches)


@dataclass(frozen=True, slots=True)
class Step:
    """One optimiser step: the batches whose gradients it adds up, by source."""

    parts: tuple[Part, ...]

    @property
    def records(self) -> int:
        """How many records the step sees."""
        return sum(part.records for part in self.parts)


def generator(seed: int, *place: int | str) -> np.random.Generator:
    """Return the random generator of a place in training, such as (epoch, source name)."""
    key = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in place]
    return np.random.default_rng([seed, *key])


class Lazy(Sequence[_T_co]):
    """A sequence that makes its items when they are asked for: needs `__len__` and `item`."""

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
    """The order of the rows in a round of a source that is capped.

    Round after round goes on in one long row: all rows shuffled, all rows shuffled anew, and so
    on. After any round, any two rows have been dealt equally often but for one.

    Args:
        source: the rows.
        seed: the run's seed.
        number: which round, from 0.
    """

    def __init__(self, source: Source, seed: int, number: int) -> None:
        self._count, self._begin = len(source.rows), number * source.round_size
        self._first = self._begin // self._count
        # A round is no longer than all rows, so that two shuffles hold it.
        self._shuffles = [
            Permutation.draw(self._count, generator(seed, "cap", again, source.name))
            for again in (self._first, self._first + 1)
        ]

    def __getitem__(self, places: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """Return which rows stand at some places of the round."""
        again, within = np.divmod(places + self._begin, self._count)
        earlier, later = (shuffle[within] for shuffle in self._shuffles)
        return np.where(again == self._first, earlier, later)


class Shares(Lazy[Rows]):
    """A round of a source's rows, dealt into shuffled batches of similar length.

    The rows are shuffled and fall into pools; the rows of a pool are sorted by length and cut into
    batches, whose order is drawn. The sizes of any two batches differ by at most one.

    Args:
        source: the rows.
        seed: the run's seed.
        number: which round, from 0.
        count: how many batches; more than there are rows make some empty.
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
        # The shuffle breaks ties between equal lengths.
        order = order[np.argsort(self._source.lengths[order], kind="stable")]
        dealt = np.split(self._source.rows[order].astype(np.int64), cuts[1:-1] - cuts[0])
        turns = generator(*self._place, pool).permutation(len(dealt))
        return [dealt[i] for i in turns]


class Budgeted(Lazy[Rows]):
    """All rows of a source, dealt into shuffled batches of at most so many sub-tokens.

    Args:
        source: the rows, with bins.
        seed: the run's seed.
        number: which round, from 0.
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
    """Deal a source's rows, or as many as a round may have, into batches of similar length.

    Args:
        source: the rows.
        seed: the run's seed.
        epoch: which epoch, or round where a source has several in one, from 0; each is shuffled
            anew.
    """
    if source.bins is not None:
        return Budgeted(source, seed, epoch)
    return Shares(source, seed, epoch, source.batches)


def draw_shares(source: Source, seed: int, epoch: int, count: int) -> Sequence[Rows]:
    """Deal a round, as `draw_batches` does, into so many shares.

    Where there are fewer rows than shares, some are empty.
    """
    return Shares(source, seed, epoch, count)


def step_seed(seed: int, step: int, process: int = 0) -> int:
    """Return the seed of a step's dropout, so that a step needs no memory of the steps before.

    Args:
        seed: the run's seed.
        step: optimiser steps done.
        process: which of several; each drops other elements.
    """
    place = (step, process) if process else (step,)
    return int(generator(seed, "step", *place).integers(0, 2**63))
