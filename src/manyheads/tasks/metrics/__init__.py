"""Metrics: pure functions of gold labels and predictions.

What `evaluate --json` writes is an `Evaluation`; each task's part has the metrics of its kind.
All are shares between 0 and 1 (correlations between -1 and 1), never NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from manyheads.tasks.labels import Scheme
from manyheads.tasks.metrics.classes import (
    ClassificationMetrics,
    MultilabelMetrics,
    classification_counts,
    classification_metrics,
    multilabel_counts,
    multilabel_metrics,
)
from manyheads.tasks.metrics.correlation import (
    DriftMetrics,
    SimilarityMetrics,
    drift_metrics,
    pearson,
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
)
from manyheads.tasks.metrics.tags import TaggingMetrics, tagging_counts, tagging_metrics

__all__ = [
    "MAIN_METRIC",
    "METRICS",
    "NO_ANSWER",
    "UNKNOWN",
    "ClassificationMetrics",
    "Confusion",
    "DriftMetrics",
    "Evaluation",
    "LabelReport",
    "MultilabelMetrics",
    "SentenceCounts",
    "SimilarityMetrics",
    "TaggingMetrics",
    "TaskMetrics",
    "classification_counts",
    "classification_metrics",
    "drift_metrics",
    "frame_accuracy",
    "main_metric",
    "multilabel_counts",
    "multilabel_metrics",
    "numbers",
    "pearson",
    "similarity_metrics",
    "spearman",
    "tagging_counts",
    "tagging_metrics",
]

TaskMetrics = ClassificationMetrics | MultilabelMetrics | TaggingMetrics | SimilarityMetrics

_SENTENCE_METRICS = ("accuracy", "precision", "recall", "f1", "f1_micro")

METRICS: Mapping[str, tuple[str, ...]] = {
    "classification": _SENTENCE_METRICS,
    "multilabel": _SENTENCE_METRICS,
    "tagging": ("precision", "recall", "f1", "f1_macro", "token_accuracy"),
    "similarity": ("spearman", "pearson"),
}
"""The numbers among each kind's metrics: what a best model can be chosen by."""

MAIN_METRIC: Mapping[str, str] = {
    "classification": "accuracy",
    "multilabel": "f1_micro",
    "tagging": "f1",
    "similarity": "spearman",
}
"""The one number that stands for a task of a kind."""


class _IfKnown(TypedDict, total=False):
    drift: DriftMetrics
    """How far the embedding has gone from the original encoder's."""


class Evaluation(_IfKnown):
    """What `evaluate --json` writes: each task's metrics and the whole sentence's."""

    tasks: dict[str, TaskMetrics]
    frame_accuracy: float
    records: int


def main_metric(kind: str, scheme: Scheme = Scheme.BIO) -> str:
    """Name the one number that stands for a task."""
    if kind == "tagging" and scheme is Scheme.PLAIN:
        return "token_accuracy"
    return MAIN_METRIC[kind]


def numbers(metrics: Mapping[str, object]) -> dict[str, float]:
    """Return the metrics that are single numbers, for logs and for choosing the best model."""
    return {name: value for name, value in metrics.items() if isinstance(value, float)}
