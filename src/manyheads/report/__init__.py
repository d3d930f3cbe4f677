"""What people see: results as tables, and the progress of long work."""

from __future__ import annotations

from manyheads.report.data import data_sections
from manyheads.report.progress import Counter, track
from manyheads.report.tables import (
    Section,
    confusion_table,
    epoch_table,
    evaluation_tables,
    plain,
    show,
)
from manyheads.report.training_progress import TrainingProgress

__all__ = [
    "Counter",
    "Section",
    "TrainingProgress",
    "confusion_table",
    "data_sections",
    "epoch_table",
    "evaluation_tables",
    "plain",
    "show",
    "track",
]
