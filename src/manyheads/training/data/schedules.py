"""Schedules: the optimiser steps of an epoch, a pure function of the seed and the epoch.

An epoch has as many steps as it takes to see every record once. Three schedules do that:

- `alternate`: one step of each source in turn. A source without batches left is skipped, so the
  larger ones continue until every record has been seen once.
- `joint`: the same with one source for each file; all of its tasks learn from a batch.
- `together`: every step has records of every source, for methods that compare the tasks'
  gradients. There are as many steps as the longest source has; the records of the others are
  spread evenly over them, in smaller batches, so that none is repeated.

In the other schedules a source has a share of the steps, and its turns are spread evenly. A source
whose share exceeds its size starts anew within an epoch, reshuffled; one with a smaller share
continues in the next epoch where it stopped. So no record is skipped, and the counts of a source's
records differ by at most one (by two if it is capped as well), also in a run whose number of epochs
is changed: each source continues where it stopped.

- `proportional`: shares are proportional to the sizes, so every record is seen once an epoch;
- `temperature`: proportional to the sizes to the power alpha, between 1 (proportional) and 0
  (uniform) (Conneau and Lample 2019; Xue et al. 2021);
- `annealed`: proportional to the sizes to a power that falls, step by step over the run, from 1 to
  alpha (Stickland and Murray 2019 lower it epoch by epoch);
- `ratios`: proportional to the tasks' `ratio`.

The size of a source is the number of steps that deal each of its records once, or, if it is capped
(`max_records`), as many records as an epoch may have.

Arrays: T steps, S sources.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manyheads.config import Config
from manyheads.training.data.batching import (
    Lazy,
    Part,
    Rows,
    Shares,
    Source,
    Step,
    draw_batches,
)

Turns = NDArray[np.int16]

_ALPHAS = {"temperature": 0.5, "annealed": 0.0}


@dataclass(frozen=True, slots=True)
class Schedule:
    """How the steps of a run are divided among its sources."""

    name: str = "alternate"
    alpha: float = 1.0
    """The power of the sizes: in `temperature` throughout, in `annealed` at the end of the run."""
    ratios: tuple[float, ...] = ()
    """Each source's share of the steps in `ratios`, in any unit."""
    epochs: int = 1
    """Of the whole run."""
    accumulation: int = 1
    """Batches of a source in one step."""

    @classmethod
    def of(cls, config: Config) -> Schedule:
        """Return the configured schedule."""
        alpha = config.schedule_alpha
        return cls(
            config.schedule,
            _ALPHAS.get(config.schedule, 1.0) if alpha is None else alpha,
            tuple(
                1.0 if t.ratio is None else t.ratio
                for n, t in config.tasks.items()
                if n not in config.idle_tasks
            ),
            config.epochs,
            config.gradient_accumulation,
        )

    @property
    def by_shares(self) -> bool:
        """Whether a source may be seen more or less often than once an epoch."""
        return self.name in ("proportional", "temperature", "annealed", "ratios")


def plan_epoch(
    sources: Sequence[Source],
    schedule: Schedule | None = None,
    *,
    seed: int,
    epoch: int,
    ahead: Sequence[int] = (),
) -> Sequence[Step]:
    """Return the steps of an epoch, which are made on demand.

    Args:
        sources: one for each task; in `joint`, one for each file, with all of its tasks.
        schedule: how they share the steps; default, in turn.
        seed: the run's seed.
        epoch: the epoch, from 0.
        ahead: see `turns_ahead`; default, by none.
    """
    schedule = schedule or Schedule()
    sizes = _sizes(sources, schedule)
    if schedule.name == "together":
        count = max(sizes, default=0)
        shares = [Shares(source, seed, epoch, count) for source in sources]
        return Together(shares, [source.batch_size for source in sources], count)
    turns, before = _turns(sizes, schedule, epoch)
    streams = [
        Stream(source, seed, size, schedule.accumulation)
        for source, size in zip(sources, sizes, strict=True)
    ]
    if ahead:
        before = [had + more for had, more in zip(before, ahead, strict=True)]
    return InTurn(streams, turns, before)


