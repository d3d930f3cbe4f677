"""What a task is: its kind, labels, decoding, results and metrics.

Training, evaluation, prediction and the server share these functions, with or without a
deep-learning framework. Every sentence is decoded independently: neither padding nor the other
sentences of its batch change the result.
"""

from __future__ import annotations

from manyheads.tasks.calibration import Calibration, Platt, Temperature
from manyheads.tasks.decisions import Decision, entity_decisions
from manyheads.tasks.decoding import (
    Scored,
    decode_classes,
    decode_multilabel,
    decode_tags,
    entity_score,
)
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.found import Found, raise_error
from manyheads.tasks.kinds import Kind, find_kind, kind_of, known_kinds, register_kind
from manyheads.tasks.labels import (
    OUTSIDE,
    LabelSet,
    Pair,
    Scheme,
    Span,
    TagSet,
    WordSpan,
    bio_names,
    entity_starts,
    inside_words,
    is_prefixed,
    scheme_of,
    spans_of,
    tags_of,
    units_of,
    with_units,
)
from manyheads.tasks.results import (
    EXTRAS,
    ClassResult,
    Entity,
    MultilabelResult,
    Prediction,
    Result,
    TaggingResult,
    TokenTag,
    ValueResult,
    two_lines,
)
from manyheads.tasks.scope import Scope
from manyheads.tasks.scoring import NEVER, Evidence, Judged, Scoring, Thresholds, read_thresholds
from manyheads.tasks.spec import EMBEDDING, TaskSpec, decode
from manyheads.tasks.tag_sequences import (
    Floats,
    Ints,
    TagRules,
    Transitions,
    best_paths,
    marginals,
    tag_rules,
)

__all__ = [
    "EMBEDDING",
    "EXTRAS",
    "NEVER",
    "OUTSIDE",
    "Calibration",
    "ClassResult",
    "Decision",
    "Entity",
    "Evidence",
    "FieldValues",
    "Floats",
    "Found",
    "Ints",
    "Judged",
    "Kind",
    "LabelSet",
    "MultilabelResult",
    "Pair",
    "Platt",
    "Prediction",
    "Result",
    "Scheme",
    "Scope",
    "Scored",
    "Scoring",
    "Span",
    "TagRules",
    "TagSet",
    "TaggingResult",
    "TaskSpec",
    "Temperature",
    "Thresholds",
    "TokenTag",
    "Transitions",
    "ValueResult",
    "WordSpan",
    "best_paths",
    "bio_names",
    "decode",
    "decode_classes",
    "decode_multilabel",
    "decode_tags",
    "entity_decisions",
    "entity_score",
    "entity_starts",
    "find_kind",
    "inside_words",
    "is_prefixed",
    "kind_of",
    "known_kinds",
    "marginals",
    "raise_error",
    "read_thresholds",
    "register_kind",
    "scheme_of",
    "spans_of",
    "tag_rules",
    "tags_of",
    "two_lines",
    "units_of",
    "with_units",
]
