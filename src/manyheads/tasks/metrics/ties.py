"""Equal numbers: which answers of a model are ties, and where ties end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics.counts import Floats

_BITS = 17
"""Five decimal digits. A similarity varies by about 1e-7 from batch to batch; with a sixth digit, a
tenth of equal pairs of texts would still be rounded to different numbers."""


def without_noise(values: Sequence[float] | NDArray[np.floating[Any]]) -> Floats:
    """Round a model's numbers to five significant digits of the largest.

    The last bits of an answer depend on the other texts of its batch and on the number of threads,
    so that equal texts have slightly different answers. Rounded ones have equal ranks.
    """
    numbers = np.asarray(values, np.float64)
    _, exponent = np.frexp(np.abs(numbers).max(initial=0.0))
    # Scaling by a power of two is exact, and a fraction below one cannot overflow.
    rounded: Floats = np.ldexp(np.rint(np.ldexp(numbers, _BITS - exponent)), exponent - _BITS)
    return rounded


def ends_of_ties(ordered: NDArray[np.floating[Any]]) -> NDArray[np.int64]:
    """Return the number of the last answer of each score, of answers in the order of scores."""
    return np.flatnonzero(np.append(np.diff(ordered) != 0, len(ordered) > 0))