def turns_ahead(
    sources: Sequence[Source], old: Schedule, new: Schedule, step: int, ahead: Sequence[int] = ()
) -> list[int]:
    """Return by how many turns each source is ahead of a schedule that replaces another.

    The number of epochs determines the shares of an annealed schedule, so that a source may have
    had more or fewer turns than the schedule of a longer or shorter run gives it.

    Args:
        sources: the run's sources.
        old: the schedule up to the step.
        new: the schedule from there on.
        step: optimiser steps done.
        ahead: by how many turns each is ahead of the old schedule; default, by none.
    """
    if not new.by_shares:
        return []
    sizes = _sizes(sources, new)
    had, given = (
        np.bincount(_first_turns(sizes, schedule, step), minlength=len(sizes))
        for schedule in (old, new)
    )
    return [int(n) for n in had - given + np.array(ahead or [0])]


def steps_per_epoch(sources: Sequence[Source], schedule: Schedule | None = None) -> int:
    """Count the optimiser steps of an epoch; it is the same for every epoch."""
    schedule = schedule or Schedule()
    sizes = _sizes(sources, schedule)
    return max(sizes, default=0) if schedule.name == "together" else sum(sizes)


def rounds(sources: Sequence[Source], schedule: Schedule) -> list[float]:
    """Count the rounds of each source in the whole run (see `Source.round_size`)."""
    if not schedule.by_shares:
        return [float(schedule.epochs)] * len(sources)
    sizes = _sizes(sources, schedule)
    _, counts = _turns(sizes, schedule, schedule.epochs)
    return [count / max(1, size) for count, size in zip(counts, sizes, strict=True)]


def passes(sources: Sequence[Source], schedule: Schedule) -> list[float]:
    """Count how often the whole run sees a record of each source, on average."""
    return [
        count * source.round_size / max(1, len(source.rows))
        for count, source in zip(rounds(sources, schedule), sources, strict=True)
    ]


def _sizes(sources: Sequence[Source], schedule: Schedule) -> list[int]:
    """Count the steps of one round of each source."""
    return [math.ceil(source.batches / schedule.accumulation) for source in sources]


def _turns(sizes: Sequence[int], schedule: Schedule, epoch: int) -> tuple[Turns, list[int]]:
    """Assign the steps of an epoch to the sources.

    Returns:
        [T] the index of each step's source, and the number of steps that each source had in
        earlier epochs.
    """
    if not schedule.by_shares:
        # Each source's first step, then each one's second, and so on.
        places = np.concatenate([np.arange(0), *(np.arange(size) for size in sizes)])
        numbers = np.repeat(np.arange(len(sizes), dtype=np.int16), sizes)
        turns = numbers[np.argsort(places, kind="stable")]
        return turns, [epoch * size for size in sizes]
    length = sum(sizes)
    run = _first_turns(sizes, schedule, (epoch + 1) * length)
    before = np.bincount(run[: epoch * length], minlength=len(sizes))
    return run[epoch * length :], before.tolist()


def _first_turns(sizes: Sequence[int], schedule: Schedule, steps: int) -> Turns:
    """Assign the first steps of a run by shares to the sources."""
    return shared_turns(_shares(sizes, schedule, steps + len(sizes)), steps)


def shared_turns(shares: NDArray[np.float64], length: int) -> Turns:
    """Spread turns evenly, so that each source has its share of the steps up to any step.

    A source's n-th turn comes when its shares so far add up to n - 1/2 (Webster's method of
    apportionment): its turns so far differ from its shares so far by at most half the number of
    sources.

    Args:
        shares: [S, T + S] each source's share of each step; they add up to 1. The S steps beyond
            the last are for turns that come late, by at most half the number of sources.
        length: T.

    Returns:
        [T] the index of each step's source; a larger T extends it without changing it.
    """
    count = len(shares)
    due = np.cumsum(np.concatenate([np.zeros((count, 1)), shares], axis=1), axis=1)
    time = np.arange(due.shape[1])
    times = [np.interp(np.arange(0.5, row[-1]), row, time) for row in due]
    numbers = np.repeat(np.arange(count, dtype=np.int16), [len(turns) for turns in times])
    return numbers[np.argsort(np.concatenate(times), kind="stable")][:length]


