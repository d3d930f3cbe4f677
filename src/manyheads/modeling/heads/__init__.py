"""The heads, one class for each kind of task."""

from __future__ import annotations

from importlib import import_module

from manyheads.config import TaskConfig
from manyheads.modeling.features import EncoderShape, Features
from manyheads.modeling.heads.base import IGNORE, Head
from manyheads.modeling.heads.classification import ClassificationHead
from manyheads.modeling.heads.multilabel import MultilabelHead
from manyheads.modeling.heads.pair import PairHead
from manyheads.modeling.heads.regression import RegressionHead
from manyheads.modeling.heads.sentence import SentenceHead
from manyheads.modeling.heads.similarity import SimilarityHead
from manyheads.modeling.heads.tagging import TaggingHead
from manyheads.tasks import LabelSet, kind_of

__all__ = [
    "IGNORE",
    "ClassificationHead",
    "EncoderShape",
    "Features",
    "Head",
    "MultilabelHead",
    "PairHead",
    "RegressionHead",
    "SentenceHead",
    "SimilarityHead",
    "TaggingHead",
    "head_class",
    "make_head",
]


def make_head(config: TaskConfig, labels: LabelSet, encoder: EncoderShape) -> Head:
    """Make the new head that a task's configuration asks for.

    Raises:
        ConfigError: the settings do not fit together.
        ModelError: there is no such kind of task.
    """
    return head_class(config.kind).from_config(config, labels, encoder)


def head_class(kind: str) -> type[Head]:
    """Return the class of the heads of a kind of task.

    Raises:
        ModelError: there is no such kind.
    """
    head = kind_of(kind).head
    if isinstance(head, str):
        module, _, name = head.partition(":")
        head = getattr(import_module(module), name)
    if not (isinstance(head, type) and issubclass(head, Head)):
        raise TypeError(f"the head of the kind {kind!r} is {head!r}, not a subclass of Head")
    return head
