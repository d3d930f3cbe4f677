"""Schedules determine each step's task, and skip no record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.training.data import Schedule, Source, Step, plan_epoch, steps_per_epoch
from manyheads.training.data.schedules import passes, shared_turns, turns_ahead

ONCE = ["alternate", "joint", "together", "proportional"]
"""The schedules in which an epoch sees every record once."""
BY_SHARES = ["temperature", "annealed", "ratios"]


def source(name: str, count: int, batch_size: int = 4, max_records: int | None = None) -> Source:
    lengths = np.random.default_rng(count).integers(3, 40, count)
    return Source(name, (name,), 0, np.arange(count) * 2, lengths, batch_size, None, max_records)


def turns(steps: Sequence[Step]) -> list[int]:
    """The source of each step, if each has only one."""
    return [part.source for step in steps for part in step.parts]


def seen(steps: Sequence[Step]) -> Counter[tuple[int, int]]:
    """The number of times that each record of each source is seen."""
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


def run_of(sources: list[Source], schedule: Schedule, seed: int = 0) -> list[Step]:
    """All steps of a run."""
    epochs = range(schedule.epochs)
    return [s for e in epochs for s in plan_epoch(sources, schedule, seed=seed, epoch=e)]


# ------------------------------------------------------------------------- no record is lost

sizes = st.lists(st.integers(0, 60), min_size=1, max_size=4)


@pytest.mark.parametrize("name", ONCE)
@settings(max_examples=50)
@given(sizes, st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**32), st.integers(0, 50))
def test_every_record_of_every_source_is_seen_exactly_once_an_epoch(
    name: str, counts: list[int], batch_size: int, accumulation: int, seed: int, epoch: int
) -> None:
    sources = [source(f"task{i}", n, batch_size) for i, n in enumerate(counts)]
    schedule = Schedule(name, accumulation=accumulation)
    plan = plan_epoch(sources, schedule, seed=seed, epoch=epoch)
    assert seen(plan) == Counter((i, int(row)) for i, s in enumerate(sources) for row in s.rows)
    assert len(plan) == steps_per_epoch(sources, schedule)
    parts = [part for step in plan for part in step.parts]
    assert all(len(batch) <= batch_size for part in parts for batch in part.batches)
    assert all(1 <= len(part.batches) <= accumulation for part in parts)
    assert all(step.parts for step in plan)


@pytest.mark.parametrize("name", [*BY_SHARES, *ONCE])
@settings(max_examples=30)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 70)), min_size=1, max_size=4),
    st.integers(1, 7),
    st.integers(1, 3),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_no_record_is_skipped_under_any_schedule_or_cap(
    name: str, counts: list[tuple[int, int]], batch_size: int, accumulation: int, epochs: int,
    alpha: float,
) -> None:  # fmt: skip
    """All records of a source have been seen about equally often."""
    sources = [source(f"t{i}", n, batch_size, cap) for i, (n, cap) in enumerate(counts)]
    ratios = tuple(float(3**i) for i in range(len(counts)))
    schedule = Schedule(name, alpha, ratios, epochs, accumulation)
    times = seen(run_of(sources, schedule))
    for number, (one, count) in enumerate(zip(sources, passes(sources, schedule), strict=True)):
        mine = [times[number, int(row)] for row in one.rows]
        capped = one.round_size < len(one.rows)
        assert max(mine) - min(mine) <= (2 if capped and schedule.by_shares else 1)
        # A step may have fewer batches; the mean is exact if the turns end with a round.
        assert abs(np.mean(mine) - count) <= accumulation * batch_size / len(one.rows)


@pytest.mark.parametrize("name", [*BY_SHARES, *ONCE])
@settings(max_examples=20)
@given(
    st.lists(st.integers(1, 60), min_size=1, max_size=4),
    st.lists(st.tuples(st.integers(0, 12), st.integers(1, 6)), min_size=1, max_size=3),
)
def test_no_record_is_skipped_if_the_number_of_epochs_is_changed(
    name: str, counts: list[int], changes: list[tuple[int, int]]
) -> None:
    sources = [source(f"t{i}", n) for i, n in enumerate(counts)]
    ratios = tuple(float(3**i) for i in range(len(counts)))
    schedule, ahead, done = Schedule(name, 0.0, ratios, epochs=3), list[int](), list[Step]()
    length = steps_per_epoch(sources, schedule)

    def train_until(end: int) -> None:
        while len(done) < end:
            epoch, place = divmod(len(done), length)
            plan = plan_epoch(sources, schedule, seed=1, epoch=epoch, ahead=ahead)
            done.extend(plan[place : place + end - len(done)])

    for more, epochs in changes:
        train_until(min(len(done) + more, schedule.epochs * length))
        longer = replace(schedule, epochs=schedule.epochs + epochs)
        ahead = turns_ahead(sources, schedule, longer, len(done), ahead)
        schedule = longer
    train_until(schedule.epochs * length)
    times = seen(done)
    for number, one in enumerate(sources):
        mine = [times[number, int(row)] for row in one.rows]
        assert max(mine) - min(mine) <= 1


@pytest.mark.parametrize("name", [*BY_SHARES, *ONCE])
def test_a_capped_source_continues_with_other_records_in_the_next_epoch(name: str) -> None:
    sources = [source("a", 10), source("b", 100, max_records=30)]
    schedule = Schedule(name, 1.0, (3.0, 8.0), 10)  # shares as the sizes: all are once an epoch
    plans = [plan_epoch(sources, schedule, seed=3, epoch=e) for e in range(10)]
    rows = [{row for number, row in seen(plan) if number == 1} for plan in plans]
    assert [len(r) for r in rows[:3]] == [30, 30, 30]
    assert not rows[0] & rows[1]
    assert len(set.union(*rows[:4])) == 100
    times = sum((seen(plan) for plan in plans), Counter())
    assert {count for (number, _), count in times.items() if number == 1} == {3}
    assert passes(sources, schedule) == [10, 3]


@pytest.mark.parametrize("name", [*BY_SHARES, *ONCE])
def test_a_plan_depends_only_on_seed_and_epoch(name: str) -> None:
    sources, schedule = (
        [source("a", 50), source("b", 30, max_records=20)],
        Schedule(name, 0.5, (1, 2), 9),
    )
    plan = drawn(plan_epoch(sources, schedule, seed=7, epoch=3))
    np.random.default_rng(0).random()
    assert drawn(plan_epoch(sources, schedule, seed=7, epoch=3)) == plan
    others = [(7, 2), (7, 4), (8, 3)]
    assert plan not in [drawn(plan_epoch(sources, schedule, seed=s, epoch=e)) for s, e in others]


# ------------------------------------------------------------------------------- frequencies


def shares_of(steps: Sequence[Step], sources: int = 2) -> list[float]:
    counts = Counter(turns(steps))
    return [counts[i] / len(steps) for i in range(sources)]


def test_alternating_sources_take_turns_until_the_smaller_ones_are_used_up() -> None:
    plan = plan_epoch([source("a", 12), source("b", 4), source("c", 8)], seed=1, epoch=0)
    assert turns(plan) == [0, 1, 2, 0, 2, 0]


def test_proportional_turns_follow_the_sizes_and_are_spread_evenly() -> None:
    sources = [source("a", 400), source("b", 40), source("c", 160)]
    plan = plan_epoch(sources, Schedule("proportional"), seed=1, epoch=0)
    assert Counter(turns(plan)) == {0: 100, 1: 10, 2: 40}
    places = [i for i, step in enumerate(plan) if step.parts[0].source == 1]
    assert {b - a for a, b in pairwise(places)} <= {14, 15, 16}


@pytest.mark.parametrize(
    ("alpha", "expected"), [(1.0, 100 / 101), (0.5, 10 / 11), (0.3, 0.7992), (0.0, 0.5)]
)
def test_a_temperature_makes_shares_of_powers_of_the_sizes(alpha: float, expected: float) -> None:
    sources = [source("a", 4_000), source("b", 40)]
    steps = run_of(sources, Schedule("temperature", alpha, epochs=3))
    assert len(steps) == 3 * 1_010
    assert shares_of(steps)[0] == pytest.approx(expected, abs=1 / len(steps))


def test_an_annealed_schedule_goes_from_proportional_to_uniform() -> None:
    sources = [source("a", 3_600), source("b", 400)]
    steps = run_of(sources, Schedule("annealed", 0.0, epochs=4))
    tenth = len(steps) // 20
    assert shares_of(steps[:tenth])[0] == pytest.approx(0.89, abs=0.02)
    assert shares_of(steps[-tenth:])[0] == pytest.approx(0.51, abs=0.02)
    quarters = [shares_of(steps[i : i + 1_000])[0] for i in range(0, 4_000, 1_000)]
    assert quarters == sorted(quarters, reverse=True)
    # Half way, the power is 0.5.
    middle = steps[len(steps) // 2 - 100 : len(steps) // 2 + 100]
    assert shares_of(middle)[0] == pytest.approx(3 / 4, abs=0.01)


def test_an_annealed_schedule_may_end_before_it_is_uniform() -> None:
    sources = [source("a", 3_600), source("b", 400)]
    steps = run_of(sources, Schedule("annealed", 0.5, epochs=4))
    assert shares_of(steps[-200:])[0] == pytest.approx(3 / 4, abs=0.02)


def test_ratios_do_not_depend_on_the_sizes() -> None:
    sources = [source("a", 400), source("b", 40), source("c", 4_000)]
    steps = run_of(sources, Schedule("ratios", ratios=(1.0, 2.0, 5.0), epochs=2))
    assert shares_of(steps, 3) == pytest.approx([1 / 8, 2 / 8, 5 / 8], abs=1 / len(steps))
    assert turns(steps[:8]).count(2) == 5


def test_sources_with_equal_shares_take_turns() -> None:
    sources = [source("a", 40), source("b", 8)]
    plan = plan_epoch(sources, Schedule("temperature", 0.0), seed=1, epoch=0)
    assert turns(plan) == [0, 1] * 6


def test_a_source_without_records_has_no_turn() -> None:
    sources = [source("a", 8), source("b", 0), source("c", 8)]
    for name in BY_SHARES:
        plan = plan_epoch(sources, Schedule(name, 0.0, (1, 5, 1)), seed=1, epoch=0)
        assert turns(plan) == [0, 2, 0, 2]


@given(st.lists(st.lists(st.floats(0.01, 1), min_size=1, max_size=5), min_size=5, max_size=40))
def test_turns_so_far_stay_close_to_the_shares_so_far(rows: list[list[float]]) -> None:
    count = min(len(row) for row in rows)
    shares = np.array([row[:count] for row in rows]).T
    shares /= shares.sum(axis=0)
    length = len(rows) - count
    found = shared_turns(shares, length)
    assert len(found) == length
    had = (found == np.arange(count)[:, None]).cumsum(axis=1)
    assert abs(had - shares[:, :length].cumsum(axis=1)).max(initial=0) <= count / 2 + 1e-6
    for part in range(length):
        assert found[:part].tolist() == shared_turns(shares[:, : part + count], part).tolist()


def test_a_source_is_shuffled_anew_after_each_round() -> None:
    rows = np.arange(8)
    small = Source("b", ("b",), 0, rows, np.full(8, 5), 4)  # of one length, so that all can mix
    plan = plan_epoch([source("a", 80), small], Schedule("temperature", 0.0), seed=1, epoch=0)
    given = [step.parts[0].batches[0].tolist() for step in plan if step.parts[0].source == 1]
    rounds = [
        frozenset(map(frozenset, pair)) for pair in zip(given[::2], given[1::2], strict=False)
    ]
    assert all(frozenset.union(*batches) == set(rows.tolist()) for batches in rounds)
    assert len(set(rounds)) > 1


def test_a_sources_batches_do_not_depend_on_the_other_sources() -> None:
    alone = plan_epoch([source("a", 30)], seed=7, epoch=0)
    for name in ("alternate", "proportional"):
        sources = [source("a", 30), source("b", 11)]
        beside = plan_epoch(sources, Schedule(name), seed=7, epoch=0)
        assert drawn(alone) == drawn([step for step in beside if step.parts[0].source == 0])


def test_together_a_step_has_records_of_every_source_in_proportion_to_its_size() -> None:
    sources = [source("a", 100, 10), source("b", 35, 10)]
    plan = plan_epoch(sources, Schedule("together"), seed=1, epoch=0)
    assert len(plan) == 10
    assert [[part.source for part in step.parts] for step in plan] == [[0, 1]] * 10
    assert {step.parts[0].records for step in plan} == {10}
    assert Counter(step.parts[1].records for step in plan) == {3: 5, 4: 5}


def test_together_a_source_with_fewer_records_than_steps_is_spread_over_the_epoch() -> None:
    sources = [source("a", 400), source("b", 20)]
    plan = plan_epoch(sources, Schedule("together"), seed=1, epoch=0)
    places = [i for i, step in enumerate(plan) if len(step.parts) == 2]
    assert len(plan) == 100
    assert len(places) == 20
    assert places[0] < 20
    assert places[-1] > 80


@pytest.mark.parametrize("name", ["alternate", "temperature", "together"])
def test_a_step_is_the_same_whether_or_not_those_before_it_were_drawn(name: str) -> None:
    sources = [source("a", 2_000), source("b", 700, max_records=90)]
    whole = drawn(list(plan_epoch(sources, Schedule(name, 0.5), seed=7, epoch=1)))
    plan = plan_epoch(sources, Schedule(name, 0.5), seed=7, epoch=1)
    for i in (len(plan) - 1, 3, 400):
        assert drawn([plan[i]]) == [whole[i]]
    assert drawn(plan[450:]) == whole[450:]


@pytest.mark.parametrize("name", ["joint", "together", "temperature"])
def test_an_epoch_of_a_billion_records_starts_in_its_middle_without_delay(name: str) -> None:
    # Arrays that need no memory.
    rows = np.broadcast_to(np.int64(3), 10**9)
    huge = Source("a", ("a",), 0, rows, rows, 10_000)
    plan = plan_epoch([huge], Schedule(name), seed=1, epoch=0)
    assert len(plan) == steps_per_epoch([huge], Schedule(name)) == 100_000
    assert plan[50_000].records == 10_000
