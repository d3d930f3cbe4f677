"""Metrics that are ratios of sums over sentences, which tests of differences resample.

Axes: B sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics.counts import Floats, SentenceCounts


@dataclass(frozen=True, slots=True, eq=False)
class Ratio:
    """A metric as a sum over sentences divided by another: float64 [B] each.

    The sums of several runs on the same sentences can be added: the bootstrap then compares the
    pooled runs.
    """

    numerator: Floats
    denominator: Floats

    @classmethod
    def accuracy(cls, correct: Sequence[bool | None] | NDArray[np.bool_]) -> Ratio:
        """The share of right sentences; None is a sentence that does not count."""
        counted = np.array([answer is not None for answer in correct], np.float64)
        return cls(np.array([bool(answer) for answer in correct], np.float64), counted)

    @classmethod
    def f1(cls, counts: SentenceCounts) -> Ratio:
        """The micro F1 of labels or entities."""
        return cls(
            2.0 * counts.hits.astype(np.float64),
            (counts.predicted + counts.gold).astype(np.float64),
        )

    def __add__(self, other: Ratio) -> Ratio:
        return Ratio(self.numerator + other.numerator, self.denominator + other.denominator)

    def value(self) -> float:
        """Return the metric; 0 where there is nothing to divide by."""
        whole = self.denominator.sum()
        return float(self.numerator.sum() / whole) if whole else 0.0
