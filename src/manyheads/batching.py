"""Which records make a batch: a pure function of the seed and of how often they were all seen.

Batches hold sentences of similar length, so that little is padding; which ones, and in which
order, is drawn anew each time. Which task's batch is next is for `schedules` to say.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

POOL_BATCHES = 64
"""Batches' worth of shuffled records that are sorted by length together."""


@dataclass(frozen=True)
class Source:
    """Records from which batches for the same tasks are drawn."""

    name: str
    tasks: tuple[str, ...]
    dataset: int
    """Which data set the rows are of."""
    rows: NDArray[np.int64]
    lengths: NDArray[np.int64]
    """Sub-tokens of each row."""
    batch_size: int


@dataclass(frozen=True, slots=True)
class Part:
    """What one source gives to an optimiser step."""

    source: int
    """Its number."""
    batches: tuple[NDArray[np.int64], ...]
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


def draw_batches(source: Source, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Deal all rows of a source into shuffled batches of similar length."""
    random = generator(seed, epoch, source.name)
    order = _sorted_in_pools(source, random, source.batch_size * POOL_BATCHES)
    batches = [
        source.rows[order[i : i + source.batch_size]]
        for i in range(0, len(order), source.batch_size)
    ]
    return [batches[i] for i in random.permutation(len(batches))]


def draw_shares(source: Source, seed: int, epoch: int, count: int) -> list[NDArray[np.int64]]:
    """Deal all rows of a source into so many shuffled shares of similar length.

    Their sizes differ by at most one. Where there are fewer rows than shares, some are empty.
    """
    random = generator(seed, epoch, source.name)
    pool = max(1, math.ceil(len(source.rows) / count)) * POOL_BATCHES
    shares = np.array_split(source.rows[_sorted_in_pools(source, random, pool)], count)
    return [shares[i] for i in random.permutation(count)]


def _sorted_in_pools(source: Source, random: np.random.Generator, pool: int) -> NDArray[np.int64]:
    """Shuffle a source's rows and sort each pool of them by length; returns their places."""
    order = random.permutation(len(source.rows))
    # Sorting by (pool, length) at once; the shuffle before it breaks ties between equal lengths.
    keys = np.lexsort((source.lengths[order], np.arange(len(order)) // pool))
    return order[keys]


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's dropout, so that a step needs no memory of the steps before."""
    return int(generator(seed, "step", step).integers(0, 2**63))
