"""Task balancing by weighting losses: the interface, and the methods that weight."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

import numpy as np
import torch
from torch import Tensor, nn

from manyheads.training.balancing.backward import Backward, MeasuredBackward, SeparateBackward
from manyheads.training.balancing.gradients import Gram, TaskGradients

_MIN_WEIGHT = 0.01
"""Lower bound of GradNorm's weights, so that a task can recover."""


class Balancer(nn.Module, ABC):
    """Balances the tasks of an optimiser step, and owns its backward pass.

    Parameters are what a method learns by gradient; the optimiser updates them. Buffers hold other
    state. Checkpoints contain both. Anything else must follow from the run's history.

    Args:
        own: each task's configured weight, a factor on top of the method's.
    """

    needs_gradients: ClassVar[bool] = False
    """Whether the method needs each task's encoder gradient in every step."""

    measure_every: int | None = None
    """Measure the tasks' encoder gradients for the log every so many steps; None: never."""

    def __init__(self, own: Mapping[str, float]) -> None:
        super().__init__()
        self.own = dict(own)

    @abstractmethod
    def factor(self, task: str) -> float | Tensor:
        """Return a task's current loss weight: a number, or a scalar if it is learned."""

    def term(self, task: str, loss: Tensor, share: float) -> Tensor:
        """Return a batch's contribution to the step's loss: a scalar.

        Args:
            task: the task.
            loss: its mean loss over the labels in the batch, a scalar.
            share: the batch's share of the task's labels in the step.
        """
        return self.factor(task) * share * loss

    def begin_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Update the weights from the tasks' mean unweighted losses in each epoch so far."""

    def backward(self, encoder: nn.Module, step: int) -> Backward:
        """Return the backward pass of an optimiser step, to which its batches are added.

        Args:
            encoder: the module that all tasks share.
            step: optimiser steps done.
        """
        due = self.measure_every is not None and (step + 1) % self.measure_every == 0
        if not self.needs_gradients and not due:
            return Backward()
        gradients = TaskGradients(encoder.parameters())
        if not gradients.shared:  # a frozen encoder has no gradients to compare
            return Backward()
        kind = SeparateBackward if self.needs_gradients else MeasuredBackward
        return kind(gradients, lambda gram: self.combine(gram, step))

    def combine(self, gradients: Gram, step: int) -> dict[str, float]:
        """Return the coefficient of each task's encoder gradient in the step's sum.

        Args:
            gradients: those of the tasks that have labels in the step.
            step: optimiser steps done; seeds any random choice.
        """
        return dict.fromkeys(gradients.tasks, 1.0)

    def learn(self, gradients: Gram, losses: Mapping[str, float]) -> None:
        """Update the method's buffers after an optimiser step.

        Args:
            gradients: as for `combine`.
            losses: the tasks' mean unweighted losses in the step.
        """


@final
class StaticWeights(Balancer):
    """Fixed weights, as configured."""

    def factor(self, task: str) -> float:
        """Return the configured weight."""
        return self.own[task]


@final
class Uncertainty(Balancer):
    """Homoscedastic uncertainty weighting (Kendall, Gal and Cipolla, 2018).

    Each task has a learned log variance s. Its loss L becomes exp(-s) L + s/2, which is the form
    for negative log likelihoods of discrete targets: a task with a larger loss weighs less, and
    s/2 keeps the weights from vanishing. s starts at 0, so training starts from the configured
    weights.

    Args:
        own: each task's configured weight, a factor on its whole term.
    """

    def __init__(self, own: Mapping[str, float]) -> None:
        super().__init__(own)
        self.log_variance = nn.ParameterDict({task: nn.Parameter(torch.zeros(())) for task in own})

    def factor(self, task: str) -> Tensor:
        """Return the configured weight times exp(-s), a float32 scalar."""
        return self.own[task] * torch.exp(-self.log_variance[task].detach())

    def term(self, task: str, loss: Tensor, share: float) -> Tensor:
        """Return a batch's share of exp(-s) L + s/2, a scalar."""
        variance = self.log_variance[task]
        whole: Tensor = torch.exp(-variance) * loss + variance / 2
        return self.own[task] * share * whole