def _shares(sizes: Sequence[int], schedule: Schedule, length: int) -> NDArray[np.float64]:
    """Return each source's share of each of the run's first steps: [S, T]."""
    if not any(sizes):
        return np.zeros((len(sizes), length))
    size = np.array(sizes, np.float64)[:, None]
    if schedule.name == "ratios":
        weights = np.repeat(np.array(schedule.ratios)[:, None], length, axis=1)
    else:
        alphas = np.full(length, schedule.alpha if schedule.name == "temperature" else 1.0)
        if schedule.name == "annealed":
            last = max(1, schedule.epochs * sum(sizes) - 1)
            alphas = 1.0 + (schedule.alpha - 1.0) * np.minimum(1.0, np.arange(length) / last)
        # Relative to the largest, so that no power overflows.
        weights = (size / size.max()) ** alphas
    weights = np.where(size > 0, weights, 0.0)
    shares: NDArray[np.float64] = weights / weights.sum(axis=0)
    return shares


class Stream:
    """The batches of a source in each of its turns of a run, round after round.

    Args:
        source: the rows.
        seed: the run's seed.
        size: turns in a round.
        accumulation: batches in a turn.
    """

    def __init__(self, source: Source, seed: int, size: int, accumulation: int) -> None:
        self._source, self._seed = source, seed
        self._size, self._accumulation = size, accumulation
        self._drawn: tuple[int, Sequence[Rows]] = (-1, [])

    def batches(self, turn: int) -> tuple[Rows, ...]:
        """Return the batches of one turn, counted over the whole run."""
        number, place = divmod(turn, self._size)
        if self._drawn[0] != number:
            self._drawn = (number, draw_batches(self._source, self._seed, number))
        first = place * self._accumulation
        return tuple(self._drawn[1][first : first + self._accumulation])


class InTurn(Lazy[Step]):
    """Steps of one source each. Only a few bytes a step are made in advance.

    Args:
        streams: by source.
        turns: [T] the index of each step's source.
        before: by source, the number of its steps in earlier epochs.
    """

    def __init__(self, streams: Sequence[Stream], turns: Turns, before: Sequence[int]) -> None:
        self._streams, self._turns = streams, turns
        self._before = np.zeros(len(turns), np.int64)
        for number, had in enumerate(before):
            mine = turns == number
            self._before[mine] = had + np.arange(mine.sum())

    def __len__(self) -> int:
        return len(self._turns)

    def item(self, index: int) -> Step:
        """Return one step."""
        source = int(self._turns[index])
        return Step((Part(source, self._streams[source].batches(int(self._before[index]))),))


class Together(Lazy[Step]):
    """Steps of all sources each.

    Args:
        shares: by source, its rows in each step.
        sizes: by source, the records of a batch.
        count: the number of steps.
    """

    def __init__(self, shares: Sequence[Sequence[Rows]], sizes: Sequence[int], count: int) -> None:
        self._shares, self._sizes, self._count = shares, sizes, count

    def __len__(self) -> int:
        return self._count

    def item(self, index: int) -> Step:
        """Return one step."""
        drawn = [shares[index] for shares in self._shares]
        return Step(
            tuple(
                Part(number, _cut(rows, self._sizes[number]))
                for number, rows in enumerate(drawn)
                if len(rows)
            )
        )


def _cut(rows: Rows, size: int) -> tuple[Rows, ...]:
    return tuple(rows[i : i + size] for i in range(0, len(rows), size))
