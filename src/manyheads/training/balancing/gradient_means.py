"""Statistics of the tasks' gradients for the metrics log: means over the steps since its last line.

They consist of plain numbers, which checkpoints hold, so that a resumed run logs the same means.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from manyheads.training.balancing.gradients import GradientStats


@dataclass
class GradientMeans:
    """Running means of the tasks' gradient statistics."""

    sums: dict[str, dict[str, float]] = field(default_factory=dict)
    """By quantity, and by task or `TASK/TASK`."""
    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    """The number of steps in each sum: not every step has every task."""

    def add(self, stats: GradientStats) -> None:
        """Add a step."""
        for quantity, values in _quantities(stats).items():
            sums = self.sums.setdefault(quantity, {})
            steps = self.steps.setdefault(quantity, {})
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
                steps[name] = steps.get(name, 0) + 1

    def means(self) -> dict[str, dict[str, float]]:
        """Return each quantity's mean; empty where no gradients were compared.

        Returns:
            `norm`: of each task's encoder gradient, with the task's weight; `cosine`: of two tasks'
            gradients, by `TASK/TASK`; `conflict`: the share of steps in which the cosine was
            negative; `count`: the coefficient of a task's gradient, which is 1 unless the method
            combines gradients.
        """
        return {
            quantity: {name: total / self.steps[quantity][name] for name, total in sums.items()}
            for quantity, sums in self.sums.items()
        }


def _quantities(stats: GradientStats) -> dict[str, Mapping[str, float]]:
    cosines = {"/".join(pair): value for pair, value in stats.gram.cosines().items()}
    return {
        "norm": stats.gram.norms(),
        "cosine": cosines,
        "conflict": {pair: float(value < 0) for pair, value in cosines.items()},
        "count": stats.coefficients,
    }
