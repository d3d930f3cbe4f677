"""The heads by kind. A new kind is a class of its own and a line in `HEADS`."""

from __future__ import annotations

from manyheads.config import TaskConfig
from manyheads.errors import ModelError, listing, nearest, shorten
from manyheads.modeling.features import EncoderShape, Features
from manyheads.modeling.heads.base import IGNORE, Head
from manyheads.modeling.heads.classification import ClassificationHead
from manyheads.modeling.heads.multilabel import MultilabelHead
from manyheads.modeling.heads.similarity import SimilarityHead
from manyheads.modeling.heads.tagging import TaggingHead
from manyheads.tasks import LabelSet

__all__ = [
    "HEADS",
    "IGNORE",
    "ClassificationHead",
    "EncoderShape",
    "Features",
    "Head",
    "MultilabelHead",
    "SimilarityHead",
    "TaggingHead",
    "make_head",
]

HEADS: dict[str, type[Head]] = {
    ClassificationHead.kind: ClassificationHead,
    MultilabelHead.kind: MultilabelHead,
    TaggingHead.kind: TaggingHead,
    SimilarityHead.kind: SimilarityHead,
}


def make_head(config: TaskConfig, labels: LabelSet, encoder: EncoderShape) -> Head:
    """Make the new head that a task's configuration asks for.

    Raises:
        ConfigError: the settings do not fit together.
        ModelError: there is no head of this kind.
    """
    head = HEADS.get(config.kind)
    if head is None:
        raise ModelError(
            f"no head of kind {shorten(config.kind)}{nearest(config.kind, HEADS)}",
            expected=f"one of: {listing(HEADS)}",
        )
    return head.from_config(config, labels, encoder)
