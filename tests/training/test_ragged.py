"""Rows of different lengths in one flat array."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from manyheads.training.data.ragged import FlatBuilder, Ragged, RaggedBuilder

rows_of_numbers = st.lists(
    st.lists(st.integers(-(2**15), 2**15 - 1), max_size=12), min_size=1, max_size=30
)


def build(rows: list[list[int]], limit: int) -> Ragged:
    builder = RaggedBuilder(np.int16, limit)
    for i in range(0, len(rows), 3):
        builder.extend([np.asarray(row, np.int16) for row in rows[i : i + 3]])
    return builder.finish()


@given(rows_of_numbers, st.sampled_from([0, 16, 1 << 20]))
def test_rows_are_returned_unchanged_from_memory_and_from_disk(
    rows: list[list[int]], limit: int
) -> None:
    ragged = build(rows, limit)
    assert len(ragged) == len(rows)
    assert ragged.lengths.tolist() == [len(row) for row in rows]
    assert [ragged.row(i).tolist() for i in range(len(rows))] == rows


@given(rows_of_numbers, st.data())
def test_gathered_rows_are_padded_at_the_right(rows: list[list[int]], data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1), min_size=1))
    padded = build(rows, 1 << 20).padded(np.asarray(chosen), -7)
    width = max(1, *(len(rows[i]) for i in chosen)) if len(chosen) > 1 else padded.shape[1]
    assert padded.shape == (len(chosen), width)
    for got, i in zip(padded.tolist(), chosen, strict=True):
        assert got == rows[i] + [-7] * (width - len(rows[i]))


def test_arrays_beyond_the_memory_limit_are_mapped_from_disk() -> None:
    small, large = FlatBuilder(np.int32, limit=100), FlatBuilder(np.int32, limit=100)
    small.extend(range(20))
    for start in range(0, 1000, 10):
        large.extend(range(start, start + 10))
    assert not isinstance(small.finish(), np.memmap)
    values = large.finish()
    assert isinstance(values, np.memmap)
    assert values.tolist() == list(range(1000))
