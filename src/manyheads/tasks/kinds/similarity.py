"""Similarity: scored pairs of sentences, which train and judge the sentence embedding itself."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, shorten
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.kinds.base import Kind
from manyheads.tasks.kinds.registry import register_kind
from manyheads.tasks.kinds.values import (
    UNLABELLED,
    Label,
    RawRecord,
    ReadLabel,
    Settings,
    Targets,
    paired,
)
from manyheads.tasks.label_values import read_number, read_second_text
from manyheads.tasks.labels import LabelSet, Pair, WordSpan
from manyheads.tasks.metrics.correlation import rank_distances, similarity_metrics

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec

MILLION = 1_000_000
"""Scores are stored in millionths of their range, so that all targets are whole numbers."""


@register_kind
class Similarity(Kind):
    """Scored pairs of sentences. They train the embedding; a single text has no other result."""

    name = "similarity"
    fields = ("score",)
    head = "manyheads.modeling.heads.similarity:SimilarityHead"
    options = ("score_range",)
    metrics = ("spearman", "pearson")
    main_metric = "spearman"
    answers = False
    pairs = True
    whole_batches = True
    in_words = "similarities agree with the scores at a rank correlation of {spearman:.2f}"
    decides = False
    measured_in = "pairs"
    table_columns: ClassVar[Mapping[str, str]] = {"spearman": "spearman", "pearson": "pearson"}
    card_tag = "sentence-similarity"
    no_labels = "scored pairs"

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values are numbers of pairs of texts, and not identifiers."""
        varied = len(values.distinct) > 1
        is_scale = values.is_few or values.wholes < values.records
        named = values.name in self.fields or is_scale
        return values.numbers == values.records and varied and named and values.is_paired

    def starting_options(self, values: FieldValues, given: Collection[str]) -> Mapping[str, Any]:
        """Return the range of the scores, unless it is the default."""
        low, high = min(0.0, math.floor(values.low)), max(1.0, math.ceil(values.high))
        return {} if (low, high) == (0.0, 1.0) else {"score_range": (low, high)}

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of scores and second sentences (see `Kind.reader`)."""
        low, high = settings.score_range

        def read(record: RawRecord, field: str) -> Pair:
            score = read_number(record.fields[field])
            if not low <= score <= high:
                raise DataError(
                    f"`{field}` is {shorten(record.fields[field])}",
                    where=record.where,
                    expected=f"a number from {low:g} to {high:g}, the task's `score_range`",
                    fix="Correct the score, or state the range that the scores have.",
                )
            return Pair(read_second_text(record.fields, "a score", record.where), score)

        return read

    def target_type(self, labels: LabelSet) -> type[np.number[Any]]:
        """Return a type that holds a million."""
        return np.int32

    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Return the score in millionths of its range."""
        if label is None:
            return [UNLABELLED]
        low, high = settings.score_range
        return [round(MILLION * (label.value - low) / (high - low))]

    def collate(self, targets: Targets, rows: NDArray[np.int64], width: int) -> NDArray[Any]:
        """Return [B, 2] float32: scores from 0 to 1, and the positions of the second texts."""
        scores = targets.values.padded(rows, UNLABELLED, 1)[:, 0] / MILLION
        scores = np.where(targets.labelled[rows], scores, UNLABELLED).astype(np.float32)
        return paired(targets, rows, scores)

    def outcome(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: float
    ) -> tuple[float, float]:
        """Return the score and the cosine of the embeddings."""
        return label.value, result

    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Correlate scores and cosines."""
        return similarity_metrics(gold, predicted)

    def distances(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Sequence[float | None]:
        """Return by how many places each pair is out of the order of the scores.

        A score and a cosine have no unit in common, and the order alone is learned.
        """
        return rank_distances(gold, predicted)
