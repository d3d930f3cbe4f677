"""Records: texts with labels, validated against the tasks."""

from __future__ import annotations

from manyheads.data.readers import Row
from manyheads.data.records.discovery import (
    LabelCollector,
    Paths,
    discover_labels,
    label_names,
    unseen_labels,
)
from manyheads.data.records.parsing import RecordParser, parse_row, read_records
from manyheads.data.records.record import SECOND_TEXT, Label, Record, read_second_text, read_text

__all__ = [
    "SECOND_TEXT",
    "Label",
    "LabelCollector",
    "Paths",
    "Record",
    "RecordParser",
    "Row",
    "discover_labels",
    "label_names",
    "parse_row",
    "read_records",
    "read_second_text",
    "read_text",
    "unseen_labels",
]
