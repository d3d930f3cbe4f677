"""Regression: one number per sentence, such as a price, a rating or a strength."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError, shorten
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.found import Found, Refuse
from manyheads.tasks.kinds.base import Kind
from manyheads.tasks.kinds.registry import register_kind
from manyheads.tasks.kinds.values import (
    HEAD_OPTIONS,
    SENTENCE_OPTIONS,
    UNLABELLED,
    Columns,
    Label,
    Lengths,
    RawRecord,
    ReadLabel,
    ReadText,
    Settings,
)
from manyheads.tasks.label_values import LEAVE_OUT, read_number
from manyheads.tasks.labels import LabelSet, WordSpan
from manyheads.tasks.metrics.correlation import regression_metrics
from manyheads.tasks.results import Result, ValueResult
from manyheads.tasks.soft_targets import Spans
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


@dataclass(frozen=True)
class Numbers(LabelSet):
    """The training data's mean and deviation; the head learns (number - mean) / deviation.

    Raises:
        DataError: the mean is not finite, or the deviation is not positive.
    """

    mean: float = 0.0
    deviation: float = 1.0

    def __post_init__(self) -> None:
        LabelSet.__post_init__(self)
        if not math.isfinite(self.mean) or not 0 < self.deviation < math.inf:
            raise DataError(
                f"numbers with mean {self.mean} and standard deviation {self.deviation}",
                expected="a finite mean and a positive standard deviation",
            )


@dataclass(slots=True)
class FoundNumbers(Found):
    """The running moments of the numbers, by Welford's method."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0
    """The sum of squared distances from the mean."""

    def add(self, number: float) -> None:
        """Add a number."""
        self.count += 1
        distance = number - self.mean
        self.mean += distance / self.count
        self.squares += distance * (number - self.mean)


@register_kind
class Regression(Kind):
    """One number per sentence."""

    name = "regression"
    fields = ("value",)
    head = "manyheads.modeling.heads.regression:RegressionHead"
    options = (*HEAD_OPTIONS, *SENTENCE_OPTIONS)
    spec_fields = ("mean", "deviation")
    metrics = ("spearman", "pearson")
    main_metric = "spearman"
    in_words = "off by {mae:.4g} on average, with a rank correlation of {spearman:.2f}"
    decides = False
    teaches = True
    table_columns: ClassVar[Mapping[str, str]] = {
        "spearman": "spearman",
        "pearson": "pearson",
        "mean error": "mae",
    }
    table_note = "mean error is the mean absolute error, in the unit of the numbers"
    card_tag = "text-regression"

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values are numbers of single texts, and not identifiers."""
        varied = len(values.distinct) > 1
        named = values.name in self.fields or not values.is_identifier
        return values.numbers == values.records and varied and named and not values.is_paired

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of numbers (see `Kind.reader`)."""

        def read(record: RawRecord, field: str) -> float:
            number = read_number(record.fields[field])
            if not math.isfinite(number):
                raise DataError(
                    f"`{field}` is {shorten(record.fields[field])}",
                    where=record.where,
                    expected="a number",
                    fix=LEAVE_OUT,
                )
            return number

        return read

    def found(self, task: str, fields: str) -> FoundNumbers:
        """Start collecting numbers."""
        return FoundNumbers(task, fields)

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Note a record's number."""
        assert isinstance(found, FoundNumbers)
        found.add(self.reader(found.task, settings, None, True)(record, field))

    def decide(self, settings: Settings, found: Found, refuse: Refuse) -> Numbers:
        """Return mean and standard deviation of the numbers; a constant has deviation 1."""
        assert isinstance(found, FoundNumbers)
        deviation = math.sqrt(found.squares / found.count)
        return Numbers((), found.mean, deviation or 1.0)

    def target_type(self, labels: LabelSet) -> type[np.number[Any]]:
        """Return float32."""
        return np.float32

    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Return the number, in deviations from the mean."""
        assert isinstance(labels, Numbers)
        return [UNLABELLED if label is None else (label - labels.mean) / labels.deviation]

    def label_set(self, spec: TaskSpec) -> Numbers:
        """Return the mean and standard deviation that the head was trained with."""
        moments = [spec.details[name] for name in self.spec_fields]
        if not all(type(moment) in (int, float) for moment in moments):
            raise DataError(f"moments {shorten(moments)}", expected="two numbers")
        return Numbers((), *map(float, moments))

    def output_size(self, spec: TaskSpec) -> int:
        """Return 1."""
        return 1

    def decode(
        self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: Any
    ) -> NDArray[np.float64]:
        """Return [B], the numbers in their own unit."""
        known = self.label_set(spec)
        return logits[:, 0].astype(np.float64) * known.deviation + known.mean

    def soft(
        self, spec: TaskSpec, outputs: Floats, lengths: Lengths | None, learned: Any
    ) -> Floats:
        """Return the numbers, in their own unit."""
        return self.decode(spec, outputs, lengths, learned).reshape(-1, 1).astype(np.float32)

    def adopted(
        self, teacher: TaskSpec, soft: Floats, labels: LabelSet, read: Spans, words: Spans
    ) -> Floats:
        """Return the number in deviations from the mean of the student's own data."""
        assert isinstance(labels, Numbers)
        return ((soft - labels.mean) / labels.deviation).astype(np.float32)

    def read_soft(
        self, value: Any, labels: LabelSet, text: str, words: Spans, where: str
    ) -> Floats:
        """Read a number, or a prediction's {"value": x}."""
        assert isinstance(labels, Numbers)
        number = read_number(value.get("value") if isinstance(value, Mapping) else value)
        if not math.isfinite(number):
            raise DataError(f"a soft label is {shorten(value)}", where=where, expected="a number")
        return np.array([(number - labels.mean) / labels.deviation], np.float32)

    def results(
        self, spec: TaskSpec, texts: Sequence[ReadText], decoded: NDArray[np.float64]
    ) -> list[Result]:
        """Return the numbers."""
        return [ValueResult(value) for value in decoded.tolist()]

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        """Return a result without a number."""
        return ValueResult(None)

    def columns(self, spec: TaskSpec) -> Columns:
        """Return a number."""
        return float

    def cell(self, spec: TaskSpec, result: ValueResult) -> Any:
        """Return the number."""
        return result.value

    def outcome(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: ValueResult
    ) -> tuple[float, float]:
        """Return both numbers; a text without words counts with the mean of the training data."""
        return label, self.label_set(spec).mean if result.value is None else result.value

    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Compute correlations and the mean absolute error."""
        return regression_metrics(gold, predicted, self.label_set(spec).deviation)

    def distance(self, spec: TaskSpec, gold: float, predicted: float) -> float:
        """Return the absolute difference."""
        return abs(gold - predicted)
