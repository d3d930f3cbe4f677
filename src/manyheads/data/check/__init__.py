"""The data check: errors and warnings about data files.

These are errors, because training would fail, learn something wrong, or be measured wrongly:

- a file that cannot be read to its end, and every record that cannot be read;
- labels that contradict each other or the configuration, and a task without a single label;
- the same text with different labels, and a text in two files that both label it;
- an entity that ends inside a word, or has no word: the model sees words;
- an entity or labelled token that truncation cuts off;
- an entity that begins with `I-` in a file where others begin with `B-`. A file in which none
  does is IOB1, which only a note reports.

These are warnings: a text that occurs twice with the same labels, records without any label,
white space at the border of an entity, records that truncation shortens without losing a label,
labels that only a later file has, labels that differ only in case, the encoding of accents or
white space, a task with only one class, validation data without entities, classes that seem to be
several in one cell of a table, and a field that fits several kinds of task, which training without
a configuration refuses. Notes report fields that no task reads, and contents of a format that
records cannot hold.
"""

from __future__ import annotations

from manyheads.data.check.checking import check_data
from manyheads.data.check.report import (
    DataReport,
    FileSummary,
    Finding,
    Kind,
    Lengths,
    Severity,
    TaskSummary,
)

__all__ = [
    "DataReport",
    "FileSummary",
    "Finding",
    "Kind",
    "Lengths",
    "Severity",
    "TaskSummary",
    "check_data",
]
