"""Tables and progress bars for the terminal."""

from __future__ import annotations

from manyheads.cli.report.data import data_sections
from manyheads.cli.report.progress import Counter, track
from manyheads.cli.report.tables import (
    Section,
    confusion_table,
    epoch_table,
    evaluation_tables,
    plain,
    show,
)
from manyheads.cli.report.training_progress import TrainingProgress

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
