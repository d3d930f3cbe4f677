"""Metrics of similarities: agreement with human scores, or with another encoder.

Axes: P pairs, N sentences, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict, TypeVar

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics.counts import Floats
from manyheads.tasks.metrics.ties import without_noise

Numbers = Sequence[float] | NDArray[np.floating]
Matrix = NDArray[np.float32]
Number = TypeVar("Number", bound=np.floating[Any])

_DIGITS = 6
_NOISE = 1e-6
"""The width of a tie of cosines, and of regression in deviations. From batch to batch they vary by
about 1e-7."""


class SimilarityMetrics(TypedDict):
    """Correlations, between -1 and 1, of predicted with gold similarities."""

    spearman: float
    pearson: float


class RegressionMetrics(SimilarityMetrics):
    """Correlations of predicted with gold numbers, and how far they are apart."""

    mae: float
    """The mean absolute error, in the unit of the numbers."""


class DriftMetrics(TypedDict):
    """How far the embeddings of some sentences are from those that another encoder gave them."""

    cosine: float
    """Mean over the sentences; 1 where nothing has changed."""
    similarity_correlation: float | None
    """Spearman's, of the similarities of each two sentences before and after; None where those
    before have no order, as of two sentences."""
    sentences: int


def drift_metrics(before: Floats | Matrix, after: Floats | Matrix) -> DriftMetrics:
    """Compare two encoders' embeddings of the same sentences.

    Args:
        before: [N, H].
        after: [N, H], or of another length H: then no cosine can be taken, and it is 0.
    """
    first, second = (directions(np.asarray(one, np.float64)) for one in (before, after))
    pairs = np.triu_indices(len(first), 1)
    same_size = first.shape == second.shape
    cosine = float((first * second).sum(axis=1).mean()) if same_size and len(first) else 0.0
    old, new = (without_noise((some @ some.T)[pairs], _NOISE) for some in (first, second))
    ranked = len(first) > 2 and np.ptp(old) > 0
    return {
        "cosine": round(cosine, _DIGITS),
        "similarity_correlation": round(spearman(old, new), _DIGITS) if ranked else None,
        "sentences": len(first),
    }


def directions(vectors: NDArray[Number]) -> NDArray[Number]:
    """Scale vectors to length one; zeros stay zeros."""
    scaled: NDArray[Number] = vectors / np.maximum(
        np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12
    )
    return scaled


def similarity_metrics(gold: Numbers, predicted: Numbers) -> SimilarityMetrics:
    """Score the cosines of pairs of sentences.

    Cosines that differ only by noise (see `without_noise`) have equal ranks.
    """
    return _correlations(gold, predicted, _NOISE)


def regression_metrics(gold: Numbers, predicted: Numbers, deviation: float) -> RegressionMetrics:
    """Score predicted numbers.

    Predictions that differ only by noise (see `without_noise`) have equal ranks.

    Args:
        gold, predicted: in the unit of the labels.
        deviation: the standard deviation of the training data's numbers, in which the head answers.
    """
    first, second = _checked(gold, predicted)
    error = float(np.abs(first - second).mean()) if len(first) else 0.0
    return {**_correlations(first, second, _NOISE * deviation), "mae": error}


def _correlations(gold: Numbers, predicted: Numbers, width: float) -> SimilarityMetrics:
    return {
        "spearman": spearman(gold, without_noise(predicted, width)),
        "pearson": pearson(gold, predicted),
    }


def pearson(x: Numbers, y: Numbers) -> float:
    """Return the linear correlation of two rows of numbers; 0 where one of them is constant.

    Raises:
        ValueError: the rows differ in length, or hold a number that is not finite.
    """
    first, second = map(_scaled, _checked(x, y))
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


def rank_distances(gold: Numbers, predicted: Numbers) -> list[float]:
    """Return how far the rank of each predicted cosine is from the ranks of its gold number.

    Cosines that differ only by noise (see `without_noise`) have equal ranks.
    Equal gold numbers share their ranks: any order among them is right, and has the distance 0.

    Raises:
        ValueError: the rows differ in length, or hold a number that is not finite.
    """
    first, second = _checked(gold, without_noise(predicted, _NOISE))
    _, inverse, counts = np.unique(first, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks, lowest, highest = _ranks(second), (last - counts + 1)[inverse], last[inverse]
    found: list[float] = np.maximum(np.maximum(lowest - ranks, ranks - highest), 0.0).tolist()
    return found


def _checked(x: Numbers, y: Numbers) -> tuple[Floats, Floats]:
    first, second = np.asarray(x, np.float64), np.asarray(y, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise ValueError(f"cannot correlate numbers of shapes {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("cannot correlate numbers that are not finite")
    return first, second


def _scaled(values: Floats) -> Floats:
    """Divide numbers by a power of two near the largest, so that sums of squares stay finite.

    That is exact, so that the correlation of other numbers does not change.
    """
    _, exponent = np.frexp(np.abs(values).max(initial=0.0))
    scaled: Floats = np.ldexp(values, -exponent)
    return scaled


def _ranks(values: Floats) -> Floats:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    ranks: Floats = (last - (counts - 1) / 2)[inverse]
    return ranks
