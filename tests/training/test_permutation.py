"""Random permutations that need no memory."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from manyheads.training.data.permutation import Permutation


def shuffle(count: int, seed: int = 0) -> Permutation:
    return Permutation.draw(count, np.random.default_rng(seed))


@given(st.integers(0, 3_000), st.integers(0, 2**32))
def test_each_number_is_in_exactly_one_position(count: int, seed: int) -> None:
    order = shuffle(count, seed)[np.arange(count)]
    assert sorted(order.tolist()) == list(range(count))


def test_any_part_equals_that_of_the_whole() -> None:
    order = shuffle(1_000)
    whole = order[np.arange(1_000)]
    places = np.asarray([999, 3, 500])
    assert order[places].tolist() == whole[places].tolist()
    assert order[np.arange(200, 300)].tolist() == whole[200:300].tolist()


def test_permutations_of_few_numbers_are_about_equally_likely() -> None:
    drawn = Counter(tuple(shuffle(4, seed)[np.arange(4)].tolist()) for seed in range(2_400))
    assert len(drawn) == 24
    assert max(drawn.values()) < 170
    assert min(drawn.values()) > 50


@pytest.mark.parametrize("count", [1_000, 65_536, 100_003])
def test_nothing_of_the_original_order_is_left(count: int) -> None:
    order = shuffle(count)[np.arange(count)]
    # The positions of numbers that were neighbours, and the new neighbours.
    assert abs(np.corrcoef(np.arange(count), order)[0, 1]) < 4 / count**0.5
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 4 / count**0.5
    fixed = int((order == np.arange(count)).sum())
    assert fixed < 10


def test_a_huge_permutation_starts_without_delay() -> None:
    order = shuffle(10**12)[np.arange(10**12 - 5, 10**12)]
    assert len(set(order.tolist())) == 5
    assert 0 <= order.min() <= order.max() < 10**12
