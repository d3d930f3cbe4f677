"""Statistics: intervals over seeds, and paired tests over sentences.

Arrays: B sentences, G groups of sentences with equal counts, R resamples.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics import Ratio, shares

Floats = NDArray[np.float64]

_LEVEL = 0.95
"""The confidence level of intervals."""
# Numbers drawn at once; bounds the memory of a bootstrap (8 bytes each).
_DRAWN_AT_ONCE = 4_000_000


@dataclass(frozen=True, slots=True)
class MeanInterval:
    """The mean over a few runs, with a confidence interval.

    `deviation` (of the sample, n - 1), `low` and `high` are None for a single run, which has no
    spread.
    """

    mean: float
    deviation: float | None
    low: float | None
    high: float | None
    count: int
    level: float


@dataclass(frozen=True, slots=True)
class PairedDifference:
    """Two systems on the same sentences: their metric, and an interval of the difference.

    Args:
        first, second: the metric of each system.
        difference: second minus first.
        low, high: the confidence interval of the difference.
        second_better: the share of resamples in which the second system is better; ties count
            half.
        sentences: the number of sentences.
        level: the confidence level of the interval.
    """

    first: float
    second: float
    difference: float
    low: float
    high: float
    second_better: float
    sentences: int
    level: float


def mean_interval(values: Sequence[float]) -> MeanInterval:
    """Return the mean of a few runs, such as those of different seeds, with its 95 % interval.

    For the difference of two options, pass the difference of each pair of runs. The interval is
    Student's t with n - 1 degrees of freedom.

    Raises:
        ValueError: there is no value.
    """
    if not values:
        raise ValueError("no values to take a mean of")
    mean, count = fmean(values), len(values)
    if count == 1:
        return MeanInterval(mean, None, None, None, count, _LEVEL)
    deviation = stdev(values)
    margin = t_quantile((1 + _LEVEL) / 2, count - 1) * deviation / math.sqrt(count)
    return MeanInterval(mean, deviation, mean - margin, mean + margin, count, _LEVEL)


def share_interval(count: int, total: int) -> tuple[float, float]:
    """Return the 95 % confidence interval of a share, from a sample.

    The interval is Wilson's score interval (1927), which holds for small samples and rare events.

    Args:
        count: the members of the sample that have the property.
        total: all members, at least 1.
    """
    z = NormalDist().inv_cdf((1 + _LEVEL) / 2)
    share, spread = count / total, z * z / total
    middle = (share + spread / 2) / (1 + spread)
    margin = z * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return max(0.0, middle - margin), min(1.0, middle + margin)


def paired_bootstrap(
    first: Ratio,
    second: Ratio,
    *,
    resamples: int = 10_000,
    seed: int = 0,
) -> PairedDifference:
    """Compare two systems' metrics on the same sentences by resampling the sentences.

    Each resample draws as many sentences as there are, with replacement, the same ones for both
    systems; the 95 % interval is between percentiles of the differences (Efron and Tibshirani 1993,
    chapter 13; Koehn 2004 for its use on system outputs). Sentences with equal counts are
    interchangeable, so a resample is one multinomial draw over the G different counts, not B
    draws of sentences: exactly the same distribution, and tens of groups instead of thousands
    of sentences.

    Raises:
        ValueError: the systems differ in the number of sentences, there is none, or `resamples` is
            below 1.
    """
    rows = [first.numerator, first.denominator, second.numerator, second.denominator]
    sums = _resampled(rows, resamples, seed)
    differences = shares(sums[:, 2], sums[:, 3]) - shares(sums[:, 0], sums[:, 1])
    low, high = between(differences)
    return PairedDifference(
        first=first.value(),
        second=second.value(),
        difference=second.value() - first.value(),
        low=float(low),
        high=float(high),
        second_better=float((differences > 0).mean() + (differences == 0).mean() / 2),
        sentences=len(first.numerator),
        level=_LEVEL,
    )


def bootstrap_interval(ratio: Ratio, *, resamples: int = 10_000) -> tuple[float, float]:
    """Return the 95 % confidence interval of a metric, by resampling the sentences.

    The method is that of `paired_bootstrap`.

    Raises:
        ValueError: there is no sentence, or `resamples` is below 1.
    """
    sums = _resampled([ratio.numerator, ratio.denominator], resamples, seed=0)
    return between(shares(sums[:, 0], sums[:, 1]))


def _resampled(rows: Sequence[Floats], resamples: int, seed: int) -> Floats:
    """Draw as many sentences as there are, with replacement, and sum each row: [R, rows]."""
    sentences = len(rows[0])
    if any(len(row) != sentences for row in rows):
        raise ValueError(f"rows of different lengths: {[len(row) for row in rows]}")
    if not sentences:
        raise ValueError("no sentences to resample")
    if resamples < 1:
        raise ValueError(f"{resamples} resamples; at least 1 is needed")
    groups, sizes = np.unique(np.stack(rows, axis=1), axis=0, return_counts=True)
    random = np.random.default_rng(seed)
    sums = np.empty((resamples, len(rows)))
    at_once = max(1, _DRAWN_AT_ONCE // len(groups))
    for begin in range(0, resamples, at_once):
        end = min(begin + at_once, resamples)
        drawn = random.multinomial(sentences, sizes / sentences, size=end - begin)  # [R, G]
        sums[begin:end] = drawn @ groups
    return sums


def between(values: Floats) -> tuple[float, float]:
    """Return the percentiles between which values lie with probability `_LEVEL`."""
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)


def t_quantile(probability: float, freedom: int) -> float:
    """Return the value that Student's t stays below with a probability.

    By bisection of the distribution function, which has a closed form for whole degrees of
    freedom (Abramowitz and Stegun 1964, 26.7.3 and 26.7.4).

    Raises:
        ValueError: the probability is not between 0 and 1, or `freedom` is below 1.
    """
    if not 0 < probability < 1 or freedom < 1:
        raise ValueError(f"no quantile for probability {probability} and {freedom} degrees")
    if probability < 0.5:
        return -t_quantile(1 - probability, freedom)
    low, high = 0.0, 1.0
    while _t_below(high, freedom) < probability:
        low, high = high, 2 * high
    for _ in range(100):
        middle = (low + high) / 2
        if _t_below(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _t_below(t: float, freedom: int) -> float:
    """Return the probability that Student's t is below t."""
    angle = math.atan(t / math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term, total = (cosine, cosine) if odd else (1.0, 1.0)
    if freedom == 1:
        total = 0.0
    for k in range(3 if odd else 2, freedom - 1, 2):
        term *= cosine * cosine * ((k - 1) / k)
        total += term
    within = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return (1 + within) / 2


def last_within_chance(scores: Sequence[float], errors: Sequence[float]) -> int | None:
    """Return the index of the last score that is at most one standard error below the best.

    The rule of one standard error (Breiman et al. 1984, "Classification and Regression Trees"): of
    models that validation data cannot tell apart, that one is chosen which is better for other
    reasons. The last epochs of a run are: their learning rate has fallen.

    Args:
        scores: of each epoch; higher is better. Those that are not finite are never chosen.
        errors: the standard error of each. Of equal best scores, that of the last counts.

    Returns:
        None where no score is finite.
    """
    known = [i for i, score in enumerate(scores) if math.isfinite(score)]
    if not known:
        return None
    best = max(known, key=lambda i: (scores[i], i))
    return max(i for i in known if scores[i] >= scores[best] - errors[best])
