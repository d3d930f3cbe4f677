"""Embeddings in the report: the nearest training sentences, and the map.

Axes: N sentences, T training sentences, E embedding, K neighbours.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.metrics import directions

Floats = NDArray[np.float32]

_ROWS = 512
_FEWEST = 50
"""Sentences from which neighbourhoods make a map; fewer are projected."""


def sentence_plane(vectors: Floats) -> tuple[NDArray[np.floating[Any]], float | None]:
    """Put embeddings into a plane: by UMAP where umap-learn is installed, or else by `plane`.

    UMAP (McInnes et al. 2018) keeps neighbours together; its seed is fixed.

    Args:
        vectors: [N, E], none of them zero.

    Returns:
        [N, 2], and the share of the variance that they show; None of UMAP, which shows none.
    """
    if len(vectors) >= _FEWEST:
        try:
            umap: Any = import_module("umap")
        except ImportError:
            return plane(vectors)
        points = umap.UMAP(metric="cosine", random_state=0, n_jobs=1).fit_transform(vectors)
        if np.isfinite(points).all():
            return points, None
    return plane(vectors)


def plane(vectors: Floats) -> tuple[NDArray[np.float64], float]:
    """Project embeddings on the two directions in which they vary most.

    Args:
        vectors: [N, E].

    Returns:
        [N, 2], and the share of the variance that they show. The signs are fixed, so that equal
        embeddings make equal maps.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    values, directions = np.linalg.eigh(centred.T @ centred)
    two = directions[:, ::-1][:, :2]
    if two.shape[1] < 2:
        two = np.pad(two, ((0, 0), (0, 2 - two.shape[1])))
    strongest = two[np.abs(two).argmax(axis=0), np.arange(2)]
    total = float(values.clip(0).sum())
    share = float(values[::-1][:2].clip(0).sum()) / total if total else 0.0
    return centred @ (two * np.where(strongest < 0, -1.0, 1.0)), share


def nearest_rows(vectors: Floats, training: Floats, count: int) -> tuple[NDArray[np.int64], Floats]:
    """Return the rows of the training embeddings nearest to each embedding, and their cosines.

    Args:
        vectors: [N, E].
        training: [T, E].
        count: K at most.

    Returns:
        [N, K] and [N, K], the nearest first.
    """
    count = min(count, len(training))
    known = directions(training)
    rows, cosines = [], []
    for begin in range(0, len(vectors), _ROWS):
        near = directions(vectors[begin : begin + _ROWS]) @ known.T
        best = np.argsort(-near, axis=1, kind="stable")[:, :count]
        rows.append(best)
        cosines.append(np.take_along_axis(near, best, 1))
    if not rows:
        return np.zeros((0, count), np.int64), np.zeros((0, count), np.float32)
    return np.concatenate(rows).astype(np.int64), np.concatenate(cosines)
