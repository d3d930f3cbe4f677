"""How a training batch becomes model outputs: computed in full, or from a cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol, final

from torch import Tensor

from manyheads.inference.backends.base import Backend
from manyheads.modeling import Compute, ModelInputs, MultiTaskModel
from manyheads.training.data.batching import Rows
from manyheads.training.data.dataset import Dataset
from manyheads.training.token_dropout import TokenDropout

Forward = Callable[[Sequence[str]], dict[str, Tensor]]
"""Computes some tasks' outputs for a batch (see `MultiTaskModel.forward`)."""


class BatchReader(Protocol):
    """Reads training batches, and runs the model on them."""

    def read(self, dataset: int, rows: Rows) -> Forward:
        """Gather a batch.

        Args:
            dataset: the index of its data set.
            rows: [B] the sentences' indices in it.

        Returns:
            the batch's forward pass. The model may be left in evaluation mode.
        """

    def evaluation_backend(self, backend: Backend) -> Backend:
        """Return the backend to evaluate the model with.

        Args:
            backend: one that runs the whole model.
        """

    def at_depth(self, depth: int) -> BatchReader:
        """Return the reader for another frozen depth (see `freezing.frozen_depth`)."""


@final
class FullReader:
    """Runs the whole model on every batch.

    Args:
        model: the model.
        datasets: the training sentences.
        compute: where the model runs.
        dropout: hides some of the tokens.
    """

    def __init__(
        self,
        model: MultiTaskModel,
        datasets: Sequence[Dataset],
        compute: Compute,
        dropout: TokenDropout | None = None,
    ) -> None:
        self._model, self._datasets, self._compute = model, datasets, compute
        self._dropout = dropout

    def read(self, dataset: int, rows: Rows) -> Forward:
        """Gather and pad a batch."""
        inputs = self._datasets[dataset].inputs(rows, self._model.encoder.pad_id)
        return partial(self._outputs, inputs)

    def _outputs(self, inputs: ModelInputs, tasks: Sequence[str]) -> dict[str, Tensor]:
        inputs = inputs.to(self._compute.device)
        if self._dropout is not None:
            inputs = self._dropout(inputs)
        outputs: dict[str, Tensor] = self._model(inputs, tasks)
        return outputs

    def evaluation_backend(self, backend: Backend) -> Backend:
        """Return the backend as it is."""
        return backend

    def at_depth(self, depth: int) -> BatchReader:
        """Return this reader: it computes everything anew."""
        return self
