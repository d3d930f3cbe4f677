"""What a model gets right and wrong, as data."""

from __future__ import annotations

from manyheads.evaluation.report.build import Surroundings, make_report
from manyheads.evaluation.report.data import Epoch, Report
from manyheads.evaluation.report.verb import error_lines, report

__all__ = [
    "Epoch",
    "Report",
    "Surroundings",
    "error_lines",
    "make_report",
    "report",
]
