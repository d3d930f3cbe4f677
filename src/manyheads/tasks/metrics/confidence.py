"""Confidence: how well the scores of answers match their correctness.

Axes: D answers.
"""

from __future__ import annotations

from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics.ties import ends_of_ties, without_noise

Scores = NDArray[np.floating[Any]]
Bools = NDArray[np.bool_]

_BINS = 15
_FEWEST_IN_A_BIN = 20
_DRAWS = 100
_NOISE = 1e-5
"""The width of a tie of scores, in log-odds; logits vary by about 1e-6 from batch to batch."""


class ConfidenceMetrics(TypedDict):
    """How far the scores of a task's answers can be trusted; lower is better."""

    ece: float
    """The expected calibration error, in bins of equal mass."""
    ece_by_chance: float
    """The mean error of perfectly calibrated scores like these, by as many answers."""
    brier: float
    """The mean squared distance of a score from 1 if its answer is right, from 0 if not."""
    aurc: float
    """The area under the risk-coverage curve: the mean share of errors among the surest answers,
    over all shares of answers."""
    answers: int
    calibrated: bool
    """Whether the model's scores are calibrated."""


def confidence_metrics(scores: Scores, right: Bools, *, calibrated: bool) -> ConfidenceMetrics:
    """Compute the metrics of some answers, at least one.

    Args:
        scores: [D] the probability of each answer.
        right: [D] whether it is right.
        calibrated: whether the scores are calibrated.
    """
    return ConfidenceMetrics(
        ece=calibration_error(scores, right),
        ece_by_chance=error_by_chance(scores),
        brier=float(((scores - right) ** 2).mean()),
        aurc=float(risk_coverage(scores, right)[1].mean()),
        answers=len(scores),
        calibrated=calibrated,
    )


def binned(scores: Scores) -> list[NDArray[np.int64]]:
    """Sort answers by score into bins of equal mass; few answers get fewer bins.

    Answers of equal scores (see `_compared`) are in one bin, so that the order of the answers
    has no effect.

    Returns:
        the numbers of each bin's answers; no bin if there are no answers.
    """
    if not len(scores):
        return []
    compared = _compared(scores)
    order = np.argsort(compared, kind="stable")
    parts = np.array_split(order, max(1, min(_BINS, len(order) // _FEWEST_IN_A_BIN)))
    ends = ends_of_ties(compared[order]) + 1
    cuts = ends[np.searchsorted(ends, np.cumsum([len(part) for part in parts]))]
    return np.split(order, np.unique(cuts)[:-1])


def reliability(
    scores: Scores, right: Bools
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Compare scores with shares of right answers, bin by bin (see `binned`).

    Returns:
        each bin's mean score, share of right answers, and number of answers.
    """
    parts = binned(scores)
    mean = np.array([scores[part].mean() for part in parts], np.float64)
    share = np.array([right[part].mean() for part in parts], np.float64)
    return mean, share, np.array([len(part) for part in parts], np.int64)


def calibration_error(scores: Scores, right: Bools) -> float:
    """Return the mean distance of scores from shares of right answers, over bins of equal mass.

    Args:
        scores: [D] the probability of each answer, at least one.
        right: [D] whether it is right.
    """
    mean, share, counts = reliability(scores, right)
    return float((np.abs(mean - share) * counts).sum() / counts.sum())


def error_by_chance(scores: Scores) -> float:
    """Return the mean calibration error that perfectly calibrated scores would show.

    Each bin's share of right answers differs from its mean score by chance, the more the fewer
    answers it has. So an error of this size says nothing against the scores.

    Args:
        scores: [D], at least one.
    """
    parts = binned(scores)
    ordered = np.asarray(scores, np.float64)[np.concatenate(parts)]
    starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
    expected, rng = np.add.reduceat(ordered, starts), np.random.default_rng(0)
    errors = [
        np.abs(np.add.reduceat((rng.random(len(ordered)) < ordered).astype(np.float64), starts)
               - expected).sum()
        for _ in range(_DRAWS)
    ]  # fmt: skip
    return float(np.mean(errors) / len(ordered))


def risk_coverage(
    scores: Scores, right: Bools
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:  # fmt: skip
    """Return the share of errors among the surest answers, for each number of them.

    Answers of equal scores (see `_compared`) are taken together (Geifman and El-Yaniv, 2017).

    Returns:
        [D] the share of answers, and [D] the share of errors among them.
    """
    compared = _compared(scores)
    order = np.argsort(-compared, kind="stable")
    counts = np.arange(1, len(order) + 1)
    errors = np.cumsum(~right[order])
    last = ends_of_ties(compared[order])
    whole = last[np.searchsorted(last, counts - 1)]
    return counts / len(order), errors[whole] / (whole + 1)


def _compared(scores: Scores) -> NDArray[np.float64]:
    """Return the log-odds of scores, equal where they differ only by noise.

    Near 1, scores of different answers are closer together than scores of 0.5 that vary by noise.
    """
    limits = np.finfo(np.float64)
    inside = np.clip(np.asarray(scores, np.float64), limits.tiny, 1 - limits.epsneg)
    return without_noise(np.log(inside) - np.log1p(-inside), _NOISE)
