"""Batches by a budget of sub-tokens."""

from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manyheads.training.data import Schedule, Source, draw_batches, plan_epoch, steps_per_epoch
from manyheads.training.data.ragged import SPILL_BYTES
from manyheads.training.data.token_bins import make_bins


def source(lengths: list[int], budget: int, limit: int = SPILL_BYTES) -> Source:
    sizes = np.asarray(lengths, np.int32)
    rows = np.arange(len(sizes)) * 3
    return Source("a", ("a",), 0, rows, sizes, 1, make_bins(sizes, budget, limit))


def sentences(count: int) -> list[int]:
    """Lengths like those of sentences: many of about twelve, few of a hundred."""
    drawn = np.random.default_rng(0).lognormal(2.4, 0.5, count).astype(int) + 3
    return drawn.clip(3, 128).tolist()


@given(
    st.lists(st.integers(1, 60), max_size=300), st.integers(1, 200), st.integers(0, 2**32),
    st.integers(0, 20), st.sampled_from([0, SPILL_BYTES]),
)  # fmt: skip
def test_every_record_is_seen_once_and_no_batch_is_over_the_budget(
    lengths: list[int], budget: int, seed: int, epoch: int, limit: int
) -> None:
    drawn = source(lengths, budget, limit)
    batches = draw_batches(drawn, seed, epoch)
    assert len(batches) == drawn.batches
    seen: Counter[int] = Counter()
    for batch in batches:
        longest = max(lengths[row // 3] for row in batch)
        assert len(batch) * longest <= budget or len(batch) == 1
        seen.update(batch.tolist())
    assert seen == Counter(drawn.rows.tolist())


def test_only_records_longer_than_the_budget_are_batches_by_themselves() -> None:
    lengths = [10] * 50 + [70, 90, 80]
    batches = list(draw_batches(source(lengths, 64), seed=1, epoch=0))
    sizes = {row // 3: len(batch) for batch in batches for row in batch.tolist()}
    assert [sizes[row] for row in (50, 51, 52)] == [1, 1, 1]
    assert min(sizes[row] for row in range(50)) > 1


def test_batches_are_nearly_full_and_have_little_padding() -> None:
    lengths = sentences(5_000)
    padded = [
        len(batch) * max(lengths[row // 3] for row in batch)
        for batch in draw_batches(source(lengths, 512), seed=1, epoch=0)
    ]
    assert np.median(padded) > 0.85 * 512
    assert sum(lengths) / sum(padded) > 0.88


def test_epochs_have_equally_many_steps_and_different_batches() -> None:
    drawn = source(sentences(400), 256)
    schedule = Schedule(accumulation=2)
    plans = [plan_epoch([drawn], schedule, seed=1, epoch=epoch) for epoch in range(5)]
    steps = steps_per_epoch([drawn], schedule)
    assert [len(plan) for plan in plans] == [steps] * 5
    batches = [frozenset(b.tolist()) for plan in plans for step in plan
               for b in step.parts[0].batches]  # fmt: skip
    assert len(set(batches)) > 0.9 * len(batches)


def test_lengths_come_in_no_particular_order() -> None:
    lengths = sentences(5_000)
    batches = draw_batches(source(lengths, 512), seed=1, epoch=0)
    means = [np.mean([lengths[row // 3] for row in batch]) for batch in batches]
    assert abs(np.corrcoef(np.arange(len(means)), means)[0, 1]) < 0.3


def test_a_batch_does_not_depend_on_which_were_drawn_before() -> None:
    drawn = source(sentences(400), 256)
    whole = [batch.tolist() for batch in draw_batches(drawn, seed=1, epoch=0)]
    one = draw_batches(drawn, seed=1, epoch=0)
    for i in (len(one) - 1, 0, 7):
        assert one[i].tolist() == whole[i]


def test_a_large_order_by_length_is_mapped_from_disk() -> None:
    bins = make_bins(np.asarray(sentences(400)), 256, limit=100)
    assert isinstance(bins.order, np.memmap)
    assert sorted(bins.order.tolist()) == list(range(400))
