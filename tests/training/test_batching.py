"""The records of the next batch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyheads.training.data import Source, draw_batches, step_seed
from manyheads.training.data.batching import Shares


def source(
    name: str, count: int, batch_size: int = 4, *, longest: int = 40, tasks: tuple[str, ...] = ()
) -> Source:
    lengths = np.random.default_rng(count).integers(3, longest, count)
    return Source(name, tasks or (name,), 0, np.arange(count) * 2, lengths, batch_size)


@given(st.integers(0, 90), st.integers(1, 7), st.integers(0, 2**32), st.integers(0, 50))
def test_every_record_is_in_exactly_one_batch(
    count: int, batch_size: int, seed: int, epoch: int
) -> None:
    drawn = draw_batches(source("a", count, batch_size), seed, epoch)
    assert sorted(int(row) for batch in drawn for row in batch) == list(range(0, 2 * count, 2))
    sizes = [len(batch) for batch in drawn]
    assert all(1 <= size <= batch_size for size in sizes)
    assert max(sizes, default=0) - min(sizes, default=0) <= 1


@given(st.integers(0, 90), st.integers(1, 40), st.integers(0, 2**32))
def test_every_record_is_in_exactly_one_share_and_shares_are_of_equal_size(
    count: int, shares: int, seed: int
) -> None:
    drawn = Shares(source("a", count), seed, 0, shares)
    assert sorted(int(row) for share in drawn for row in share) == list(range(0, 2 * count, 2))
    assert {len(share) for share in drawn} <= {count // shares, count // shares + 1}
    assert len(drawn) == shares


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


def test_a_batch_does_not_depend_on_which_were_drawn_before() -> None:
    for dealt in (draw_batches(source("a", 2_000), 7, 1), Shares(source("a", 700), 7, 1, 900)):
        whole = [batch.tolist() for batch in dealt]
        for i in (len(dealt) - 1, 3, 400):
            assert dealt[i].tolist() == whole[i]
        assert [batch.tolist() for batch in dealt[390:410]] == whole[390:410]
        assert dealt[-1].tolist() == whole[-1]
        with pytest.raises(IndexError):
            dealt[len(dealt)]


@pytest.mark.parametrize("step", [0, 1, 1_000_000])
def test_each_step_has_its_own_seed_that_torch_accepts(step: int) -> None:
    assert 0 <= step_seed(42, step) < 2**63
    assert step_seed(42, step) == step_seed(42, step)
    assert len({step_seed(42, step), step_seed(42, step + 1), step_seed(43, step)}) == 3
