"""From logits to labels: the only decoding there is, whoever computed the logits.

Training, evaluation, prediction and the server share these functions, with or without a
deep-learning framework. Every sentence is decoded as if it were alone: neither its padding nor
its batch mates change the result.
"""

from __future__ import annotations

from manyheads.decoding.logits import (
    Decoded,
    Scored,
    decode,
    decode_classes,
    decode_multilabel,
    decode_tags,
    entity_score,
)
from manyheads.decoding.tag_sequences import (
    Floats,
    Ints,
    TagRules,
    Transitions,
    best_paths,
    marginals,
    tag_rules,
)
from manyheads.decoding.task_spec import (
    CLASSIFICATION,
    MULTILABEL,
    SIMILARITY,
    TAGGING,
    TaskSpec,
)

__all__ = [
    "CLASSIFICATION",
    "MULTILABEL",
    "SIMILARITY",
    "TAGGING",
    "Decoded",
    "Floats",
    "Ints",
    "Scored",
    "TagRules",
    "TaskSpec",
    "Transitions",
    "best_paths",
    "decode",
    "decode_classes",
    "decode_multilabel",
    "decode_tags",
    "entity_score",
    "marginals",
    "tag_rules",
]
