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

from manyheads.batching import Part, Source, Step, draw_batches, draw_shares


def plan_epoch(
    sources: Sequence[Source],
    schedule: str = "alternate",
    *,
    seed: int,
    epoch: int,
    accumulation: int = 1,
) -> list[Step]:
    """Lay out the steps of an epoch.

    Args:
        sources: one per task; for `joint`, one per set of records, with all its tasks.
        schedule: as the configuration names it.
        seed: the run's seed.
        epoch: which epoch, from 0.
        accumulation: batches of a source that make one step.
    """
    if schedule == "together":
        return _together(sources, seed, epoch, accumulation)
    return _in_turn(sources, seed, epoch, accumulation)


def steps_per_epoch(
    sources: Sequence[Source], schedule: str = "alternate", accumulation: int = 1
) -> int:
    """Count the optimiser steps of an epoch; it is the same for every epoch."""
    steps = [_steps_of(source, accumulation) for source in sources]
    return max(steps, default=0) if schedule == "together" else sum(steps)


def _steps_of(source: Source, accumulation: int) -> int:
    """Count the steps in which a source, alone, gives each of its records once."""
    return math.ceil(math.ceil(len(source.rows) / source.batch_size) / accumulation)


def _in_turn(sources: Sequence[Source], seed: int, epoch: int, accumulation: int) -> list[Step]:
    queues = []
    for number, source in enumerate(sources):
        batches = draw_batches(source, seed, epoch)
        queues.append(
            [
                Step((Part(number, tuple(batches[i : i + accumulation])),))
                for i in range(0, len(batches), accumulation)
            ]
        )
    longest = max((len(queue) for queue in queues), default=0)
    return [queue[i] for i in range(longest) for queue in queues if i < len(queue)]


def _together(sources: Sequence[Source], seed: int, epoch: int, accumulation: int) -> list[Step]:
    count = steps_per_epoch(sources, "together", accumulation)
    shares = [draw_shares(source, seed, epoch, count) if count else [] for source in sources]
    return [
        Step(
            tuple(
                Part(number, _cut(shares[number][i], source.batch_size))
                for number, source in enumerate(sources)
                if len(shares[number][i])
            )
        )
        for i in range(count)
    ]


def _cut(rows: NDArray[np.int64], size: int) -> tuple[NDArray[np.int64], ...]:
    return tuple(rows[i : i + size] for i in range(0, len(rows), size))
