"""Classification of pairs: one class for two texts.

Axes: R texts of a batch, P pairs among them, H numbers of a text's vector, L classes.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.modeling.cpu.dropout import Dropout
from manyheads.modeling.features import EncoderShape, Features
from manyheads.modeling.heads.base import Head, divergence, output_layer, pairs_of
from manyheads.modeling.heads.sentence import SentenceReader
from manyheads.tasks import LabelSet


@final
class PairHead(Head):
    """Classifies two texts by their vectors u and v: by u, v, |u - v| and u * v.

    A text's output is its vector, so that the encoder reads each text once, however many pairs have
    it. The classifier is applied when both vectors are known: here in training, and in
    `manyheads.tasks.kinds.pair` in prediction.

    Args:
        labels: the classes.
        reader: computes the vectors.
        size: H.
        dropout: share of the vectors' numbers dropped in training.
        label_smoothing: the share of the target that is spread over all classes.
    """

    kind: ClassVar[str] = "pair"

    def __init__(
        self,
        labels: LabelSet,
        reader: SentenceReader,
        *,
        size: int,
        dropout: float,
        label_smoothing: float,
    ) -> None:
        super().__init__(labels, reads_all_layers=reader.reads_all_layers)
        self.reader = reader
        self.dropout = Dropout(dropout)
        self.classifier = output_layer(4 * size, len(labels))
        self.label_smoothing = label_smoothing

    @property
    def reads(self) -> Literal["sentence", "tokens"]:
        """The parts of a sentence that are read (see `Head.reads`)."""
        return self.reader.reads

    @classmethod
    def from_config(cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape) -> PairHead:
        """Make a new head (see `Head.from_config`)."""
        reader = SentenceReader.from_config(config, encoder)
        return cls(
            labels,
            reader,
            size=reader.size,
            dropout=config.dropout,
            label_smoothing=config.label_smoothing,
        )

    def logits(self, features: Features) -> Tensor:
        """Return the texts' vectors, [R, H] float32."""
        vectors: Tensor = self.reader(features)
        return vectors

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean cross-entropy over the labelled pairs.

        Args:
            logits: [R, H].
            targets: [R, 2] int64: for the first text of a labelled pair its class and the row of
                its second text, -100 elsewhere.
        """
        first, second, classes = pairs_of(self.dropout(logits), targets)
        total = functional.cross_entropy(
            self._scores(first, second),
            classes,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return total / max(1, len(classes))

    def soft_loss(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Compute the mean divergence from distributions over the classes of pairs.

        Args:
            logits: [R, H].
            targets: [R, L + 1]: at the first text of a pair its distribution and the row of its
                second text, NaN elsewhere.
            temperature: see `Head.soft_loss`.
        """
        known = ~targets[:, 0].isnan()
        vectors = self.dropout(logits)
        second = vectors.index_select(0, targets[known, -1].long())
        scores = self._scores(vectors[known], second)
        return divergence(scores, targets[known, :-1], temperature)

    def _scores(self, first: Tensor, second: Tensor) -> Tensor:
        """Compute the logits of pairs, [P, L], from their vectors, [P, H] each."""
        both = torch.cat([first, second, (first - second).abs(), first * second], dim=1)
        scores: Tensor = self.classifier(both)
        return scores
