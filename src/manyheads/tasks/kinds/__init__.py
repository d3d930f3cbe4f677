"""The kinds of tasks, one file each; no other code depends on a kind's name."""

from __future__ import annotations

from manyheads.tasks.kinds import (
    classification,
    multilabel,
    pair,
    regression,
    similarity,
    tagging,
)
from manyheads.tasks.kinds.base import Kind
from manyheads.tasks.kinds.registry import find_kind, kind_of, known_kinds, register_kind
from manyheads.tasks.kinds.values import (
    HEAD_OPTIONS,
    LABEL_OPTIONS,
    SENTENCE_OPTIONS,
    UNKNOWN,
    UNLABELLED,
    Columns,
    Label,
    Lengths,
    RawRecord,
    ReadLabel,
    ReadText,
    Settings,
    Shape,
    Targets,
    fits,
)
from manyheads.tasks.tag_labels import word_tags

__all__ = [
    "HEAD_OPTIONS",
    "LABEL_OPTIONS",
    "SENTENCE_OPTIONS",
    "UNKNOWN",
    "UNLABELLED",
    "Columns",
    "Kind",
    "Label",
    "Lengths",
    "RawRecord",
    "ReadLabel",
    "ReadText",
    "Settings",
    "Shape",
    "Targets",
    "classification",
    "find_kind",
    "fits",
    "kind_of",
    "known_kinds",
    "multilabel",
    "pair",
    "register_kind",
    "regression",
    "similarity",
    "tagging",
    "word_tags",
]
