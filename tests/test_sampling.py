"""Samples are spread evenly, or drawn at random, over what they are taken from."""

from __future__ import annotations

from itertools import pairwise

import pytest

from manyheads.sampling import StreamSample, drawn, spread


@pytest.mark.parametrize("count", [1, 2, 7, 300])
@pytest.mark.parametrize("length", [0, 1, 7, 299, 301, 599, 600, 1000])
def test_a_spread_sample_leaves_no_part_out(length: int, count: int) -> None:
    chosen = spread(range(length), count)
    assert len(chosen) == min(length, count)
    edges = [*chosen, length]
    gaps = [after - before for before, after in pairwise(edges)]
    assert not gaps or (chosen[0] == 0 and max(gaps) - min(gaps) <= 1)


@pytest.mark.parametrize("length", [0, 3, 20, 21, 39, 40, 1000])
def test_a_sample_of_a_stream_leaves_no_part_out(length: int) -> None:
    sample = StreamSample[int](10)
    sample.extend(range(length // 3))
    sample.extend(range(length // 3, length))
    assert min(length, 10) <= len(sample.items) <= 20
    step = sample.items[1] if length > 1 else 1
    assert sample.items == [*range(0, length, step)]


@pytest.mark.parametrize("count", [1, 20, 300, 1000])
@pytest.mark.parametrize("length", [0, 1, 300, 999])
def test_items_are_drawn_from_all_of_a_stream_in_random_order(length: int, count: int) -> None:
    chosen, total = drawn(iter(range(length)), count)
    assert (total, len(chosen), len(set(chosen))) == (length, min(length, count), len(chosen))
    assert drawn(range(length), count) == (chosen, total)
    if length >= 300 and count >= 300:
        # Whether the stream is in order, or a cycle of two, each part has its share.
        for part in (chosen, chosen[::3]):
            assert sum(i < length / 2 for i in part) == pytest.approx(len(part) / 2, rel=0.2)
            assert sum(i % 2 for i in part) == pytest.approx(len(part) / 2, rel=0.2)
