"""Hypothesis strategies for the nested values that a checkpoint can hold."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(1 - 2**2000, 2**2000 - 1)
    | st.floats()
    | st.text(max_size=20)
)
KEYS = st.text(max_size=5) | st.integers(1 - 2**31, 2**31 - 1)


def nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return lists, tuples and dictionaries of some values, at any depth, and the values alone."""
    return st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.tuples(inner, inner)
            | st.tuples()
            | st.dictionaries(KEYS, inner, max_size=3)
        ),
        max_leaves=15,
    )
