"""Calibration: maps a head's scores to probabilities that match the share of right answers.

Axes: N examples, L labels. A score's log-odds are `log(p / (1 - p))`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import ModelError, listing, option, shorten
from manyheads.tasks.decoding import sigmoid

Values = NDArray[np.float64]
Bools = NDArray[np.bool_]
Labels = NDArray[np.int64]

LARGEST = 1e4
"""The largest absolute value of a stored parameter. Beyond it a probability is 0 or 1."""
MOST_KNOTS = 64
"""The maximum number of points of a stored isotonic curve."""
MOST_LABELS = 1 << 20

FEWEST_RECORDS = 20
"""The least number of records, or of entities, for a calibration."""

_EDGE = 1e-7
_FARTHEST = 16.0
"""The largest absolute log-odds of a logistic curve: beyond 16.6 a probability of float32 is 1."""
_FARTHEST_SHIFT = 30.0
"""The largest absolute bias of a shift: from one end of the scores (`_EDGE`) to far beyond 0."""
_END_SHARE = 0.9
"""The share, at the outermost score, of the probability of an error that its pool has."""
_FEWEST_EACH = 5
"""The number of right and of wrong examples that a label needs for its own slope and bias."""
_OFFSET_PRIOR = 3.0
"""The weight of the prior of a label's own bias (measured: see docs/experiments.md)."""


class Calibration(ABC):
    """A map from a head's scores to probabilities, stored with the model."""

    __slots__ = ()
    method: ClassVar[str]

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """Return the parameters as JSON values."""

    def to_json(self) -> dict[str, Any]:
        """Return the calibration as a JSON object."""
        return {"method": self.method, **self.parameters()}


