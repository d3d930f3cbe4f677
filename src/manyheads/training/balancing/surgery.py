"""Gradient surgery: methods that combine the tasks' encoder gradients to reduce conflicts.

Axes: K tasks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import ClassVar, final

import numpy as np
from numpy.typing import NDArray

from manyheads.training.balancing.gradients import Gram, Products
from manyheads.training.balancing.weights import Balancer
from manyheads.training.data.batching import generator

_SWEEPS = 100
_CLOSE = 1e-12
_GOLDEN = (5**0.5 - 1) / 2
_CUTS = 60
"""Iterations of the golden-section search, which narrow the interval to 1e-12."""

Floats = NDArray[np.float64]


class _Surgery(Balancer):
    """Combines the encoder's gradients; the losses and the heads' gradients stay as they are."""

    needs_gradients: ClassVar[bool] = True

    def factor(self, task: str) -> float:
        """Return the configured weight."""
        return self.own[task]


@final
class PCGrad(_Surgery):
    """Projecting conflicting gradients (Yu, Kumar, Gupta, Levine, Hausman and Finn, 2020).

    Each task's gradient loses its component against each other task's gradient it conflicts with,
    in a random order of the others; the sum of the results is the step's gradient.

    Args:
        own: each task's configured weight, a factor on its gradient.
        seed: the run's seed; with the step's number it determines the orders.
    """

    def __init__(self, own: Mapping[str, float], seed: int) -> None:
        super().__init__(own)
        self._seed = seed

    def combine(self, gradients: Gram, step: int) -> dict[str, float]:
        """Return each gradient's coefficient in the sum of the projected ones."""
        products, count = gradients.products, len(gradients.tasks)
        if not gradients.usable:
            return super().combine(gradients, step)
        draw = generator(self._seed, "pcgrad", step)
        # Row i: the coordinates of task i's projected gradient in the tasks' gradients.
        projected = np.eye(count)
        for i in range(count):
            for j in draw.permutation(count):
                along = float(projected[i] @ products[:, j])
                if j != i and along < 0:
                    projected[i, j] -= along / products[j, j]
        counts = projected.sum(axis=0)
        return dict(zip(gradients.tasks, counts.tolist(), strict=True))


@final
class CAGrad(_Surgery):
    """Conflict-averse gradient descent (Liu, Liu, Jin, Stone and Liu, 2021).

    The direction that maximises the worst task's improvement within a ball around the mean
    gradient g0, of radius c |g0|. It is g0 + c |g0| / |gw| gw, where gw is the convex combination
    of the tasks' gradients that minimises gw g0 + c |g0| |gw|. It is multiplied by the number of
    tasks, so that c = 0 gives the sum of the gradients, as without balancing.

    Args:
        own: each task's configured weight, a factor on its gradient.
        c: the radius as a share of the mean's norm, below 1.
    """

    def __init__(self, own: Mapping[str, float], c: float = 0.4) -> None:
        super().__init__(own)
        self._c = c

    def combine(self, gradients: Gram, step: int) -> dict[str, float]:
        """Return each gradient's coefficient in the direction."""
        products, count = gradients.products, len(gradients.tasks)
        if not gradients.usable:
            return super().combine(gradients, step)
        mean = np.full(count, 1 / count)
        radius = self._c * _length(mean, products)
        mixture = _worst_mixture(products, mean, radius)
        length = _length(mixture, products)
        counts = mean + (radius / length * mixture if length > 0 else 0.0)
        return dict(zip(gradients.tasks, (count * counts).tolist(), strict=True))


def _length(vector: Floats, products: Products) -> float:
    """Return the norm of a combination of the gradients."""
    return math.sqrt(max(0.0, float(vector @ products @ vector)))


def _worst_mixture(products: Products, mean: Floats, radius: float) -> Floats:
    """Return the weights w >= 0 with sum 1 that minimise gw g0 + radius |gw|: [K].

    The function is convex; coordinate descent shifts weight between two tasks at a time.
    """
    weights: Floats = mean.copy()
    least = _value(weights, products, mean, radius)
    for _ in range(_SWEEPS):
        before = least
        for i, j in combinations(range(len(mean)), 2):
            moved = weights.copy()
            step = _best_move(weights, products, mean, radius, i, j)
            moved[i], moved[j] = max(0.0, weights[i] + step), max(0.0, weights[j] - step)
            value = _value(moved, products, mean, radius)
            if value < least:
                weights, least = moved, value
        if before - least <= _CLOSE * abs(before):
            break
    return weights


def _value(weights: Floats, products: Products, mean: Floats, radius: float) -> float:
    return float(weights @ products @ mean) + radius * _length(weights, products)


def _best_move(
    weights: Floats, products: Products, mean: Floats, radius: float, i: int, j: int
) -> float:
    """Return how much weight to move from task j to task i, by golden-section search."""
    rows = products[i] - products[j]
    slope, across, along = float(rows @ mean), float(rows @ weights), float(rows[i] - rows[j])
    start = float(weights @ products @ weights)

    def value(step: float) -> float:
        square = start + 2 * across * step + along * step * step
        return slope * step + radius * math.sqrt(max(0.0, square))

    low, high = -float(weights[i]), float(weights[j])
    ends = (low, high)
    for _ in range(_CUTS):
        cut = _GOLDEN * (high - low)
        if value(high - cut) <= value(low + cut):
            high = low + cut
        else:
            low = high - cut
    return min((*ends, (low + high) / 2), key=value)
