"""Similarity: scored pairs of sentences, which train the sentence embedding itself.

Axes: R sentences of a batch, P scored pairs, H hidden.
"""

from __future__ import annotations

from typing import ClassVar, Literal, final

import torch
from torch import Tensor
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.modeling.features import EncoderShape, Features
from manyheads.modeling.heads.base import Head, pairs_of
from manyheads.tasks import LabelSet

SCALE = 20.0
"""The factor on differences of cosines: the inverse of the paper's temperature, 0.05."""


@final
class SimilarityHead(Head):
    """Trains the cosines of pairs to have the order of their scores; it has no parameters."""

    kind: ClassVar[str] = "similarity"

    @property
    def reads(self) -> Literal["sentence"]:
        """The parts of a sentence that are read (see `Head.reads`)."""
        return "sentence"

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> SimilarityHead:
        """Make a new head (see `Head.from_config`)."""
        return cls(labels, reads_all_layers=False)

    def logits(self, features: Features) -> Tensor:
        """Return the encoder's own sentence vectors, [R, H] float32."""
        return features.encoder_sentence.float()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the CoSENT loss, which penalises cosines that are not in the order of the scores.

        It is log(1 + sum of exp(20 (cos_i - cos_j))) over all i, j such that pair j has the higher
        score (Su, 2022, "CoSENT: a more efficient sentence vector scheme than Sentence-BERT"). Only
        the order of scores matters, as in Spearman's correlation.

        Args:
            logits: [R, H].
            targets: [R, 2] float32: for the first text of a scored pair its score and the row of
                its second text, -100 elsewhere.
        """
        first, second, scores = pairs_of(logits, targets)
        cosines = SCALE * functional.cosine_similarity(first, second, dim=1)
        gaps = cosines[:, None] - cosines[None, :]
        wrong = gaps[scores[:, None] < scores[None, :]]
        return torch.logsumexp(torch.cat([wrong.new_zeros(1), wrong]), dim=0)