@dataclass(frozen=True, slots=True)
class Temperature(Calibration):
    """Divides the logits of classes that exclude each other (Guo et al., 2017)."""

    method: ClassVar[str] = "temperature"
    temperature: float

    def parameters(self) -> dict[str, Any]:
        """Return the temperature."""
        return {"temperature": self.temperature}

    def logits(self, logits: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
        """Return the calibrated logits, float32 in the shape given."""
        scaled: NDArray[np.float32] = (logits / np.float32(self.temperature)).astype(np.float32)
        return scaled


class Curve(Calibration):
    """A map from log-odds to a probability."""

    __slots__ = ()

    @abstractmethod
    def probabilities(self, log_odds: NDArray[np.floating[Any]]) -> Values:
        """Return probabilities in the shape of the log-odds."""


@dataclass(frozen=True, slots=True)
class Platt(Curve):
    """A logistic curve (Platt, 1999): for all scores, or one for each of L labels."""

    method: ClassVar[str] = "platt"
    slope: tuple[float, ...]
    """One value, or L."""
    bias: tuple[float, ...]
    """As many."""

    def parameters(self) -> dict[str, Any]:
        """Return slopes and biases."""
        return {"slope": list(self.slope), "bias": list(self.bias)}

    def probabilities(self, log_odds: NDArray[np.floating[Any]]) -> Values:
        """Return probabilities; with a curve for each label, labels are the last axis."""
        return _logistic(log_odds, np.asarray(self.slope), np.asarray(self.bias))

    def probabilities_of(
        self, log_odds: NDArray[np.floating[Any]], labels: NDArray[np.int64]
    ) -> Values:
        """Return the probabilities of N answers, [N], each by the curve of its label, [N]."""
        return _logistic(log_odds, np.asarray(self.slope)[labels], np.asarray(self.bias)[labels])


def _logistic(log_odds: NDArray[np.floating[Any]], slope: Values, bias: Values) -> Values:
    """Return probabilities above 0 and below 1."""
    scaled = np.clip(log_odds * slope + bias, -_FARTHEST, _FARTHEST)
    return np.asarray(sigmoid(scaled), np.float64)


@dataclass(frozen=True, slots=True)
class Isotonic(Curve):
    """A non-decreasing, piecewise linear curve (Zadrozny and Elkan, 2002)."""

    method: ClassVar[str] = "isotonic"
    log_odds: tuple[float, ...]
    """Strictly increasing."""
    shares: tuple[float, ...]
    """The probability at each point, non-decreasing."""

    def parameters(self) -> dict[str, Any]:
        """Return the points."""
        return {"log_odds": list(self.log_odds), "shares": list(self.shares)}

    def probabilities(self, log_odds: NDArray[np.floating[Any]]) -> Values:
        """Return probabilities; beyond the first and last point they are constant."""
        return np.asarray(np.interp(log_odds, self.log_odds, self.shares), np.float64)


_METHODS: Mapping[str, tuple[type[Calibration], tuple[str, ...]]] = {
    Temperature.method: (Temperature, ("temperature",)),
    Platt.method: (Platt, ("slope", "bias")),
    Isotonic.method: (Isotonic, ("log_odds", "shares")),
}


Fit = Callable[[Values, Bools, Labels], Curve]
"""Fits a curve to log-odds, whether each answer is right, and labels, all [N]."""


def read_calibration(stored: object, where: str) -> Calibration:
    """Read a stored calibration strictly: a known method with finite parameters, not too many.

    Args:
        stored: as `Calibration.to_json` wrote it.
        where: its place, for errors.

    Raises:
        ModelError: it is not a calibration.
    """
    values = stored if isinstance(stored, Mapping) else {}
    method = values.get("method")
    if not isinstance(method, str) or method not in _METHODS:
        raise _refused(f"the method {shorten(method)}", f"one of: {listing(_METHODS)}", where)
    kind, names = _METHODS[method]
    if set(values) != {"method", *names}:
        raise _refused(f"the fields {listing(values)}", listing(("method", *names)), where)
    if kind is Temperature:
        [temperature] = _numbers([values["temperature"]], "temperature", where)
        if temperature < 1 / LARGEST:
            raise _refused(f"the temperature {temperature:g}", "a number above zero", where)
        return Temperature(temperature)
    first, second = (_numbers(values[name], name, where) for name in names)
    if len(first) != len(second):
        lengths = f"{len(first)} and {len(second)} values"
        raise _refused(f"{lengths} as {' and '.join(names)}", "as many of each", where)
    if kind is Platt:
        return Platt(first, second)
    rising = bool((np.diff(first) > 0).all() and (np.diff(second) >= 0).all())
    if not rising or len(first) > MOST_KNOTS or not 0 <= second[0] <= second[-1] <= 1:
        raise _refused("a curve that is not isotonic", "points that rise from 0 to 1", where)
    return Isotonic(first, second)


def _numbers(values: object, name: str, where: str) -> tuple[float, ...]:
    """Check that a stored value is a list of finite numbers, at least one."""
    found = values if isinstance(values, list) and 0 < len(values) <= MOST_LABELS else [None]
    numbers = [
        float(value)
        for value in found
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    ]
    if len(numbers) < len(found):
        raise _refused(f"{shorten(values)} as {name}", f"numbers up to {LARGEST:g}", where)
    return tuple(numbers)


def _refused(found: str, expected: str, where: str) -> ModelError:
    fix = "The model's files are damaged or were edited. Calibrate again: "
    fix += option("manyheads calibrate", "manyheads.calibrate(MODEL)")
    return ModelError(f"its calibration has {found}", expected=expected, fix=fix, where=where)


def log_odds(probabilities: NDArray[np.floating[Any]]) -> Values:
    """Return the log-odds of probabilities, finite also at 0 and 1."""
    inside = np.clip(np.asarray(probabilities, np.float64), _EDGE, 1 - _EDGE)
    return np.asarray(np.log(inside) - np.log1p(-inside), np.float64)


# ------------------------------------------------------------------------------------ fitting


def fit_temperature(logits: NDArray[np.floating[Any]], gold: NDArray[np.int64]) -> Temperature:
    """Find the temperature under which the right classes are the most probable.

    By golden-section search over its logarithm: the negative log-likelihood has one minimum in
    1 / T. A prior towards 1, with the weight of a few records, bounds it where all of a few records
    are right.

    Args:
        logits: [N, L].
        gold: [N] the right classes.
    """
    values = np.asarray(logits, np.float64)
    values = values - values.max(axis=1, keepdims=True)
    right = values[np.arange(len(values)), gold]

    def loss(inverse: float) -> float:
        sums = np.log(np.exp(values * inverse).sum(axis=1))
        return float((sums - right * inverse).sum()) + 2.0 * math.log(inverse) ** 2

    log_inverse = golden_section(lambda x: loss(math.exp(x)), -5.0, 5.0)
    return Temperature(math.exp(-log_inverse))


def golden_section(function: Callable[[float], float], low: float, high: float) -> float:
    """Return the minimiser, between two numbers, of a function with a single minimum."""
    ratio = (math.sqrt(5) - 1) / 2
    left, right = high - ratio * (high - low), low + ratio * (high - low)
    at_left, at_right = function(left), function(right)
    while high - low > 1e-4:
        if at_left <= at_right:
            high, right, at_right = right, left, at_left
            left = high - ratio * (high - low)
            at_left = function(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + ratio * (high - low)
            at_right = function(right)
    return (low + high) / 2


def fit_logistic(
    features: Values, right: Bools, *, ridge: float = 1e-3, centre: Values | None = None
) -> Values:
    """Fit a logistic regression by Newton's method; targets are Platt's, so that none is 0 or 1.

    Args:
        features: [N, F]; put a column of ones among them for a bias.
        right: [N].
        ridge: the weight of the prior towards `centre`, in examples.
        centre: [F] the prior mean of the weights; default, zeros.

    Returns:
        [F] weights.
    """
    positive = int(right.sum())
    high, low = (positive + 1) / (positive + 2), 1 / (len(right) - positive + 2)
    target = np.where(right, high, low)
    middle = np.zeros(features.shape[1]) if centre is None else centre

    def loss(weights: Values) -> float:
        margin = features @ weights
        fit = np.logaddexp(0.0, margin) - target * margin
        return float(fit.sum() + ridge / 2 * ((weights - middle) ** 2).sum())

    weights, best = middle.copy(), loss(middle)
    for _ in range(100):
        share = np.asarray(sigmoid(features @ weights), np.float64)
        gradient = features.T @ (share - target) + ridge * (weights - middle)
        curvature = (features * (share * (1 - share))[:, None]).T @ features
        step = np.linalg.solve(curvature + (ridge + 1e-9) * np.eye(len(weights)), gradient)
        # Halved until the loss falls: far from the minimum a full step can overshoot.
        scale = 1.0
        while (found := loss(weights - scale * step)) > best and scale > 1e-6:
            scale /= 2
        if best - found < 1e-9 * (1 + abs(best)):
            break
        weights, best = weights - scale * step, found
    bounded: Values = np.clip(weights, -LARGEST, LARGEST)
    return bounded


def fit_platt(scores: Values, right: Bools) -> Platt:
    """Fit one logistic curve to N log-odds."""
    slope, bias = _slope_and_bias(scores, right, np.array([1.0, 0.0]))
    return Platt((slope,), (bias,))


def fit_shift(scores: Values, right: Bools) -> Platt:
    """Fit a bias alone to N log-odds, for answers that are all right or all wrong.

    They do not show how the share of right ones depends on the score, so the slope stays 1. The
    target is Platt's.
    """
    target = (right.sum() + 1) / (len(right) + 2)

    def loss(bias: float) -> float:
        margin = scores + bias
        return float((np.logaddexp(0.0, margin) - target * margin).sum())

    return Platt((1.0,), (golden_section(loss, -_FARTHEST_SHIFT, _FARTHEST_SHIFT),))


def fit_platt_by_label(scores: Values, right: Bools) -> Platt:
    """Fit a logistic curve for each label, with a prior of ten examples towards a common one.

    Args:
        scores: [N, L] log-odds.
        right: [N, L] whether the label applies.
    """
    common = np.array(_slope_and_bias(scores.ravel(), right.ravel(), np.array([1.0, 0.0])))
    curves = [
        _slope_and_bias(scores[:, i], right[:, i], common, ridge=10.0)
        if min(right[:, i].sum(), (~right[:, i]).sum()) >= _FEWEST_EACH
        else (float(common[0]), float(common[1]))
        for i in range(scores.shape[1])
    ]
    return Platt(tuple(slope for slope, _ in curves), tuple(bias for _, bias in curves))


def _slope_and_bias(
    scores: Values, right: Bools, centre: Values, ridge: float = 1.0
) -> tuple[float, float]:
    """Fit slope and bias; a negative slope, which would reverse the order, becomes 0."""
    features = np.stack([scores, np.ones_like(scores)], axis=1)
    slope, bias = fit_logistic(features, right, ridge=ridge, centre=centre).tolist()
    if slope > 0:
        return slope, bias
    return 0.0, float(log_odds(np.array([(right.sum() + 1) / (len(right) + 2)]))[0])


def pool_adjacent_violators(values: Values, weights: Values) -> Values:
    """Return the non-decreasing sequence closest to N values in weighted squares."""
    means: list[float] = []
    masses: list[float] = []
    counts: list[int] = []
    for value, weight in zip(values.tolist(), weights.tolist(), strict=True):
        means.append(value)
        masses.append(weight)
        counts.append(1)
        while len(means) > 1 and means[-2] >= means[-1]:
            mass = masses[-2] + masses[-1]
            means[-2:] = [(means[-2] * masses[-2] + means[-1] * masses[-1]) / mass]
            masses[-2:] = [mass]
            counts[-2:] = [counts[-2] + counts[-1]]
    return np.repeat(means, counts)


def fit_isotonic(scores: Values, right: Bools) -> Isotonic:
    """Fit a non-decreasing curve to N log-odds by pooling adjacent violators.

    Each pool's share is smoothed towards the overall share with the weight of one example, and
    placed at the mean of its log-odds. The overall share counts one example more of each sort, so
    that no probability is 0 or 1. From the means of the outermost pools to the outermost scores
    the curve rises a little, so that answers stay ranked.
    """
    order = np.argsort(scores, kind="stable")
    scores, targets = scores[order], right[order].astype(np.float64)
    values, first, sizes = np.unique(scores, return_index=True, return_counts=True)
    weights = sizes.astype(np.float64)
    level = pool_adjacent_violators(np.add.reduceat(targets, first) / weights, weights)
    starts = np.flatnonzero(np.append(True, np.diff(level) > 0))
    mass = np.add.reduceat(weights, starts)
    middle = np.add.reduceat(values * weights, starts) / mass
    hits = np.add.reduceat(level * weights, starts)
    overall = (targets.sum() + 1) / (len(targets) + 2)
    shares = pool_adjacent_violators((hits + overall) / (mass + 1), mass)
    chosen = np.unique(np.linspace(0, len(middle) - 1, MOST_KNOTS - 2).round().astype(np.int64))
    points, levels = middle[chosen].tolist(), shares[chosen].tolist()
    if values[0] < points[0]:
        points, levels = [float(values[0]), *points], [_END_SHARE * levels[0], *levels]
    if points[-1] < values[-1]:
        points, levels = [*points, float(values[-1])], [*levels, 1 - _END_SHARE * (1 - levels[-1])]
    return Isotonic(tuple(points), tuple(levels))


def fit_platt_with_offsets(scores: Values, right: Bools, labels: Labels, count: int) -> Platt:
    """Fit logistic curves with one slope, and a bias for each label beside a common one.

    Some labels are right less often than others at the same score. A label's bias has a prior with
    the weight of a few examples, so that a rare one gets the common curve.

    Args:
        scores: [N] log-odds.
        right: [N].
        labels: [N] from 0 to `count` - 1.
        count: the number of labels.
    """
    # A smaller column has a stronger prior than those of the slope and the bias.
    own = np.zeros((len(scores), count))
    own[np.arange(len(scores)), labels] = _OFFSET_PRIOR**-0.5
    features = np.column_stack([scores, np.ones_like(scores), own])
    centre = np.zeros(features.shape[1])
    centre[0] = 1.0
    weights = fit_logistic(features, right, ridge=1.0, centre=centre)
    if weights[0] <= 0:
        common = fit_platt(scores, right)
        return Platt(common.slope * count, common.bias * count)
    biases = np.clip(weights[1] + weights[2:] * _OFFSET_PRIOR**-0.5, -LARGEST, LARGEST)
    return Platt((float(weights[0]),) * count, tuple(biases.tolist()))


def curve_shares(curve: Curve, scores: Values, labels: Labels) -> Values:
    """Return the probabilities of N answers from their log-odds [N] and labels [N]."""
    if isinstance(curve, Platt) and len(curve.slope) > 1:
        return curve.probabilities_of(scores, labels)
    return curve.probabilities(scores)


def fit_curve(
    scores: Values, right: Bools, labels: Labels, count: int, folds: NDArray[np.int64]
) -> Curve:
    """Fit the curve that is best by cross-validation: logistic, isotonic, or logistic by label.

    If all answers are right, or none, the nearest to certainty would be best, whatever the scores.
    These are shifted instead.

    Args:
        scores: [N] log-odds.
        right: [N].
        labels: [N] from 0 to `count` - 1.
        count: the number of labels.
        folds: [N] each example's fold; those of one text are in one fold.
    """

    if right.all() or not right.any():
        return fit_shift(scores, right)

    def by_label(scores: Values, right: Bools, labels: Labels) -> Curve:
        return fit_platt_with_offsets(scores, right, labels, count)

    ways: list[Fit] = [_without_labels(fit_platt), _without_labels(fit_isotonic)]
    if count > 1:
        ways.append(by_label)
    losses = [held_out_loss(way, scores, right, labels, folds) for way in ways]
    return ways[losses.index(min(losses))](scores, right, labels)


def _without_labels(fit: Callable[[Values, Bools], Curve]) -> Fit:
    return lambda scores, right, labels: fit(scores, right)


def held_out_loss(
    fit: Fit, scores: Values, right: Bools, labels: Labels, folds: NDArray[np.int64]
) -> float:
    """Return the mean log loss of N examples, each with a curve fitted without its fold."""
    if not len(scores):
        return 0.0
    found = np.full(len(scores), right.mean())
    for fold in np.unique(folds):
        held = folds == fold
        if (~held).any():
            curve = fit(scores[~held], right[~held], labels[~held])
            found[held] = curve_shares(curve, scores[held], labels[held])
    clipped = np.clip(found, 1e-4, 1 - 1e-4)
    return float(-np.where(right, np.log(clipped), np.log1p(-clipped)).mean())
