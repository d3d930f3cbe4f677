"""Learning curves by number of records: a power law, and what more records would reach.

Axes: S sizes of the training data, K seeds, B sentences, R resamples, C exponents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from manyheads.config import Config
from manyheads.data.records import Record
from manyheads.evaluation.report.data import CurvePoint, LearningCurve
from manyheads.evaluation.statistics import between
from manyheads.tasks import LabelSet
from manyheads.tasks.metrics import Ratio

Floats = NDArray[np.float64]

FURTHER = (2, 4)
"""Multiples of the training data for which the score is extrapolated."""
FEWEST_SIZES = 3
FITTED = 4
"""The number of largest sizes to which the law is fitted. The smallest scores do not follow it:
with fewer records than labels, most labels cannot be predicted at all."""
_RESAMPLES = 1000
_AT_ONCE = 100
_EXPONENTS = np.geomspace(0.05, 2.0, 120)


@dataclass(frozen=True)
class Measured:
    """A task's score on the report's records, by size of the training data and by seed."""

    metric: str
    records: tuple[int, ...]
    """[S] training records with a label of the task, rising; mean over the seeds."""
    scores: tuple[tuple[float, ...], ...]
    """[S][K]."""
    ratios: tuple[tuple[Ratio, ...], ...] | None
    """[S][K] the scores as ratios of sums over the report's sentences; None of other metrics."""


MeasureCurves = Callable[
    [Config, Mapping[str, LabelSet], Sequence[Record], Sequence[Record]], Mapping[str, Measured]
]
"""Measures by (configuration, labels by task, training records, records to score on)."""


@dataclass(frozen=True)
class _Laws:
    """Power laws score = limit - drop * size ** -exponent, [R] each; the largest size is 1."""

    limit: Floats
    drop: Floats
    exponent: Floats

    def at(self, size: float) -> Floats:
        return self.limit - self.drop * size**-self.exponent


def learning_curve(name: str, measured: Measured) -> LearningCurve:
    """Fit a power law to a task's scores, and extrapolate it with intervals.

    Intervals are a bootstrap over sentences, where the metric is a ratio of sums over them, and
    over seeds, whose deviations are widened for their small number. Each resample has a law of its
    own, so that the interval of the extrapolation has the doubt about the exponent in it.

    Args:
        name: the task.
        measured: its scores, of `FEWEST_SIZES` sizes at least.
    """
    scores = np.array(measured.scores, np.float64)
    sizes = np.array(measured.records, np.float64) / measured.records[-1]
    drawn = _resampled(measured, scores, np.random.default_rng(0))
    means = scores.mean(axis=1)[None]
    law, laws = _fitted(sizes, means), _fitted(sizes, drawn)
    points = [
        CurvePoint(count, float(mean), *between(drawn[:, i]))
        for i, (count, mean) in enumerate(zip(measured.records, scores.mean(axis=1), strict=True))
    ]
    further = [
        CurvePoint(times * measured.records[-1], float(law.at(times)[0]), *between(laws.at(times)))
        for times in FURTHER
    ]
    check = None
    if len(sizes) > FEWEST_SIZES:
        without = _fitted(sizes[:-1], drawn[:, :-1]).at(1.0)
        mean = float(_fitted(sizes[:-1], means[:, :-1]).at(1.0)[0])
        check = CurvePoint(measured.records[-1], mean, *between(without))
    double = FURTHER[0]
    return LearningCurve(
        name,
        measured.metric,
        scores.shape[1],
        tuple(points),
        tuple(further),
        float((law.at(double) - law.at(1.0))[0]),
        *between(laws.at(double) - laws.at(1.0)),
        (float(law.limit[0]), float(law.drop[0]), float(law.exponent[0])),
        check,
    )


def _resampled(measured: Measured, scores: Floats, generator: np.random.Generator) -> Floats:
    """Return the mean score of each size in each resample, [R, S]."""
    sizes, seeds = scores.shape
    drawn = np.broadcast_to(scores, (_RESAMPLES, sizes, seeds))
    if measured.ratios is not None:
        rows = [one for some in measured.ratios for one in some]
        above, below = (
            np.stack([getattr(one, part) for one in rows], axis=1)
            for part in ("numerator", "denominator")
        )  # [B, S K]
        count = len(above)
        parts = []
        for _ in range(0, _RESAMPLES, _AT_ONCE):
            weights = generator.multinomial(count, np.full(count, 1 / count), size=_AT_ONCE)
            parts.append((weights @ above) / np.maximum(weights @ below, 1e-12))
        drawn = np.concatenate(parts).reshape(_RESAMPLES, sizes, seeds)
    chosen = np.take_along_axis(drawn, generator.integers(seeds, size=drawn.shape), axis=2)
    mean = drawn.mean(axis=2)
    widened = mean + (chosen.mean(axis=2) - mean) * (seeds / max(1, seeds - 1)) ** 0.5
    drawn_means: Floats = np.minimum(widened, 1.0)
    return drawn_means


def _fitted(sizes: Floats, scores: Floats) -> _Laws:
    """Fit a power law to the last of each row of scores, [R, S], by least squares.

    Scores never fall with more records (`drop` is not negative), nor exceed 1 (`limit`).
    """
    sizes, scores = sizes[-FITTED:], scores[:, -FITTED:]
    best = np.full(len(scores), np.inf)
    found = _Laws(*(np.empty(len(scores)) for _ in range(3)))
    for exponent in _EXPONENTS:
        powers = sizes**-exponent
        centred = powers - powers.mean()
        drop = np.maximum(0.0, -(scores @ centred) / (centred @ centred))
        limit = scores.mean(axis=1) + drop * powers.mean()
        above = limit > 1.0
        drop = np.where(above, np.maximum(0.0, (1.0 - scores) @ powers / (powers @ powers)), drop)
        limit = np.minimum(limit, 1.0)
        errors = ((limit[:, None] - drop[:, None] * powers - scores) ** 2).sum(axis=1)
        better = errors < best
        best[better] = errors[better]
        found.limit[better], found.drop[better] = limit[better], drop[better]
        found.exponent[better] = exponent
    return found
