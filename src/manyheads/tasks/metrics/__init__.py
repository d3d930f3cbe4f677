"""Metrics: pure functions of gold labels and predictions.

What `evaluate --json` writes is an `Evaluation`; each task's part has the metrics of its kind.
Those of classes and tags are shares between 0 and 1, correlations are between -1 and 1, and none
is NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypedDict

from manyheads.tasks.metrics.classes import (
    ClassificationMetrics,
    MultilabelMetrics,
    classification_counts,
    classification_metrics,
    multilabel_counts,
    multilabel_metrics,
)
from manyheads.tasks.metrics.confidence import (
    ConfidenceMetrics,
    binned,
    calibration_error,
    confidence_metrics,
    error_by_chance,
    reliability,
    risk_coverage,
)
from manyheads.tasks.metrics.correlation import (
    DriftMetrics,
    RegressionMetrics,
    SimilarityMetrics,
    directions,
    drift_metrics,
    pearson,
    rank_distances,
    regression_metrics,
    similarity_metrics,
    spearman,
)
from manyheads.tasks.metrics.counts import (
    NO_ANSWER,
    UNKNOWN,
    Confusion,
    LabelReport,
    SentenceCounts,
    frame_accuracy,
    frames_of,
    shares,
)
from manyheads.tasks.metrics.ratio import Ratio
from manyheads.tasks.metrics.tags import TaggedText, TaggingMetrics, entity_counts, tagging_metrics
from manyheads.tasks.metrics.ties import ends_of_ties, without_noise

__all__ = [
    "NO_ANSWER",
    "UNKNOWN",
    "ClassificationMetrics",
    "ConfidenceMetrics",
    "Confusion",
    "DriftMetrics",
    "Evaluation",
    "LabelReport",
    "MultilabelMetrics",
    "Ratio",
    "RegressionMetrics",
    "SentenceCounts",
    "SimilarityMetrics",
    "TaggedText",
    "TaggingMetrics",
    "TaskMetrics",
    "binned",
    "calibration_error",
    "classification_counts",
    "classification_metrics",
    "confidence_metrics",
    "directions",
    "drift_metrics",
    "ends_of_ties",
    "entity_counts",
    "error_by_chance",
    "frame_accuracy",
    "frames_of",
    "multilabel_counts",
    "multilabel_metrics",
    "numbers",
    "pearson",
    "rank_distances",
    "regression_metrics",
    "reliability",
    "risk_coverage",
    "shares",
    "similarity_metrics",
    "spearman",
    "tagging_metrics",
    "without_noise",
]

TaskMetrics = Mapping[str, Any]
"""The metrics of a task, as its kind measures them."""


class _IfKnown(TypedDict, total=False):
    drift: DriftMetrics
    """How far the embedding has gone from the original encoder's."""
    before_refit: Evaluation
    """In a model that learned from all records: the metrics of the model before, which did not
    learn from those that it was scored on."""


class Evaluation(_IfKnown):
    """The contents of `evaluate --json`: metrics of each task and of whole records."""

    tasks: dict[str, TaskMetrics]
    frame_accuracy: float | None
    """None where no record has an answer that is right or wrong, as with pairs that have scores."""
    records: int


def numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the metrics that are single numbers, for logs and for choosing the best model."""
    return {name: value for name, value in metrics.items() if isinstance(value, float)}
