"""Equal numbers: which answers of a model are ties, and where ties end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics.counts import Floats


def without_noise(values: Sequence[float] | NDArray[np.floating[Any]], width: float) -> Floats:
    """Make a model's numbers equal where they differ only by noise.

    The last bits of an answer depend on the other texts of its batch and on the number of threads,
    so that equal texts have slightly different answers. They get equal ranks.

    Args:
        values: [N].
        width: the largest difference within a tie. It does not grow with the numbers, as rounding
            to some digits does: the noise of large numbers close together is small.

    Returns:
        [N] each number, or the lowest one of its tie.
    """
    numbers = np.asarray(values, np.float64)
    order = np.argsort(numbers, kind="stable")
    ordered = numbers[order]
    # A tie begins with its lowest number. On a fixed grid, answers for equal texts could lie on two
    # sides of a border; with ties between all neighbours, dense numbers would be one long tie.
    ends = np.searchsorted(ordered, ordered + width, side="right").tolist()
    tied, start = np.empty_like(numbers), 0
    while start < len(ends):
        tied[order[start : ends[start]]] = ordered[start]
        start = ends[start]
    return tied


def ends_of_ties(ordered: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the number of the last answer of each score, of answers in the order of scores."""
    return np.flatnonzero(np.append(np.diff(ordered) != 0, len(ordered) > 0))
