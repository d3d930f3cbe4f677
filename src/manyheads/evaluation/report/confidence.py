"""Confidence: whether the scores of predictions mean what they say.

Axes: P predictions, of all records.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from manyheads.evaluation.report.data import Bin, Confidence, Threshold
from manyheads.tasks import Decision

_BINS = 20
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
    places = np.minimum((scores * _BINS).astype(np.int64), _BINS - 1)
    bins = []
    for i in range(_BINS):
        inside = places == i
        hits, count = int(right[inside].sum()), int(inside.sum())
        mean = float(scores[inside].mean()) if count else 0.0
        bins.append(Bin(i / _BINS, (i + 1) / _BINS, hits, count - hits, mean))
    off = sum(abs(b.score * (b.right + b.wrong) - b.right) for b in bins)
    order = np.argsort(-scores, kind="stable")
    hits_above = np.cumsum(right[order])
    # A threshold lets in all predictions of equal score.
    last = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    chosen = last[np.unique(np.linspace(0, len(last) - 1, _THRESHOLDS).astype(np.int64))]
    thresholds = [
        Threshold(
            float(scores[order[i]]),
            (int(i) + 1) / len(scored),
            float(hits_above[i] / (i + 1)),
            float(hits_above[i] / gold) if gold else 0.0,
        )
        for i in chosen
    ]
    return Confidence(
        tuple(bins),
        tuple(thresholds),
        float(scores.mean()),
        float(right.mean()),
        off / len(scored),
    )
