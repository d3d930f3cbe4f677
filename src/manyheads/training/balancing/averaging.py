"""Weights that follow how fast each task's loss falls."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import final

from manyheads.training.balancing.weights import Balancer


@final
class DynamicAveraging(Balancer):
    """Dynamic weight average, after Liu, Johns and Davison (2019).

    A task's weight in an epoch is K exp(r/T) over the sum of all K tasks' exp(r/T), where r is its
    loss in the last epoch divided by that in the one before: a task whose loss falls slowly gains
    weight. The first two epochs have equal weights. It is a function of the run's history.

    Args:
        own: each task's own weight: a factor on what comes of this.
        temperature: T; the larger, the more alike the weights are.
    """

    def __init__(self, own: Mapping[str, float], temperature: float = 2.0) -> None:
        super().__init__(own)
        self._temperature = temperature
        self._weights = dict.fromkeys(own, 1.0)

    def begin_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Set the weights for the next epoch."""
        ratios = {task: _ratio([e[task] for e in history if task in e]) for task in self.own}
        # Relative to the largest, so that no power is out of range.
        largest = max(ratios.values())
        powers = {t: math.exp((r - largest) / self._temperature) for t, r in ratios.items()}
        total = sum(powers.values())
        self._weights = {task: len(powers) * power / total for task, power in powers.items()}

    def factor(self, task: str) -> float:
        """Return the epoch's weight."""
        return self.own[task] * self._weights[task]


def _ratio(losses: Sequence[float]) -> float:
    """Return the last loss by the one before; 1 where there are no two, or nothing to lose."""
    return losses[-1] / losses[-2] if len(losses) > 1 and losses[-2] > 0 else 1.0
