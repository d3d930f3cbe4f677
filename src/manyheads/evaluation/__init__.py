"""Evaluation: metrics by task, embedding drift and confidence intervals."""

from __future__ import annotations

from manyheads.evaluation.calibration import (
    FOLDS,
    FittedTask,
    choices_without_folds,
    fit_calibrations,
    fit_scope_of,
    folds_of,
    scope_anew,
)
from manyheads.evaluation.drift import REFERENCE, Reference
from manyheads.evaluation.evaluate import (
    EvaluationReport,
    evaluate,
    labelled_sets,
    own_validation_files,
)
from manyheads.evaluation.in_words import in_words
from manyheads.evaluation.scoring import Outcomes, TaskOutcomes, score, text_of
from manyheads.evaluation.statistics import (
    MeanInterval,
    PairedDifference,
    bootstrap_interval,
    last_within_chance,
    mean_interval,
    paired_bootstrap,
    share_interval,
)
from manyheads.evaluation.thresholds import (
    FoundThresholds,
    clopper_pearson,
    find_thresholds,
)
from manyheads.evaluation.trust import CalibrationReport, ThresholdReport, calibrate, thresholds
from manyheads.tasks.metrics import Ratio

__all__ = [
    "FOLDS",
    "REFERENCE",
    "CalibrationReport",
    "EvaluationReport",
    "FittedTask",
    "FoundThresholds",
    "MeanInterval",
    "Outcomes",
    "PairedDifference",
    "Ratio",
    "Reference",
    "TaskOutcomes",
    "ThresholdReport",
    "bootstrap_interval",
    "calibrate",
    "choices_without_folds",
    "clopper_pearson",
    "evaluate",
    "find_thresholds",
    "fit_calibrations",
    "fit_scope_of",
    "folds_of",
    "in_words",
    "labelled_sets",
    "last_within_chance",
    "mean_interval",
    "own_validation_files",
    "paired_bootstrap",
    "scope_anew",
    "score",
    "share_interval",
    "text_of",
    "thresholds",
]
