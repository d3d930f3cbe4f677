"""Classification of sentences: one class per sentence.

Axes: B sentences, L labels.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor
from torch.nn import functional

from manyheads.config import TaskConfig
from manyheads.modeling.features import EncoderShape
from manyheads.modeling.heads.base import IGNORE, divergence
from manyheads.modeling.heads.sentence import SentenceHead, SentenceScorer
from manyheads.tasks import LabelSet


@final
class ClassificationHead(SentenceHead):
    """Predicts the class of a sentence.

    Args:
        labels: the classes.
        scorer: computes the logits.
        label_smoothing: the share of the target that is spread over all classes.
    """

    kind: ClassVar[str] = "classification"

    def __init__(
        self, labels: LabelSet, scorer: SentenceScorer, *, label_smoothing: float = 0.0
    ) -> None:
        super().__init__(labels, scorer)
        self.label_smoothing = label_smoothing

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> ClassificationHead:
        """Make a new head (see `Head.from_config`)."""
        scorer = SentenceScorer.for_labels(config, len(labels), encoder)
        return cls(labels, scorer, label_smoothing=config.label_smoothing)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean cross-entropy over the labelled sentences.

        Args:
            logits: [B, L].
            targets: [B] int64, -100 for a sentence without a label.
        """
        total = functional.cross_entropy(
            logits.float(),
            targets,
            ignore_index=IGNORE,
            reduction="sum",
            label_smoothing=self.label_smoothing,
        )
        return total / (targets != IGNORE).sum().clamp(min=1)

    def soft_loss(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Compute the mean divergence from distributions [B, L] (see `Head.soft_loss`)."""
        return divergence(logits, targets, temperature)
