"""What a method of weighing losses is, and the one that changes nothing."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, final

from torch import Tensor, nn

from manyheads.training.balancing.gradients import Gram


class Balancer(nn.Module, ABC):
    """Decides what the tasks' losses, or their gradients of the encoder, count.

    What it learns by gradient are parameters, which the optimiser changes; what else it must know
    of the past are buffers, or follows from the run's history. Both are in the checkpoint.

    Args:
        own: each task's own weight, as the user gave it: a factor on all else.
    """

    compares: ClassVar[bool] = False
    """Whether it must know each task's gradient of the encoder at every step."""

    def __init__(self, own: Mapping[str, float]) -> None:
        super().__init__()
        self.own = dict(own)

    @abstractmethod
    def factor(self, task: str) -> float | Tensor:
        """Return what a task's loss counts at present: a number, or a scalar that is learned."""

    def term(self, task: str, loss: Tensor, share: float) -> Tensor:
        """Return what a batch adds to the total loss: scalars.

        Args:
            task: whose loss it is.
            loss: the task's mean loss over what is labelled in the batch.
            share: the part of all that the step has labelled for the task that is in the batch.
        """
        return self.factor(task) * share * loss

    def begin_epoch(self, history: Sequence[Mapping[str, float]]) -> None:
        """Take note of the tasks' mean losses, before their weights, in each epoch so far."""

    def combine(self, gradients: Gram, step: int) -> dict[str, float]:
        """Return what each task's gradient of the encoder counts in the step.

        Args:
            gradients: of the tasks' terms, for each task that the step has something labelled of.
            step: optimiser steps done, on which any random choice depends.
        """
        return dict.fromkeys(gradients.tasks, 1.0)

    def learn(self, gradients: Gram, losses: Mapping[str, float]) -> None:
        """Take note of a step that was made.

        Args:
            gradients: as for `combine`.
            losses: the tasks' mean losses in the step, before their weights.
        """


@final
class StaticWeights(Balancer):
    """Each task's own weight, throughout."""

    def factor(self, task: str) -> float:
        """Return the task's own weight."""
        return self.own[task]
