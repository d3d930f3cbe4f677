"""Which task is next, and that no record is lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.batching import Source, Step
from manyheads.schedules import plan_epoch, steps_per_epoch


def source(name: str, count: int, batch_size: int = 4) -> Source:
    lengths = np.random.default_rng(count).integers(3, 40, count)
    return Source(name, (name,), 0, np.arange(count) * 2, lengths, batch_size)


def turns(steps: Sequence[Step]) -> list[int]:
    """The source of each step that has but one."""
    return [part.source for step in steps for part in step.parts]


def seen(steps: Sequence[Step]) -> Counter[tuple[int, int]]:
    """How often each record of each source is seen."""
    return Counter(
        (part.source, int(row))
        for step in steps
        for part in step.parts
        for batch in part.batches
        for row in batch
    )


def drawn(steps: Sequence[Step]) -> list[list[tuple[int, list[list[int]]]]]:
    """The records of each step, in the order in which they are drawn."""
    return [[(p.source, [b.tolist() for b in p.batches]) for p in step.parts] for step in steps]


sizes = st.lists(st.integers(0, 60), min_size=1, max_size=4)


@pytest.mark.parametrize("schedule", ["alternate", "joint", "together"])
@settings(deadline=None)
@given(sizes, st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**32), st.integers(0, 50))
def test_every_record_of_every_source_is_seen_exactly_once_an_epoch(
    schedule: str, counts: list[int], batch_size: int, accumulation: int, seed: int, epoch: int
) -> None:
    sources = [source(f"task{i}", n, batch_size) for i, n in enumerate(counts)]
    plan = plan_epoch(sources, schedule, seed=seed, epoch=epoch, accumulation=accumulation)
    assert seen(plan) == Counter((i, int(row)) for i, s in enumerate(sources) for row in s.rows)
    assert len(plan) == steps_per_epoch(sources, schedule, accumulation)
    parts = [part for step in plan for part in step.parts]
    assert all(len(batch) <= batch_size for part in parts for batch in part.batches)
    assert all(1 <= len(part.batches) <= accumulation for part in parts)
    assert all(step.parts for step in plan)


@pytest.mark.parametrize("schedule", ["alternate", "joint", "together"])
def test_a_plan_depends_on_nothing_but_seed_and_epoch(schedule: str) -> None:
    sources = [source("a", 50), source("b", 30)]
    plan = drawn(plan_epoch(sources, schedule, seed=7, epoch=3))
    np.random.default_rng(0).random()
    assert drawn(plan_epoch(sources, schedule, seed=7, epoch=3)) == plan
    others = [(7, 2), (7, 4), (8, 3)]
    assert plan not in [drawn(plan_epoch(sources, schedule, seed=s, epoch=e)) for s, e in others]


def test_sources_take_turns_until_the_smaller_ones_are_used_up() -> None:
    plan = plan_epoch([source("a", 12), source("b", 4), source("c", 8)], seed=1, epoch=0)
    assert turns(plan) == [0, 1, 2, 0, 2, 0]


def test_a_sources_batches_do_not_depend_on_the_other_sources() -> None:
    alone = plan_epoch([source("a", 30)], seed=7, epoch=0)
    beside = plan_epoch([source("a", 30), source("b", 11)], seed=7, epoch=0)
    assert drawn(alone) == drawn([step for step in beside if step.parts[0].source == 0])


def test_together_a_step_has_records_of_every_source_in_proportion_to_its_size() -> None:
    plan = plan_epoch([source("a", 100, 10), source("b", 35, 10)], "together", seed=1, epoch=0)
    assert len(plan) == 10
    assert [[part.source for part in step.parts] for step in plan] == [[0, 1]] * 10
    assert {step.parts[0].records for step in plan} == {10}
    assert Counter(step.parts[1].records for step in plan) == {3: 5, 4: 5}


def test_together_a_source_with_fewer_records_than_steps_is_spread_over_the_epoch() -> None:
    plan = plan_epoch([source("a", 400), source("b", 20)], "together", seed=1, epoch=0)
    places = [i for i, step in enumerate(plan) if len(step.parts) == 2]
    assert len(plan) == 100
    assert len(places) == 20
    assert places[0] < 20
    assert places[-1] > 80


@pytest.mark.parametrize("schedule", ["alternate", "together"])
def test_a_step_is_the_same_whether_or_not_those_before_it_were_drawn(schedule: str) -> None:
    sources = [source("a", 2_000), source("b", 700)]
    whole = drawn(list(plan_epoch(sources, schedule, seed=7, epoch=1)))
    plan = plan_epoch(sources, schedule, seed=7, epoch=1)
    for i in (len(plan) - 1, 3, 400):
        assert drawn([plan[i]]) == [whole[i]]
    assert drawn(plan[450:]) == whole[450:]


@pytest.mark.parametrize("schedule", ["joint", "together"])
def test_an_epoch_of_a_billion_records_starts_in_its_middle_at_once(schedule: str) -> None:
    # Arrays that take no memory.
    rows = np.broadcast_to(np.int64(3), 10**9)
    huge = Source("a", ("a",), 0, rows, rows, 10_000)
    plan = plan_epoch([huge], schedule, seed=1, epoch=0)
    assert len(plan) == steps_per_epoch([huge], schedule) == 100_000
    assert plan[50_000].records == 10_000
