"""Which task is next: an epoch's optimiser steps, a pure function of the seed and the epoch.

- `alternate`: a step of each source in turn. A source that has no batch left is passed over, so
  the larger ones go on until each record has been seen once. `joint` is this with one source for
  each file, whose tasks all learn from a batch.
- `together`: each step holds records of every source, for methods that compare the tasks'
  gradients. There are as many steps as the longest source has; the others are dealt evenly over
  them, in smaller batches, so that nothing is repeated.

In both, every record of every task is seen exactly once an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from manyheads.batching import Lazy, Part, Rows, Source, Step, draw_batches, draw_shares


def plan_epoch(
    sources: Sequence[Source],
    schedule: str = "alternate",
    *,
    seed: int,
    epoch: int,
    accumulation: int = 1,
) -> Sequence[Step]:
    """Lay out the steps of an epoch, each of which is made when it is asked for.

    Args:
        sources: one per task; for `joint`, one per set of records, with all its tasks.
        schedule: as the configuration names it.
        seed: the run's seed.
        epoch: which epoch, from 0.
        accumulation: batches of a source that make one step.
    """
    if schedule == "together":
        count = steps_per_epoch(sources, schedule, accumulation)
        shares = [draw_shares(source, seed, epoch, count) for source in sources]
        return Together(shares, [source.batch_size for source in sources], count)
    batches = [draw_batches(source, seed, epoch) for source in sources]
    return InTurn(batches, _round_robin(sources, accumulation), accumulation)


def steps_per_epoch(
    sources: Sequence[Source], schedule: str = "alternate", accumulation: int = 1
) -> int:
    """Count the optimiser steps of an epoch; it is the same for every epoch."""
    steps = [_steps_of(source, accumulation) for source in sources]
    return max(steps, default=0) if schedule == "together" else sum(steps)


def _steps_of(source: Source, accumulation: int) -> int:
    """Count the steps in which a source, alone, gives each of its records once."""
    return math.ceil(source.batches / accumulation)


def _round_robin(sources: Sequence[Source], accumulation: int) -> NDArray[np.int16]:
    """Return the source of each step: all in turn, but those that have no batch left."""
    steps = [_steps_of(source, accumulation) for source in sources]
    rounds = np.concatenate([np.arange(0), *(np.arange(count) for count in steps)])
    numbers = np.repeat(np.arange(len(sources), dtype=np.int16), steps)
    return numbers[np.argsort(rounds, kind="stable")]


class InTurn(Lazy[Step]):
    """Steps of one source each.

    All that is laid out is six bytes a step: its source, and how many steps that had before.

    Args:
        batches: by source.
        turns: [steps] the source of each step.
        accumulation: batches that make one step.
    """

    def __init__(
        self, batches: Sequence[Sequence[Rows]], turns: NDArray[np.int16], accumulation: int
    ) -> None:
        self._batches, self._turns, self._accumulation = batches, turns, accumulation
        self._before = np.zeros(len(turns), np.int32)
        for number in range(len(batches)):
            mine = turns == number
            self._before[mine] = np.arange(mine.sum())

    def __len__(self) -> int:
        return len(self._turns)

    def item(self, index: int) -> Step:
        """Return one step."""
        source = int(self._turns[index])
        first = int(self._before[index]) * self._accumulation
        batches = self._batches[source][first : first + self._accumulation]
        return Step((Part(source, tuple(batches)),))


class Together(Lazy[Step]):
    """Steps of all sources each.

    Args:
        shares: by source, what it gives to each step.
        sizes: by source, the records of a batch.
        count: how many steps there are.
    """

    def __init__(self, shares: Sequence[Sequence[Rows]], sizes: Sequence[int], count: int) -> None:
        self._shares, self._sizes, self._count = shares, sizes, count

    def __len__(self) -> int:
        return self._count

    def item(self, index: int) -> Step:
        """Return one step."""
        given = [shares[index] for shares in self._shares]
        return Step(
            tuple(
                Part(number, _cut(rows, self._sizes[number]))
                for number, rows in enumerate(given)
                if len(rows)
            )
        )


def _cut(rows: Rows, size: int) -> tuple[Rows, ...]:
    return tuple(rows[i : i + size] for i in range(0, len(rows), size))
