"""Records: texts with labels, validated against the tasks."""

from __future__ import annotations

from manyheads.data.readers import Row
from manyheads.data.records.discovery import (
    LabelCollector,
    Paths,
    alike,
    discover_labels,
    label_names,
    spelt_like,
    unseen_labels,
)
from manyheads.data.records.parsing import RecordParser, read_records
from manyheads.data.records.reach import Reach
from manyheads.data.records.record import (
    TEXT_FIELDS,
    Record,
    label_fields,
    labelled_field,
    read_text,
    word_spans,
)
from manyheads.data.records.unread import Unread
from manyheads.tasks.kinds import Label
from manyheads.tasks.label_values import SECOND_TEXT, check_text

__all__ = [
    "SECOND_TEXT",
    "TEXT_FIELDS",
    "Label",
    "LabelCollector",
    "Paths",
    "Reach",
    "Record",
    "RecordParser",
    "Row",
    "Unread",
    "alike",
    "check_text",
    "discover_labels",
    "label_fields",
    "label_names",
    "labelled_field",
    "read_records",
    "read_text",
    "spelt_like",
    "unseen_labels",
    "word_spans",
]
