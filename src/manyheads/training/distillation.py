"""Holding the sentence embedding of a tuned encoder near the one that training began with.

A user whose vector index was made by the original encoder can go on using it only if the vectors
stay what they were. So the frozen original embeds every sentence once, before training, and a
term of the loss pulls the tuned encoder's embedding of the same sentence towards it: distillation
(Hinton et al., 2015) of the encoder into itself, on its vectors, against forgetting as in Li and
Hoiem (2016), "Learning without forgetting".

The training sentences are held in the passes that train the tasks anyway. Unlabelled sentences
get a pass of their own without dropout: there the original's vectors can be reached exactly.

Axes: N sentences, B the sentences of a batch, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manyheads.config import Config, KeepEmbeddings
from manyheads.modeling import Encoder, moved
from manyheads.training.data.batching import Rows, Source, draw_batches
from manyheads.training.data.dataset import Dataset
from manyheads.training.data.ragged import zeros
from manyheads.training.data.training_data import TrainingData

HELD = "embedding"
"""What the loss is called beside the tasks' own; no task can have this name."""

ORIGINAL = "original_encoder"
"""Under which name a checkpoint has the original's parameters, so that it is enough by itself."""

_BATCH = 64
_TEXTS = "keep_embeddings.texts"

Floats = NDArray[np.float32]


class KeptEmbeddings:
    """The original's vectors of all sentences, and the loss that holds the encoder to them.

    Args:
        settings: how strongly, and on what else than the training sentences.
        data: the training sentences, and the unlabelled ones if there are any.
        original: the encoder as training found it; not used any more afterwards.
        seed: decides in which order the unlabelled sentences are drawn.
        batch_size: unlabelled sentences a step, unless the settings say.
    """

    def __init__(
        self,
        settings: KeepEmbeddings,
        data: TrainingData,
        original: Encoder,
        *,
        seed: int,
        batch_size: int,
    ) -> None:
        self.weight = settings.weight
        self.original = {
            name: tensor.detach().cpu().clone()
            for name, tensor in original.backbone.state_dict().items()
        }
        self._targets = [embeddings(original, dataset) for dataset in data.datasets]
        self._texts = data.texts
        self._seed = seed
        self._round = -1
        self._batches: Sequence[NDArray[np.int64]] = ()
        if data.texts is not None:
            self._text_targets = embeddings(original, data.texts)
            rows = np.arange(len(data.texts))
            size = settings.batch_size or batch_size
            self._source = Source(_TEXTS, (), 0, rows, data.texts.tokens.lengths, size)

    @classmethod
    def of_run(cls, config: Config, data: TrainingData, original: Encoder) -> KeptEmbeddings | None:
        """Make what a configuration asks for, if it asks for it."""
        if config.keep_embeddings is None:
            return None
        return cls(
            config.keep_embeddings, data, original, seed=config.seed, batch_size=config.batch_size
        )

    def loss(self, dataset: int, rows: NDArray[np.int64], embedding: Tensor) -> Tensor:
        """Compute how far the embeddings of training sentences are from the original's.

        Args:
            dataset: which of the data sets the sentences are of.
            rows: [B] their numbers in it.
            embedding: [B, H] their embeddings, of any length.

        Returns:
            the mean of 1 - cosine, a float32 scalar from 0 to 2.
        """
        return _distance(embedding, self._targets[dataset][rows])

    def text_loss(
        self, encoder: Encoder, step: int, share: Callable[[Rows], Rows] = lambda rows: rows
    ) -> Tensor | None:
        """Compute the same for a step's unlabelled sentences, if there are any.

        Args:
            encoder: as it is; run without dropout.
            step: optimiser steps done, which alone decide on the sentences.
            share: picks those that this process takes: its part of the mean is returned.
        """
        if self._texts is None:
            return None
        drawn = self._drawn(step)
        rows = share(drawn)
        if not len(rows):
            return None
        inputs = self._texts.inputs(rows, encoder.pad_id).to(next(encoder.parameters()).device)
        encoded = encoder(inputs.input_ids, inputs.attention_mask)
        return _distance(encoded.sentence, self._text_targets[rows]) * (len(rows) / len(drawn))

    def _drawn(self, step: int) -> NDArray[np.int64]:
        """Return the sentences of a step: all are seen once before one is seen again."""
        round_, number = divmod(step, self._source.batches)
        if round_ != self._round:
            self._round = round_
            self._batches = draw_batches(self._source, self._seed, round_)
        return self._batches[number]


def _distance(embedding: Tensor, original: Floats) -> Tensor:
    target = moved(torch.from_numpy(original), embedding.device)
    return (1.0 - functional.cosine_similarity(embedding.float(), target, dim=1)).mean()


def embeddings(encoder: Encoder, dataset: Dataset) -> Floats:
    """Embed all sentences of a data set, [N, H], without dropout and in float32.

    They stay in memory up to a limit; what is beyond is mapped from disk.
    """
    result = zeros((len(dataset), encoder.shape.hidden_size), np.float32)
    device = next(encoder.parameters()).device
    order = np.argsort(dataset.tokens.lengths, kind="stable")
    was_training = encoder.training
    encoder.eval()
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            rows = order[start : start + _BATCH]
            inputs = dataset.inputs(rows, encoder.pad_id).to(device)
            encoded = encoder(inputs.input_ids, inputs.attention_mask)
            result[rows] = encoder.embed(encoded.sentence).cpu().numpy()
    encoder.train(was_training)
    return result
