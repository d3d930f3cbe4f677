"""What the metrics log tells of the tasks' gradients: means over the steps since its last line.

A resumed run must tell the same, so a tally consists of plain numbers that a checkpoint can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from manyheads.training.balancing.gradients import Compared


@dataclass
class GradientTally:
    """What the steps since the last line of the metrics log showed of the tasks' gradients."""

    sums: dict[str, dict[str, float]] = field(default_factory=dict)
    """By quantity, and by task or `TASK/TASK`."""
    steps: dict[str, dict[str, int]] = field(default_factory=dict)
    """How many steps each sum is of: not every step has every task."""

    def add(self, compared: Compared) -> None:
        """Count a step."""
        for quantity, values in _told(compared).items():
            sums = self.sums.setdefault(quantity, {})
            steps = self.steps.setdefault(quantity, {})
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
                steps[name] = steps.get(name, 0) + 1

    def means(self) -> dict[str, dict[str, float]]:
        """Return each quantity's mean over its steps; empty where no gradients were compared.

        Returns:
            `norm`: the length of each task's gradient of the encoder, its weight included;
            `cosine`: that between two tasks' gradients, by `TASK/TASK`; `conflict`: the share of
            steps in which it was negative; `count`: how often a task's gradient was counted, which
            is once unless the method combines gradients.
        """
        return {
            quantity: {name: total / self.steps[quantity][name] for name, total in sums.items()}
            for quantity, sums in self.sums.items()
        }


def _told(compared: Compared) -> dict[str, Mapping[str, float]]:
    cosines = {"/".join(pair): value for pair, value in compared.gram.cosines().items()}
    return {
        "norm": compared.gram.norms(),
        "cosine": cosines,
        "conflict": {pair: float(value < 0) for pair, value in cosines.items()},
        "count": compared.counts,
    }
