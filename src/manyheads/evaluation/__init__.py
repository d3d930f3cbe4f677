"""Evaluation: metrics by task, embedding drift and confidence intervals."""

from __future__ import annotations

from manyheads.evaluation.drift import REFERENCE, Reference
from manyheads.evaluation.evaluate import EvaluationReport, evaluate, own_validation_files
from manyheads.evaluation.in_words import in_words
from manyheads.evaluation.scoring import Outcomes, TaskOutcomes, score, text_of
from manyheads.evaluation.statistics import (
    MeanInterval,
    PairedDifference,
    bootstrap_interval,
    mean_interval,
    paired_bootstrap,
    share_interval,
)
from manyheads.tasks.metrics import Ratio

__all__ = [
    "REFERENCE",
    "EvaluationReport",
    "MeanInterval",
    "Outcomes",
    "PairedDifference",
    "Ratio",
    "Reference",
    "TaskOutcomes",
    "bootstrap_interval",
    "evaluate",
    "in_words",
    "mean_interval",
    "own_validation_files",
    "paired_bootstrap",
    "score",
    "share_interval",
    "text_of",
]
