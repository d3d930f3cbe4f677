"""Distillation of the original encoder: it keeps the sentence embedding near the original's.

A vector index that was built with the original encoder stays usable only if the vectors stay
close. So the frozen original embeds every sentence once, before training, and a loss term pulls
the tuned encoder's embedding of the same sentence towards it: distillation (Hinton et al., 2015)
of the encoder into itself, against forgetting as in Li and Hoiem (2016), "Learning without
forgetting".

Training sentences are covered by the passes that train the tasks anyway. Unlabelled sentences get
a pass of their own without dropout, in which the original's vectors can be reached exactly.

Axes: N sentences, B the sentences of a batch, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from manyheads.config import Config, KeepEmbeddings
from manyheads.modeling import Encoder, ModelInputs, MultiTaskModel, moved
from manyheads.tasks import EMBEDDING
from manyheads.training.data.batching import Rows
from manyheads.training.data.dataset import Dataset
from manyheads.training.data.ragged import zeros
from manyheads.training.data.training_data import TrainingData
from manyheads.training.unlabelled import UnlabelledSentences

ORIGINAL = "original_encoder"
"""The checkpoint's key of the original's parameters, with which it needs no other file."""

ORIGINAL_CONFIG = "original_encoder_config"
"""The key of the original's configuration, if the trained encoder has fewer layers."""

_BATCH = 64
_TEXTS = "keep_embeddings.texts"

Floats = NDArray[np.float32]


@final
class Distillation:
    """The loss term that keeps the encoder's embeddings near the original's.

    Args:
        settings: its weight, and the unlabelled sentences.
        data: the training sentences, and the unlabelled ones if there are any.
        original: the encoder before training; it is read here, and not kept.
        is_larger: whether the trained encoder has fewer layers.
        seed: determines the order of the unlabelled sentences.
        batch_size: unlabelled sentences a step, unless the settings set it.
    """

    name = "embedding"
    """No task can have this name."""

    def __init__(
        self,
        settings: KeepEmbeddings,
        data: TrainingData,
        original: Encoder,
        *,
        is_larger: bool = False,
        seed: int,
        batch_size: int,
    ) -> None:
        self.weight = settings.weight
        self._original = {
            name: tensor.detach().cpu().clone()
            for name, tensor in original.backbone.state_dict().items()
        }
        self._config = original.config if is_larger else None
        self._targets = [embeddings(original, dataset) for dataset in data.datasets]
        self._unlabelled = None
        if data.texts is not None:
            self._text_targets = embeddings(original, data.texts)
            size = settings.batch_size or batch_size
            self._unlabelled = UnlabelledSentences(_TEXTS, data.texts, size, seed)

    @classmethod
    def of_run(cls, config: Config, data: TrainingData, original: Encoder) -> Distillation | None:
        """Return the configured term; None unless `keep_embeddings` is set."""
        if config.keep_embeddings is None:
            return None
        return cls(
            config.keep_embeddings, data, original, is_larger=config.student_layers is not None,
            seed=config.seed, batch_size=config.batch_size,
        )  # fmt: skip

    def tasks(self, dataset: int) -> tuple[str, ...]:
        """Return none: the loss reads the embedding."""
        return ()

    def loss(
        self, model: MultiTaskModel, dataset: int, rows: Rows, outputs: Mapping[str, Tensor]
    ) -> Tensor:
        """Compute the mean of 1 - cosine to the original's embeddings, a scalar from 0 to 2."""
        return _distance(outputs[EMBEDDING], self._targets[dataset][rows])

    def unlabelled_loss(
        self,
        model: MultiTaskModel,
        step: int,
        share: Callable[[Rows], Rows] = lambda rows: rows,
    ) -> Tensor | None:
        """Compute the same for this process's part of the step's unlabelled sentences."""
        if self._unlabelled is None:
            return None

        def mean_distance(inputs: ModelInputs, rows: Rows) -> Tensor:
            encoded = model.encoder(inputs.input_ids, inputs.attention_mask)
            return _distance(encoded.sentence, self._text_targets[rows])

        return self._unlabelled.loss(model, step, share, mean_distance)

    def state(self) -> dict[str, Any]:
        """Return the original's parameters, and its configuration if that is needed."""
        config = {} if self._config is None else {ORIGINAL_CONFIG: self._config}
        return {ORIGINAL: self._original, **config}


def _distance(embedding: Tensor, original: Floats) -> Tensor:
    target = moved(torch.from_numpy(original), embedding.device)
    return (1.0 - functional.cosine_similarity(embedding.float(), target, dim=1)).mean()


def embeddings(encoder: Encoder, dataset: Dataset) -> Floats:
    """Embed all sentences of a data set, [N, H], without dropout and in float32.

    They stay in memory up to a limit; a larger array is mapped from disk.
    """
    result = zeros((len(dataset), encoder.shape.sentence_size), np.float32)
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
