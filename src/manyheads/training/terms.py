"""Loss terms: what a step's loss contains beside the tasks' own losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from manyheads.modeling import MultiTaskModel
from manyheads.training.data.batching import Rows


class LossTerm(Protocol):
    """A loss beside the tasks' own, such as distillation."""

    @property
    def name(self) -> str:
        """Its name among the losses; different from all task names."""

    @property
    def weight(self) -> float:
        """The factor on both of its losses."""

    def tasks(self, dataset: int) -> Sequence[str]:
        """Return the tasks whose outputs `loss` reads for batches of a data set.

        The embedding is always there.
        """

    def loss(
        self, model: MultiTaskModel, dataset: int, rows: Rows, outputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Compute the mean loss over the sentences of a training batch.

        Args:
            model: the model.
            dataset: the index of the batch's data set.
            rows: [B] the sentences' indices in it.
            outputs: the model's outputs for them (see `MultiTaskModel.forward`).

        Returns:
            a float32 scalar.
        """

    def unlabelled_loss(
        self, model: MultiTaskModel, step: int, share: Callable[[Rows], Rows]
    ) -> Tensor | None:
        """Compute this process's part of the mean loss over a step's unlabelled sentences.

        Args:
            model: run without dropout; left in evaluation mode.
            step: optimiser steps done, which alone determine the sentences.
            share: selects this process's part of them.

        Returns:
            a float32 scalar; None where this process has no such sentences.
        """

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must contain for the term, by key."""
