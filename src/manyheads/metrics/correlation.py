"""Metrics of scores: how well predicted similarities agree with people's.

Arrays: P pairs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import NDArray

from manyheads.metrics.counts import Floats

Numbers = Sequence[float] | NDArray[np.floating]


class SimilarityMetrics(TypedDict):
    """Correlations, between -1 and 1, of predicted with gold similarities."""

    spearman: float
    pearson: float


def similarity_metrics(gold: Numbers, predicted: Numbers) -> SimilarityMetrics:
    """Score the predicted similarities of pairs of sentences."""
    return {"spearman": spearman(gold, predicted), "pearson": pearson(gold, predicted)}


def pearson(x: Numbers, y: Numbers) -> float:
    """Return the linear correlation of two rows of numbers; 0 where one of them is constant.

    Raises:
        ValueError: the rows differ in length, or hold a number that is not finite.
    """
    first, second = _checked(x, y)
    if not len(first) or np.ptp(first) == 0 or np.ptp(second) == 0:
        return 0.0
    first, second = first - first.mean(), second - second.mean()
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    return float(np.clip(first @ second, -1.0, 1.0))


def spearman(x: Numbers, y: Numbers) -> float:
    """Return the correlation of the ranks, equal numbers sharing their mean rank.

    Raises:
        ValueError: the rows differ in length, or hold a number that is not finite.
    """
    first, second = _checked(x, y)
    return pearson(_ranks(first), _ranks(second))


def _checked(x: Numbers, y: Numbers) -> tuple[Floats, Floats]:
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"cannot correlate numbers of shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("cannot correlate numbers that are not finite")
    return first, second


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
