"""Weights that give the tasks' gradients of the encoder like sizes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, final

import numpy as np
import torch
from torch import nn

from manyheads.training.balancing.gradients import Gram
from manyheads.training.balancing.weights import Balancer

_LEAST = 0.01
"""Below which no weight falls, so that a task can come back."""


@final
class GradNorm(Balancer):
    """Gradient normalisation, after Chen, Badrinarayanan, Lee and Rabinovich (2018).

    Let G be the length of a task's weighted gradient, and r its rate: its loss as a share of its
    first one, relative to the tasks' mean share. The weights descend the sum of |G - mean(G) r^a|,
    where the second part counts as constant, and are scaled to add up to the number of tasks. The
    slope of G in a weight is the length of the unweighted gradient, taken here in units of the
    tasks' mean, so that the rate of learning does not depend on the losses' scale. The gradients
    are those of the whole encoder; the source takes its last shared layer, to save time.

    Args:
        own: each task's own weight: a factor on what comes of this, and no part of G.
        alpha: a; how strongly a task that learns slowly is helped.
        learning_rate: of the weights.
    """

    compares: ClassVar[bool] = True

    def __init__(
        self, own: Mapping[str, float], alpha: float = 1.5, learning_rate: float = 0.025
    ) -> None:
        super().__init__(own)
        self._alpha, self._rate = alpha, learning_rate
        self._number = {task: number for number, task in enumerate(own)}
        self.weight = nn.Buffer(torch.ones(len(own)))
        self.first_loss = nn.Buffer(torch.zeros(len(own)))
        """0 before a task's first step."""

    def factor(self, task: str) -> float:
        """Return the present weight."""
        return self.own[task] * float(self.weight[self._number[task]])

    def learn(self, gradients: Gram, losses: Mapping[str, float]) -> None:
        """Change the weights of the tasks that the step had, if it had several."""
        for task, loss in losses.items():
            number = self._number[task]
            if not self.first_loss[number]:
                self.first_loss[number] = loss
        tasks = [t for t in gradients.tasks if self.own[t] > 0 and self._first(t) > 0]
        lengths = gradients.norms()
        if len(tasks) < 2 or not all(lengths[task] > 0 for task in tasks):
            return
        weights = np.array([float(self.weight[self._number[t]]) for t in tasks])
        sizes = np.array([lengths[task] / self.own[task] for task in tasks])
        shares = np.array([max(0.0, losses[task]) / self._first(task) for task in tasks])
        rates = shares / shares.mean() if shares.any() else np.ones(len(tasks))
        plain = sizes / weights
        slopes = np.sign(sizes - sizes.mean() * rates**self._alpha) * plain / plain.mean()
        changed = np.maximum(weights - self._rate * slopes, _LEAST)
        for task, weight in zip(tasks, (changed * weights.sum() / changed.sum()), strict=True):
            self.weight[self._number[task]] = float(weight)

    def _first(self, task: str) -> float:
        return float(self.first_loss[self._number[task]])
