"""Multilabel classification: any number of classes per sentence.

Axes: B sentences, L labels.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.modeling.features import EncoderShape
from manyheads.modeling.heads.base import IGNORE
from manyheads.modeling.heads.sentence import SentenceHead, SentenceScorer
from manyheads.tasks import LabelSet, TaskSpec

# Probabilities are clamped to this distance from 0 and 1.
_EPSILON = 1e-6


@final
class MultilabelHead(SentenceHead):
    """Predicts for each label independently whether it applies to a sentence.

    Args:
        labels: the labels.
        scorer: computes the logits.
        threshold: the probability from which a label is predicted.
    """

    kind: ClassVar[str] = "multilabel"

    def __init__(self, labels: LabelSet, scorer: SentenceScorer, *, threshold: float) -> None:
        super().__init__(labels, scorer)
        self.threshold = threshold

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> MultilabelHead:
        """Make a new head (see `Head.from_config`)."""
        scorer = SentenceScorer.for_labels(config, len(labels), encoder)
        return cls(labels, scorer, threshold=config.threshold)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean binary cross-entropy over the labels that are known.

        Args:
            logits: [B, L].
            targets: [B, L] float: 1 for a label that applies, 0 for one that does not, -100 where
                it is not known (usually a whole row).
        """
        known = targets != IGNORE
        total = functional.binary_cross_entropy_with_logits(
            logits.float(),
            targets.masked_fill(~known, 0.0),
            weight=known.float(),
            reduction="sum",
        )
        return total / known.sum().clamp(min=1)

    def soft_loss(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Compute the mean divergence from each label's probability (see `Head.soft_loss`).

        Args:
            logits: [B, L].
            targets: [B, L], NaN in rows that are ignored.
            temperature: divides the logits of both.
        """
        known = ~targets.isnan()
        wanted = (targets[known].logit(eps=_EPSILON) / temperature).sigmoid()
        found = logits[known].float() / temperature
        distance = functional.binary_cross_entropy_with_logits(found, wanted, reduction="sum")
        least = functional.binary_cross_entropy(wanted, wanted, reduction="sum")
        return (distance - least) * temperature**2 / known.sum().clamp(min=1)

    def spec(self, name: str) -> TaskSpec:
        """Describe the task for decoding."""
        return TaskSpec(name, self.kind, self.labels.names, threshold=self.threshold)
