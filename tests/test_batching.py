"""Which records make the next batch."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from manyheads.batching import (
    Source,
    Step,
    draw_batches,
    plan_epoch,
    step_seed,
    steps_per_epoch,
)


def source(
    name: str, count: int, batch_size: int = 4, *, longest: int = 40, tasks: tuple[str, ...] = ()
) -> Source:
    lengths = np.random.default_rng(count).integers(3, longest, count)
    return Source(name, tasks or (name,), 0, np.arange(count) * 2, lengths, batch_size)


def order(steps: list[Step]) -> list[list[list[int]]]:
    """The records of each step, in the order in which they are drawn."""
    return [[batch.tolist() for batch in step.batches] for step in steps]


sizes = st.lists(st.integers(0, 60), min_size=1, max_size=4)


@settings(deadline=None)
@given(sizes, st.integers(1, 7), st.integers(1, 4), st.integers(0, 2**32), st.integers(0, 50))
def test_every_record_of_every_source_is_seen_exactly_once_an_epoch(
    counts: list[int], batch_size: int, accumulation: int, seed: int, epoch: int
) -> None:
    sources = [source(f"task{i}", n, batch_size) for i, n in enumerate(counts)]
    plan = plan_epoch(sources, seed=seed, epoch=epoch, accumulation=accumulation)
    seen = Counter((step.source, int(row)) for step in plan for b in step.batches for row in b)
    assert seen == Counter((i, int(row)) for i, s in enumerate(sources) for row in s.rows)
    assert len(plan) == steps_per_epoch(sources, accumulation)
    assert all(step.records <= batch_size * accumulation for step in plan)


def test_sources_take_turns_until_the_smaller_ones_are_used_up() -> None:
    plan = plan_epoch([source("a", 12), source("b", 4), source("c", 8)], seed=1, epoch=0)
    assert [step.source for step in plan] == [0, 1, 2, 0, 2, 0]


def test_a_plan_depends_on_nothing_but_seed_and_epoch() -> None:
    sources = [source("a", 50), source("b", 30)]
    drawn = order(plan_epoch(sources, seed=7, epoch=3))
    np.random.default_rng(0).random()
    assert order(plan_epoch(sources, seed=7, epoch=3)) == drawn
    others = [(7, 2), (7, 4), (8, 3)]
    assert drawn not in [order(plan_epoch(sources, seed=s, epoch=e)) for s, e in others]


def test_a_sources_batches_do_not_depend_on_the_other_sources() -> None:
    alone = plan_epoch([source("a", 30)], seed=7, epoch=0)
    beside = plan_epoch([source("a", 30), source("b", 11)], seed=7, epoch=0)
    mine = [step for step in beside if step.source == 0]
    assert order(alone) == order(mine)


def test_batches_hold_sentences_of_similar_length() -> None:
    drawn = source("a", 2_000, 16, longest=100)
    lengths = dict(zip(drawn.rows.tolist(), drawn.lengths.tolist(), strict=True))
    padding = total = 0
    for batch in draw_batches(drawn, seed=0, epoch=0):
        in_batch = [lengths[int(row)] for row in batch]
        padding += max(in_batch) * len(in_batch) - sum(in_batch)
        total += sum(in_batch)
    assert padding / total < 0.05


def test_lengths_come_in_no_particular_order() -> None:
    drawn = source("a", 2_000, 16, longest=100)
    lengths = dict(zip(drawn.rows.tolist(), drawn.lengths.tolist(), strict=True))
    means = [np.mean([lengths[int(r)] for r in b]) for b in draw_batches(drawn, seed=0, epoch=0)]
    steps = np.arange(len(means))
    assert abs(np.corrcoef(steps, means)[0, 1]) < 0.3


@pytest.mark.parametrize("step", [0, 1, 1_000_000])
def test_each_step_has_a_seed_of_its_own_that_torch_accepts(step: int) -> None:
    assert 0 <= step_seed(42, step) < 2**63
    assert step_seed(42, step) == step_seed(42, step)
    assert len({step_seed(42, step), step_seed(42, step + 1), step_seed(43, step)}) == 3
