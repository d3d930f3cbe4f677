"""The backward pass of one optimiser step, in one pass a batch or task by task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from operator import add

from torch import Tensor

from manyheads.training.balancing.gradients import GradientStats, Gram, TaskGradients

Combine = Callable[[Gram], Mapping[str, float]]
"""Returns by task the coefficient of its gradient."""


class Backward:
    """Adds the gradients of a step's batches to the parameters'; one backward pass a batch."""

    def add(self, tasks: Mapping[str, Tensor], others: Sequence[Tensor] = ()) -> None:
        """Add the gradients of a batch.

        Args:
            tasks: each task's weighted loss, a scalar.
            others: further weighted losses, scalars, which balancing leaves alone.
        """
        _add_gradients(reduce(add, [*tasks.values(), *others]))

    def finish(self, tasks: Sequence[str]) -> GradientStats | None:
        """Complete the step's gradients, and return the tasks' where they were compared.

        Args:
            tasks: those that have labels in the step.
        """
        return None


class MeasuredBackward(Backward):
    """The same, with each task's encoder gradient measured beside it.

    Args:
        gradients: collects them.
        combine: the method's coefficients.
    """

    def __init__(self, gradients: TaskGradients, combine: Combine) -> None:
        self._gradients, self._combine = gradients, combine

    def add(self, tasks: Mapping[str, Tensor], others: Sequence[Tensor] = ()) -> None:
        """Add the gradients of a batch, and measure the tasks'."""
        for task, term in tasks.items():
            self._gradients.measure(task, term)
        super().add(tasks, others)

    def finish(self, tasks: Sequence[str]) -> GradientStats:
        """Return the tasks' gradients."""
        gram = self._gradients.gram(tasks)
        return GradientStats(gram, self._combine(gram))


class SeparateBackward(MeasuredBackward):
    """One backward pass a task; the method combines the tasks' encoder gradients at the end."""

    def add(self, tasks: Mapping[str, Tensor], others: Sequence[Tensor] = ()) -> None:
        """Add the gradients of a batch, those of the encoder each by itself."""
        left = len(tasks) + len(others)
        for task, term in tasks.items():
            left -= 1
            _add_gradients(term, keep_graph=left > 0)
            self._gradients.take(task)
        for term in others:
            left -= 1
            _add_gradients(term, keep_graph=left > 0)
            self._gradients.take_rest()

    def finish(self, tasks: Sequence[str]) -> GradientStats:
        """Give the encoder the combined gradients, and return the tasks'."""
        stats = super().finish(tasks)
        self._gradients.write(stats.coefficients)
        return stats


def _add_gradients(loss: Tensor, *, keep_graph: bool = False) -> None:
    """Add a loss's gradients, unless everything that it would train is still frozen."""
    if loss.requires_grad:
        loss.backward(retain_graph=keep_graph)  # type: ignore[no-untyped-call]
