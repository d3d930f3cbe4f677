"""Pair: one class for two texts, such as duplicates or entailment.

The encoder reads each text separately, and the head reads both vectors: u, v, |u - v|, u * v
(Conneau et al., 2017, "Supervised learning of universal sentence representations").

Axes: B pairs, H numbers of a vector, L classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.decoding import Scored, decode_classes
from manyheads.tasks.found import Found
from manyheads.tasks.kinds.classification import Classification
from manyheads.tasks.kinds.registry import register_kind
from manyheads.tasks.kinds.values import (
    HEAD_OPTIONS,
    LABEL_OPTIONS,
    UNLABELLED,
    Label,
    Lengths,
    RawRecord,
    ReadLabel,
    ReadParameter,
    ReadText,
    Settings,
    Targets,
    paired,
)
from manyheads.tasks.label_values import read_second_text
from manyheads.tasks.labels import LabelSet, Pair, WordSpan
from manyheads.tasks.results import ClassResult
from manyheads.tasks.suspicion import Suspicion
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


class PairClassifier(NamedTuple):
    """The head's last layer, from both vectors to the classes."""

    weight: Floats
    """[L, 4 H]."""
    bias: Floats
    """[L]."""


@register_kind
class PairClassification(Classification):
    """One class for two texts, `text` and `text2`."""

    name = "pair"
    head = "manyheads.modeling.heads.pair:PairHead"
    options = (*LABEL_OPTIONS, *HEAD_OPTIONS, "pooling", "label_smoothing")
    in_words = "{accuracy:.0%} of the pairs get the right class"
    pairs = True
    scopes = False
    measured_in = "pairs of texts"
    sought_as = None
    starting: ClassVar[Mapping[str, Any]] = {}

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of classes and second texts (see `Kind.reader`)."""
        read_class = super().reader(task, settings, known, keeps_unseen)

        def read(record: RawRecord, field: str) -> Pair:
            name = read_class(record, field)
            return Pair(read_second_text(record.fields, "a label", record.where), name)

        return read

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Note a pair's class."""
        read_second_text(record.fields, "a label", record.where)
        super().collect(found, record, field, settings)

    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Return the index of the class."""
        return [UNLABELLED if label is None else labels.index(label.value)]

    def collate(self, targets: Targets, rows: NDArray[np.int64], width: int) -> NDArray[Any]:
        """Return [B, 2] int64: the class, and the position of the second text in the batch."""
        return paired(targets, rows, super().collate(targets, rows, width))

    def output_size(self, spec: TaskSpec) -> int:
        """Return 0: the length of a text's vector is the encoder's."""
        return 0

    def learned(self, spec: TaskSpec, read: ReadParameter) -> PairClassifier:
        """Return the last layer, which is applied when both texts' vectors are known."""
        size = len(spec.labels)
        return PairClassifier(
            read("classifier.weight", (size, None)), read("classifier.bias", (size,))
        )

    def decode(
        self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: PairClassifier
    ) -> Scored:
        """Choose the most probable class of each pair.

        Args:
            spec: the task.
            logits: [B, 2, H] the vectors of both texts.
            lengths: not used.
            learned: the last layer.
        """
        return decode_classes(self.class_logits(logits, learned))

    def class_logits(self, logits: Floats, learned: PairClassifier) -> Floats:
        """Apply the last layer to the vectors of pairs: [B, 2, H] to [B, L]."""
        u, v = logits[:, 0], logits[:, 1]
        both = np.concatenate([u, v, np.abs(u - v), u * v], axis=1)
        values: Floats = both @ learned.weight.T + learned.bias
        return values

    def outcome(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: ClassResult
    ) -> tuple[int, int]:
        """Return the indices of both classes."""
        return super().outcome(spec, label.value, tokens, result)

    def suspicions(
        self, spec: TaskSpec, label: Label, text: ReadText, logs: Floats, elsewhere: Any
    ) -> list[Suspicion]:
        """Compare the class with the most probable other one."""
        return super().suspicions(spec, label.value, text, logs, elsewhere)

    def corrected(self, label: Label, given: Any, proposed: Any) -> Pair:
        """Return the pair with the proposed class."""
        return Pair(label.text, super().corrected(label.value, given, proposed))

    def field_value(self, label: Label, tokens: Sequence[WordSpan] | None) -> Any:
        """Return the class."""
        return label.value
