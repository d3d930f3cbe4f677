"""Scope: the probability that a text belongs to one of a model's classes.

It is computed from what one pass of the encoder yields: the embedding, and the logits of a task of
classes. Everything is numpy, and small enough to be stored with the model.

Axes: N texts, H embedding, R reduced, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.calibration import fit_logistic
from manyheads.tasks.decoding import sigmoid

Floats = NDArray[np.floating[Any]]
Values = NDArray[Any]

FEATURES = ("distance", "cosine", "energy", "logit", "odds")
"""The Mahalanobis distance to the nearest class and the cosine with it; the free energy of the
logits, the largest logit, and the log-odds of the most probable class."""
RANK = 64
"""The maximum number of directions of the embedding that are kept."""
FEWEST_RECORDS = 60
FEWEST_CLASSES = 3
FEWEST_UNKNOWN = 20
"""The number of texts out of scope from which a direction towards them is learned."""

_EASIER = 2.0
"""By how much the odds fall where no text out of scope is known. A class that is left out stands in
for unknown ones, but the encoder has learned to keep it apart, so it is recognised more easily.
Chosen on validation data of CLINC150 and banking77 (docs/experiments.md)."""
_FAR = 1e6
_RIDGE = 3.0
"""The penalty on that direction, in variances of the embedding's values."""


@dataclass(frozen=True, slots=True, eq=False)
class Scope:
    """Distinguishes texts of known classes from others."""

    task: str
    """The task whose classes and logits it reads."""
    middle: Values
    """[H] the mean embedding."""
    whitening: Values
    """[H, R] projects to directions in which texts of one class have variance 1."""
    centres: Values
    """[K, R] the whitened mean of each class; NaN for a class without examples."""
    direction: Values
    """[H] the weights of the embedding itself; zeros without examples of texts out of scope."""
    weights: Values
    """[features + 1] weights of the logistic regression, the bias last."""

    def probabilities(self, embeddings: Floats, logits: Floats) -> Values:
        """Return the probability that texts are in scope, [N].

        Args:
            embeddings: [N, H].
            logits: [N, K] of the task.
        """
        distances, cosines = self.compared(embeddings)
        found = _features(distances, cosines, np.asarray(logits, self.whitening.dtype))
        odds = found @ self.weights + self.along(embeddings)
        return np.asarray(sigmoid(odds), np.float64)

    def along(self, embeddings: Floats) -> Values:
        """Return how far each text is along the direction, [N]."""
        kind = self.whitening.dtype
        return (np.asarray(embeddings, kind) - self.middle) @ self.direction

    def compared(self, embeddings: Floats) -> tuple[Values, Values]:
        """Return the squared distance to each class, and the cosine with it: [N, K] each."""
        kind = self.whitening.dtype
        reduced = (np.asarray(embeddings, kind) - self.middle) @ self.whitening
        return _compare(reduced, self.centres)


def _compare(reduced: Values, centres: Values) -> tuple[Values, Values]:
    """Compare [N, R] with [K, R]: squared distances over R, and cosines. NaN counts as far."""
    products = reduced @ centres.T
    norms = (reduced**2).sum(axis=1)[:, None]
    sizes = (centres**2).sum(axis=1)[None]
    distances = (norms + sizes - 2 * products) / reduced.shape[1]
    products /= np.sqrt(np.maximum(sizes, 1e-12))
    products /= np.sqrt(np.maximum(norms, 1e-12))
    missing = np.isnan(sizes[0])
    distances[:, missing], products[:, missing] = _FAR, -1.0
    return distances, products


def _features(distances: Values, cosines: Values, logits: Values, *further: Values) -> Values:
    """Return the columns of some texts: further ones, the features and ones, [N, columns]."""
    top = logits.max(axis=1)
    shifted = np.exp(logits - top[:, None])
    total = shifted.sum(axis=1)
    # The odds of the most probable class against all others, finite where it has everything.
    odds = -np.log(np.maximum(total - 1.0, 1e-9))
    columns = [
        *further,
        -np.log1p(np.maximum(distances.min(axis=1), 0.0)),
        cosines.max(axis=1),
        top + np.log(total),
        top,
        odds,
        np.ones(len(logits)),
    ]
    return np.stack(columns, axis=1)


def fit_scope(
    task: str,
    embeddings: Floats,
    logits: Floats,
    gold: NDArray[np.int64],
    folds: NDArray[np.int64],
    unknown: tuple[Floats, Floats] | None = None,
) -> Scope | None:
    """Fit a scope on texts of known classes that the model was not trained on.

    The weights are fitted out of fold: each text is compared with classes that were described
    without it. It also serves as an example of an unknown class: its own class is then removed from
    the centres and the logits.

    Args:
        task: the name of the task of classes.
        embeddings: [N, H].
        logits: [N, K].
        gold: [N] the right classes.
        folds: [N].
        unknown: embeddings and logits of texts that are out of scope, if there are any; they weigh
            as much as the examples made of known texts. From `FEWEST_UNKNOWN` on, they also decide
            in which direction of the embedding such texts lie.

    Returns:
        None where there are too few records or classes.
    """
    counts = np.bincount(gold, minlength=logits.shape[1])
    if (counts[gold] > 1).sum() < FEWEST_RECORDS or (counts > 1).sum() < FEWEST_CLASSES:
        return None
    values, scores = np.asarray(embeddings, np.float64), np.asarray(logits, np.float64)
    strange, strange_scores = values[:0], scores[:0]
    if unknown is not None:
        strange, strange_scores = (np.asarray(some, np.float64) for some in unknown)
    numbers = np.unique(folds).tolist()
    if len(numbers) == 1:
        return None
    strange_folds = np.arange(len(strange)) % len(numbers)
    known, other, shown = [], [], []
    for number, fold in enumerate(numbers):
        held, held_strange = folds == fold, strange_folds == number
        part = _described(task, values[~held], gold[~held], scores.shape[1], strange[~held_strange])
        compared = part.compared(values[held])
        known.append(_features(*compared, scores[held], part.along(values[held])))
        without = _without(gold[held], *compared, scores[held])
        other.append(_features(*without, part.along(values[held])))
        if held_strange.any():
            texts = strange[held_strange]
            compared = part.compared(texts)
            shown.append(_features(*compared, strange_scores[held_strange], part.along(texts)))
    if shown:
        rows = np.concatenate(shown)
        other.append(np.resize(rows, (len(gold), rows.shape[1])))
    scope = _described(task, values, gold, scores.shape[1], strange)
    along, *weights, bias = _weights(np.concatenate(known), np.concatenate(other))
    if unknown is None:
        bias -= np.log(_EASIER)
    return replace(scope, direction=along * scope.direction, weights=np.array([*weights, bias]))


