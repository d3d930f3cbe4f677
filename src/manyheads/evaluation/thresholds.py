"""Thresholds: the score from which a share of the answers is right, with confidence.

Axes: D answers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks import NEVER, Judged, Thresholds
from manyheads.tasks.metrics import ends_of_ties

_STARTS = 4
"""Places in the order of scores from which the search goes on to lower ones."""


@dataclass(frozen=True, slots=True)
class Reached:
    """A threshold, and what it reached on the records that it was found on."""

    score: float
    answers: int
    """Answers from this score on."""
    right: int
    coverage: float
    """Their share of all answers."""
    low: float
    """The lower bound of the share that is right, one-sided, by Clopper and Pearson."""


@dataclass(frozen=True, slots=True)
class FoundThresholds:
    """A task's thresholds, and how they were found."""

    precision: float
    confidence: float
    task: Reached | None
    """Of all labels together; None where no score reaches the precision with confidence."""
    labels: Mapping[str, Reached]
    """Of labels that have enough answers by themselves."""
    raised: Mapping[str, float]
    """Labels that are too often wrong from the task's score on, with their higher scores, or
    `NEVER`."""

    @property
    def thresholds(self) -> Thresholds | None:
        """Return what is stored; None where the precision is not reached."""
        if self.task is None:
            return None
        own = {label: found.score for label, found in self.labels.items()}
        return Thresholds(self.precision, self.confidence, self.task.score, {**own, **self.raised})


def find_thresholds(judged: Judged, precision: float, confidence: float = 0.95) -> FoundThresholds:
    """Find the least score of a task, and of each label, from which the precision holds.

    A label with too few answers for a threshold of its own has the task's, or a higher score where
    too few of its answers from there on are right.

    Args:
        judged: answers to records that the model was not trained on.
        precision: the share of answers that must be right.
        confidence: the probability with which that must hold on further records.
    """
    whole = reach(judged.scores, judged.right, precision, confidence)
    labels: dict[str, Reached] = {}
    raised: dict[str, float] = {}
    for label in sorted(set(judged.labels.tolist())):
        own = judged.labels == label
        scores, right = judged.scores[own], judged.right[own]
        found = reach(scores, right, precision, confidence)
        if found is not None:
            labels[label] = found
        elif whole is not None:
            score = _raised(scores, right, whole.score, precision)
            if score > whole.score:
                raised[label] = score
    return FoundThresholds(precision, confidence, whole, labels, raised)


def _raised(
    scores: NDArray[np.float64], right: NDArray[np.bool_], least: float, precision: float
) -> float:
    """Return the least score, not below another one, from which the share right is reached."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    counts, hits = np.arange(1, len(order) + 1), np.cumsum(right[order])
    last = ends_of_ties(ordered)
    able = last[(ordered[last] >= least) & (hits[last] >= precision * counts[last])]
    inside = ordered >= least
    if not inside.any() or hits[inside][-1] >= precision * inside.sum():
        return least
    if len(able):
        return float(ordered[able[-1]])
    # Just above the most probable wrong answer, where no score is enough.
    above = float(ordered[0]) + 1e-6
    return above if above <= 1 else NEVER


def reach(
    scores: NDArray[np.float64], right: NDArray[np.bool_], precision: float, confidence: float
) -> Reached | None:
    """Find the least score from which the precision holds with confidence.

    Fixed-sequence tests (Angelopoulos et al., 2021, "Learn then test"): from a few places, fixed
    before looking at the answers, the score is lowered as long as an exact binomial test rejects
    a precision below the target. The probability of any error is at most 1 - confidence.

    Args:
        scores: [D].
        right: [D].
        precision, confidence: see `find_thresholds`.
    """
    risk = (1 - confidence) / _STARTS
    fewest = math.ceil(math.log(risk) / math.log(precision))
    if len(scores) < fewest:
        # With few answers one test has all of the risk.
        risk = 1 - confidence
        fewest = math.ceil(math.log(risk) / math.log(precision))
        starts = [fewest]
    else:
        starts = sorted({*np.linspace(fewest, len(scores), _STARTS).astype(np.int64).tolist()})
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order], np.cumsum(right[order])
    last = ends_of_ties(ordered)
    best = None
    for start in starts:
        # Steps of a hundredth of the answers: finer ones gain nothing.
        step = max(1, len(order) // 100)
        for count in range(start, len(order) + 1, step):
            end = int(last[np.searchsorted(last, count - 1)]) + 1
            if binomial_tail(int(hits[end - 1]), end, precision) > risk:
                break
            best = end if best is None else max(best, end)
    if best is None:
        return None
    hit = int(hits[best - 1])
    low, _ = clopper_pearson(hit, best, 2 * confidence - 1)
    return Reached(float(ordered[best - 1]), best, hit, best / len(order), low)


def clopper_pearson(right: int, total: int, level: float = 0.95) -> tuple[float, float]:
    """Return the exact interval of a share (Clopper and Pearson, 1934).

    Raises:
        ValueError: `right` is not between 0 and `total`, or `level` not from 0 to below 1.
    """
    if not 0 <= right <= total or not 0 <= level < 1:
        raise ValueError(f"no interval of {right} of {total} at level {level}")
    tail = (1 - level) / 2
    low = _solve(lambda p: binomial_tail(right, total, p) - tail) if right else 0.0
    high = _solve(lambda p: binomial_tail(right + 1, total, p) - (1 - tail))
    return low, high if right < total else 1.0


def binomial_tail(right: int, total: int, share: float) -> float:
    """Return the probability of at least so many right ones of all, if each is with a probability.

    It is the regularised incomplete beta function of `share` (Press et al., 1992, section 6.4).
    """
    if right <= 0:
        return 1.0
    if right > total or share <= 0:
        return 0.0
    return 1.0 if share >= 1 else _incomplete_beta(right, total - right + 1, share)


def _incomplete_beta(a: float, b: float, x: float) -> float:
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1.0 - front * _fraction(b, a, 1 - x) / b


def _fraction(a: float, b: float, x: float) -> float:
    """Evaluate the continued fraction of the incomplete beta function by Lentz's method."""
    c, d = 1.0, 1.0 / _away(1 - (a + b) * x / (a + 1))
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        before = value
        for term in (even, odd):
            d = 1.0 / _away(1 + term * d)
            c = _away(1 + term / c)
            value *= c * d
        if abs(value - before) < 1e-14 * abs(value):
            break
    return value


def _away(value: float) -> float:
    """Keep a denominator away from zero."""
    return value if abs(value) > 1e-300 else 1e-300


def _solve(function: Callable[[float], float]) -> float:
    """Return where a function that rises between 0 and 1 is zero, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        if function(middle) < 0:
            low = middle
        else:
            high = middle
    return (low + high) / 2
