"""Confidence: the scores of predictions, compared with the share that is right.

Axes: P predictions, of all records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from manyheads.evaluation.report.data import Bin, Confidence, Threshold
from manyheads.tasks import Decision
from manyheads.tasks.metrics import binned, calibration_error, ends_of_ties, error_by_chance

SCORE_DIGITS = 4
"""Decimal places of the scores that the page shows, and by which it finds the errors of a bin."""
_BARS = 20
_THRESHOLDS = 60


def confidence_of(decisions: Iterable[Decision]) -> Confidence | None:
    """Compare the scores of predictions with how often they are right.

    None where no prediction has a score.
    """
    every = list(decisions)
    scored = [(d.score, not d.error) for d in every if d.score is not None]
    if not scored:
        return None
    gold = sum(d.gold is not None for d in every)
    scores = np.array([score for score, _ in scored], np.float64)  # [P]
    right = np.array([is_right for _, is_right in scored], np.bool_)  # [P]
    places = np.minimum((scores * _BARS).astype(np.int64), _BARS - 1)
    return Confidence(
        tuple(_bin(scores[part], right[part]) for part in binned(scores)),
        tuple(
            (int(right[places == i].sum()), int((~right[places == i]).sum())) for i in range(_BARS)
        ),
        tuple(_thresholds(scores, right, gold)),
        float(scores.mean()),
        float(right.mean()),
        calibration_error(scores, right),
        error_by_chance(scores),
    )


def _bin(scores: NDArray[np.float64], right: NDArray[np.bool_]) -> Bin:
    hits = int(right.sum())
    low, high = (round(float(edge), SCORE_DIGITS) for edge in (scores.min(), scores.max()))
    return Bin(low, high, hits, len(right) - hits, float(scores.mean()))


def _thresholds(
    scores: NDArray[np.float64], right: NDArray[np.bool_], gold: int
) -> Sequence[Threshold]:
    """Return some thresholds, spread evenly over the predictions, the highest first."""
    order = np.argsort(-scores, kind="stable")
    hits_above = np.cumsum(right[order])
    # A threshold lets in all predictions of equal score.
    last = ends_of_ties(scores[order])
    chosen = last[np.unique(np.linspace(0, len(last) - 1, _THRESHOLDS).astype(np.int64))]
    return [
        Threshold(
            float(scores[order[i]]),
            (int(i) + 1) / len(scores),
            float(hits_above[i] / (i + 1)),
            float(hits_above[i] / gold) if gold else 0.0,
        )
        for i in chosen
    ]
