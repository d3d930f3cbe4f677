"""Tables and progress bars for the terminal."""

from __future__ import annotations

from manyheads.display.comparison import comparison_sections, draw_comparison
from manyheads.display.data import data_sections
from manyheads.display.epochs import EpochTable
from manyheads.display.found_tasks import inferred_tables
from manyheads.display.live import duration, rate
from manyheads.display.progress import Counter
from manyheads.display.suspects import suspect_sections
from manyheads.display.tables import (
    Section,
    confusion_table,
    evaluation_tables,
    plain,
    show,
)
from manyheads.display.training_progress import TrainingProgress
from manyheads.display.trust import calibration_table, threshold_tables

__all__ = [
    "Counter",
    "EpochTable",
    "Section",
    "TrainingProgress",
    "calibration_table",
    "comparison_sections",
    "confusion_table",
    "data_sections",
    "draw_comparison",
    "duration",
    "evaluation_tables",
    "inferred_tables",
    "plain",
    "rate",
    "show",
    "suspect_sections",
    "threshold_tables",
]
