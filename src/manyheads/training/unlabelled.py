"""The unlabelled sentences of a loss term: drawn for each step, divided among the processes.

Axes: B sentences of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import final

import numpy as np
from torch import Tensor

from manyheads.modeling import ModelInputs, MultiTaskModel
from manyheads.training.data.batching import Rows, Source, draw_batches
from manyheads.training.data.dataset import Dataset


@final
class UnlabelledSentences:
    """Draws a term's unlabelled sentences, and computes its loss on them.

    Args:
        name: the setting that names the file; part of the seed of their order.
        texts: the sentences.
        batch_size: sentences in a step.
        seed: the run's seed.
    """

    def __init__(self, name: str, texts: Dataset, batch_size: int, seed: int) -> None:
        self.texts = texts
        self._seed = seed
        rows = np.arange(len(texts))
        self._source = Source(name, (), 0, rows, texts.tokens.lengths, batch_size)
        self._round = -1
        self._batches: Sequence[Rows] = ()

    def drawn(self, step: int) -> Rows:
        """Return the sentences of a step, [B]; each is seen once before any is seen again."""
        round_, number = divmod(step, self._source.batches)
        if round_ != self._round:
            self._round = round_
            self._batches = draw_batches(self._source, self._seed, round_)
        return self._batches[number]

    def loss(
        self,
        model: MultiTaskModel,
        step: int,
        share: Callable[[Rows], Rows],
        mean_loss: Callable[[ModelInputs, Rows], Tensor],
    ) -> Tensor | None:
        """Compute this process's part of the mean loss of a step (`LossTerm.unlabelled_loss`).

        Args:
            model: run without dropout; left in evaluation mode.
            step: optimiser steps done.
            share: selects this process's part of the sentences.
            mean_loss: computes the mean loss of some of them from their inputs and rows.
        """
        drawn = self.drawn(step)
        rows = share(drawn)
        if not len(rows):
            return None
        # Dropout would keep the outputs from ever reaching their targets.
        model.eval()
        encoder = model.encoder
        inputs = self.texts.inputs(rows, encoder.pad_id).to(next(encoder.parameters()).device)
        return mean_loss(inputs, rows) * (len(rows) / len(drawn))
