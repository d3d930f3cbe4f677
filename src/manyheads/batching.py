"""Which records make the next batch: a pure function of the seed, the epoch and the step.

Batches hold sentences of similar length, so that little is padding; which ones, and in which
order, is drawn anew each epoch. Every record of every task is seen once an epoch.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
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
class Step:
    """One optimiser step: the batches whose gradients it adds up, all of one source."""

    source: int
    batches: tuple[NDArray[np.int64], ...]

    @property
    def records(self) -> int:
        """How many records the step sees."""
        return sum(len(batch) for batch in self.batches)


def generator(seed: int, *place: int | str) -> np.random.Generator:
    """Return the random generator of a place in training, such as (epoch, source name)."""
    key = [zlib.crc32(p.encode()) if isinstance(p, str) else p for p in place]
    return np.random.default_rng([seed, *key])


def draw_batches(source: Source, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Deal all rows of a source into shuffled batches of similar length."""
    random = generator(seed, epoch, source.name)
    order = random.permutation(len(source.rows))
    pool = source.batch_size * POOL_BATCHES
    # Sorting by (pool, length) at once; the shuffle before it breaks ties between equal lengths.
    keys = np.lexsort((source.lengths[order], np.arange(len(order)) // pool))
    order = order[keys]
    batches = [
        source.rows[order[i : i + source.batch_size]]
        for i in range(0, len(order), source.batch_size)
    ]
    return [batches[i] for i in random.permutation(len(batches))]


def plan_epoch(
    sources: Sequence[Source], *, seed: int, epoch: int, accumulation: int = 1
) -> list[Step]:
    """Lay out the steps of an epoch: the sources in turn, a step each.

    A source that has no batch left is passed over, so the larger ones go on until each record
    has been seen once.

    Args:
        sources: one per task to alternate between tasks; one per set of records to train on all
            its tasks jointly.
        seed: the run's seed.
        epoch: which epoch, from 0.
        accumulation: batches that make one step.
    """
    queues = []
    for number, source in enumerate(sources):
        batches = draw_batches(source, seed, epoch)
        queues.append(
            [
                Step(number, tuple(batches[i : i + accumulation]))
                for i in range(0, len(batches), accumulation)
            ]
        )
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def steps_per_epoch(sources: Sequence[Source], accumulation: int = 1) -> int:
    """Count the optimiser steps of an epoch; it is the same for every epoch."""
    batches = [math.ceil(len(source.rows) / source.batch_size) for source in sources]
    return sum(math.ceil(count / accumulation) for count in batches)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of a step's dropout, so that a step needs no memory of the steps before."""
    return int(generator(seed, "step", step).integers(0, 2**63))