def described_anew(
    scope: Scope, embeddings: Floats, gold: NDArray[np.int64], classes: int
) -> Scope:
    """Return a scope of a model whose encoder has learned more, by the weights of one before.

    The classes are described by the embeddings of now. The weights need texts that the model has
    not learned from, and are those of the model before.

    Args:
        scope: that of the model before, without a direction towards known texts out of scope.
        embeddings: [N, H] of labelled texts.
        gold: [N] their classes.
        classes: K.
    """
    values = np.asarray(embeddings, np.float64)
    found = _described(scope.task, values, gold, classes, values[:0])
    return replace(found, weights=scope.weights)


def _without(
    gold: NDArray[np.int64], distances: Values, cosines: Values, logits: Values
) -> tuple[Values, Values, Values]:
    """Return what compares texts with classes as if the right one were unknown."""
    own = np.arange(len(gold)), gold
    removed = []
    for values, least in ((distances, _FAR), (cosines, -1.0), (logits, -_FAR)):
        removed.append(values.copy())
        removed[-1][own] = least
    distances, cosines, logits = removed
    return distances, cosines, logits


def _described(
    task: str, values: Values, gold: NDArray[np.int64], classes: int, strange: Values
) -> Scope:
    """Describe where the texts of each class are, and the unknown ones: a scope without weights.

    The directions are those in which the embeddings differ most relative to their covariance within
    classes, which is shrunk by half towards a multiple of the identity.

    Args:
        task: the name of the task of classes.
        values: [N, H] embeddings.
        gold: [N] their classes.
        classes: K.
        strange: [M, H] embeddings of texts out of scope.
    """
    middle = values.mean(axis=0)
    centred = values - middle
    counts = np.bincount(gold, minlength=classes)
    means = np.full((classes, values.shape[1]), np.nan)
    sums = np.zeros_like(means)
    np.add.at(sums, gold, centred)
    means[counts > 0] = sums[counts > 0] / counts[counts > 0][:, None]
    residuals = centred - means[gold]
    within = residuals.T @ residuals / len(residuals)
    size = len(within)
    within = 0.5 * within + (0.5 * np.trace(within) / size + 1e-12) * np.eye(size)
    lengths, axes = np.linalg.eigh(within)
    white = axes / np.sqrt(lengths)
    spread = centred @ white
    _, best = np.linalg.eigh(spread.T @ spread / len(centred))
    whitening = white @ best[:, ::-1][:, :RANK]
    return Scope(
        task, middle, whitening, means @ whitening, _direction(centred, strange - middle),
        np.zeros(len(FEATURES) + 1),
    )  # fmt: skip


def _direction(known: Values, strange: Values) -> Values:
    """Return the direction that separates known texts from unknown ones, by ridge regression.

    Both sides have the same weight.

    Args:
        known: [N, H] centred embeddings.
        strange: [M, H] unknown ones from the same centre.

    Returns:
        [H], pointing to the known texts; zeros for fewer than `FEWEST_UNKNOWN` unknown ones.
    """
    if len(strange) < FEWEST_UNKNOWN:
        return np.zeros(known.shape[1])
    middle = strange.mean(axis=0) / 2
    sides = known - middle, strange - middle
    covariance = sum(side.T @ side / (2 * len(side)) for side in sides)
    penalty = _RIDGE * float((known**2).mean()) + 1e-12
    difference = (sides[0].mean(axis=0) - sides[1].mean(axis=0)) / 2
    found: Values = np.linalg.solve(covariance + penalty * np.eye(len(difference)), difference)
    return found


def _weights(known: Values, other: Values) -> Values:
    """Fit the logistic regression, both sides with the same weight, on standardised features."""
    # The rarer side is repeated until both have the same number of rows.
    most = max(len(known), len(other))
    both = np.concatenate([np.resize(side, (most, side.shape[1])) for side in (known, other)])
    right = np.arange(2 * most) < most
    mean, spread = both.mean(axis=0), np.maximum(both.std(axis=0), 1e-9)
    mean[-1], spread[-1] = 0.0, 1.0
    scaled = fit_logistic((both - mean) / spread, right, ridge=1.0)
    weights: Values = scaled / spread
    weights[-1] = scaled[-1] - float((scaled[:-1] * mean[:-1] / spread[:-1]).sum())
    return weights
