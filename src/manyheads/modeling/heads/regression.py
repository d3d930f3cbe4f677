"""Regression: one number per sentence.

Axes: B sentences.
"""

from __future__ import annotations

from typing import ClassVar, final

from torch import Tensor

from manyheads.config import TaskConfig
from manyheads.modeling.features import EncoderShape
from manyheads.modeling.heads.base import IGNORE
from manyheads.modeling.heads.sentence import SentenceHead, SentenceScorer
from manyheads.tasks import LabelSet, TaskSpec
from manyheads.tasks.kinds.regression import Numbers


@final
class RegressionHead(SentenceHead):
    """Predicts a number for a sentence, in standard deviations from the training data's mean.

    Args:
        numbers: mean and standard deviation of the training data.
        scorer: computes the number.
    """

    kind: ClassVar[str] = "regression"

    def __init__(self, numbers: Numbers, scorer: SentenceScorer) -> None:
        super().__init__(numbers, scorer)
        self.numbers = numbers

    @classmethod
    def from_config(
        cls, config: TaskConfig, labels: LabelSet, encoder: EncoderShape
    ) -> RegressionHead:
        """Make a new head (see `Head.from_config`)."""
        if not isinstance(labels, Numbers):
            raise TypeError(f"a regression head needs Numbers, not a {type(labels).__name__}")
        return cls(labels, SentenceScorer.for_labels(config, 1, encoder))

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Compute the mean squared error over the labelled sentences.

        Args:
            logits: [B, 1].
            targets: [B] float32, in deviations from the mean; -100 for a sentence without a label.
        """
        known = targets != IGNORE
        errors = (logits[:, 0].float() - targets).masked_fill(~known, 0.0)
        return errors.square().sum() / known.sum().clamp(min=1)

    def soft_loss(self, logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
        """Compute the mean squared distance from numbers [B, 1], NaN where none is known."""
        return self.loss(logits, targets[:, 0].nan_to_num(nan=IGNORE))

    def spec(self, name: str) -> TaskSpec:
        """Describe the task for decoding."""
        moments = {"mean": self.numbers.mean, "deviation": self.numbers.deviation}
        return TaskSpec(name, self.kind, (), details=moments)
