"""Tables and progress bars for the terminal."""

from __future__ import annotations

from manyheads.cli.report.data import data_sections
from manyheads.cli.report.epochs import EpochTable
from manyheads.cli.report.progress import Counter, track
from manyheads.cli.report.tables import (
    Section,
    confusion_table,
    evaluation_tables,
    plain,
    show,
)
from manyheads.cli.report.training_progress import TrainingProgress

__all__ = [
    "Counter",
    "EpochTable",
    "Section",
    "TrainingProgress",
    "confusion_table",
    "data_sections",
    "evaluation_tables",
    "plain",
    "show",
    "track",
]
