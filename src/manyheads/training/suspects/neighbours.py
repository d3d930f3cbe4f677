"""The labels of the nearest sentences: a second opinion besides the heads'.

Axes: N records, E embedding, L labels.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks import Floats
from manyheads.tasks.metrics import directions

NEIGHBOURS = 20
SHARPNESS = 10.0
"""Weight of a neighbour: exp(SHARPNESS (cosine - 1))."""
_PRIOR = 0.01
_ROWS = 512


def neighbour_shares(vectors: Floats, targets: Floats, known: NDArray[np.bool_]) -> Floats:
    """Return the weighted share of each label among a record's nearest other records.

    Args:
        vectors: [N, E].
        targets: [N, L] 1 for each label that a record has.
        known: [N] whether a record has a label; only these are neighbours.

    Returns:
        [N, L], between 0 and 1 exclusively.
    """
    scaled = directions(vectors)
    others = np.flatnonzero(known)
    count = min(NEIGHBOURS, len(others) - 1)
    shares = np.empty((len(vectors), targets.shape[1]), np.float32)
    place = np.full(len(vectors), -1)
    place[others] = np.arange(len(others))
    for begin in range(0, len(vectors), _ROWS):
        near = scaled[begin : begin + _ROWS] @ scaled[others].T
        rows = np.arange(len(near))
        own = place[begin : begin + _ROWS]
        near[rows[own >= 0], own[own >= 0]] = -np.inf
        best = np.argpartition(-near, count - 1, axis=1)[:, :count]
        weights = np.exp(SHARPNESS * (np.take_along_axis(near, best, 1) - 1))
        votes = (weights[:, :, None] * targets[others][best]).sum(axis=1)
        total = weights.sum(axis=1, keepdims=True)
        shares[begin : begin + _ROWS] = (votes + _PRIOR) / (total + 2 * _PRIOR)
    return shares