@final
class DynamicAveraging(Balancer):
    """Dynamic weight average (Liu, Johns and Davison, 2019).

    A task's weight in an epoch is K exp(r/T) divided by the sum of exp(r/T) over all K tasks, where
    r is its mean loss in the last epoch divided by that in the epoch before: a task whose loss
    falls slowly gains weight. The first two epochs have equal weights.

    Args:
        own: each task's configured weight, a factor on the method's.
        temperature: T; a higher value brings the weights closer together.
    """

    def __init__(self, own: Mapping[str, float], temperature: float = 2.0) -> None:
        super().__init__(own)
        self._temperature = temperature
        self._weights = dict.fromkeys(own, 1.0)

    def begin_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Set the weights of the next epoch."""
        ratios = {task: _ratio([e[task] for e in history if task in e]) for task in self.own}
        # Relative to the largest, so that no power overflows.
        largest = max(ratios.values())
        powers = {t: math.exp((r - largest) / self._temperature) for t, r in ratios.items()}
        total = sum(powers.values())
        self._weights = {task: len(powers) * power / total for task, power in powers.items()}

    def factor(self, task: str) -> float:
        """Return the epoch's weight."""
        return self.own[task] * self._weights[task]


def _ratio(losses: Sequence[float]) -> float:
    """Return the last loss divided by the one before; 1 if undefined."""
    return losses[-1] / losses[-2] if len(losses) > 1 and losses[-2] > 0 else 1.0


@final
class GradNorm(Balancer):
    """Gradient normalisation (Chen, Badrinarayanan, Lee and Rabinovich, 2018).

    Let G be the norm of a task's weighted gradient, and r its relative inverse training rate: its
    loss as a share of its first one, relative to the tasks' mean share. The weights descend the
    sum of |G - mean(G) r^a|, where the second part is a constant, and are rescaled to add up to the
    number of tasks. The slope of G in a weight is the norm of the unweighted gradient, taken here
    in units of the tasks' mean, so that the learning rate does not depend on the losses' scale.
    The gradients are those of the whole encoder; the paper takes its last shared layer, to save
    time.

    Args:
        own: each task's configured weight, a factor on the method's, not included in G.
        alpha: a; how strongly a task that learns slowly is favoured.
        learning_rate: of the weights.
    """

    needs_gradients: ClassVar[bool] = True

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
        """Return the current weight."""
        return self.own[task] * float(self.weight[self._number[task]])

    def learn(self, gradients: Gram, losses: Mapping[str, float]) -> None:
        """Update the weights of the step's tasks, if there are several."""
        for task, loss in losses.items():
            number = self._number[task]
            if not self.first_loss[number]:
                self.first_loss[number] = loss
        tasks = [t for t in gradients.tasks if self.own[t] > 0 and self._first(t) > 0]
        norms = gradients.norms()
        if len(tasks) < 2 or not all(norms[task] > 0 for task in tasks):
            return
        weights = np.array([float(self.weight[self._number[t]]) for t in tasks])
        sizes = np.array([norms[task] / self.own[task] for task in tasks])
        shares = np.array([max(0.0, losses[task]) / self._first(task) for task in tasks])
        rates = shares / shares.mean() if shares.any() else np.ones(len(tasks))
        plain = sizes / weights
        slopes = np.sign(sizes - sizes.mean() * rates**self._alpha) * plain / plain.mean()
        changed = np.maximum(weights - self._rate * slopes, _MIN_WEIGHT)
        for task, weight in zip(tasks, (changed * weights.sum() / changed.sum()), strict=True):
            self.weight[self._number[task]] = float(weight)

    def _first(self, task: str) -> float:
        return float(self.first_loss[self._number[task]])
