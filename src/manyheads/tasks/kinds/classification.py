"""Classification: one class per sentence."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from manyheads.tasks.calibration import (
    Calibration,
    Temperature,
    fit_temperature,
)
from manyheads.tasks.class_labels import Names, decide_classes
from manyheads.tasks.decisions import MISSED, WRONG_CLASS, Decision
from manyheads.tasks.decoding import Scored, decode_classes, softmax
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.found import Found, Refuse
from manyheads.tasks.kinds.base import Kind
from manyheads.tasks.kinds.hooks import Rates
from manyheads.tasks.kinds.registry import register_kind
from manyheads.tasks.kinds.values import (
    HEAD_OPTIONS,
    LABEL_OPTIONS,
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
from manyheads.tasks.label_values import NameOrIndex, read_class
from manyheads.tasks.labels import LabelSet, WordSpan
from manyheads.tasks.metrics.classes import classification_counts, classification_metrics
from manyheads.tasks.metrics.counts import NO_ANSWER, UNKNOWN
from manyheads.tasks.metrics.ratio import Ratio
from manyheads.tasks.results import ClassResult, Result
from manyheads.tasks.scoring import Evidence, Judged, Scoring, judged
from manyheads.tasks.soft_targets import Spans, read_distribution
from manyheads.tasks.suspicion import Suspicion, class_suspicion, no_part
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec

CLASS_COLUMNS: Columns = {"label": str, "id": int, "score": float}


class NamedClasses(Kind):
    """The base of kinds whose labels are names of classes."""

    metrics = ("accuracy", "precision", "recall", "f1", "f1_micro")
    named_labels = True
    calibrates = True
    has_probabilities = True
    checks_labels = True
    teaches = True
    measured_in = "classes"
    table_columns: ClassVar[Mapping[str, str]] = {
        "accuracy": "accuracy",
        "precision": "precision",
        "recall": "recall",
        "f1 macro": "f1",
        "f1 micro": "f1_micro",
    }
    table_note = "precision and recall are macro averages"
    card_tag = "text-classification"

    def classes(self, record: RawRecord, field: str) -> Sequence[NameOrIndex]:
        """Read the classes of a record."""
        return (read_class(record.fields[field], field, record.where),)

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Note a record's classes (see `Kind.collect`)."""
        classes = self.classes(record, field)
        found.note(found.names, (c for c in classes if isinstance(c, str)), record.where)
        found.note(found.indices, (c for c in classes if isinstance(c, int)), record.where)

    def missing(self, found: Found, labelled: int) -> str:
        """Report that no record has a class."""
        return "" if len(found) else f"{found.fields} is empty in all records that have it"

    def decide(self, settings: Settings, found: Found, refuse: Refuse) -> LabelSet:
        """Decide the classes (see `Kind.decide`)."""
        return decide_classes(found.task, settings.labels, settings.num_labels, found, refuse)

    def soft(
        self, spec: TaskSpec, outputs: Floats, lengths: Lengths | None, learned: Any
    ) -> Floats:
        """Return the probability of each class."""
        return self.probabilities(outputs, learned)

    def read_soft(
        self, value: Any, labels: LabelSet, text: str, words: Spans, where: str
    ) -> Floats:
        """Read the probabilities of classes (see `read_distribution`)."""
        return read_distribution(value, labels, where, exclusive=self.exclusive)

    def scored(
        self, spec: TaskSpec, results: list[Result], logits: Floats, learned: Any, scoring: Scoring
    ) -> list[Result]:
        """Calibrate the probabilities and list candidates (see `Kind.scored`)."""
        shares = self.calibrated(logits, learned, scoring.calibration)
        own = self.class_logits(logits, learned) if scoring.logits else None
        return [
            self.scored_one(spec, result, shares[i], None if own is None else own[i], scoring)
            for i, result in enumerate(results)
        ]

    @abstractmethod
    def scored_one(
        self, spec: TaskSpec, result: Any, shares: Floats, logits: Floats | None, scoring: Scoring
    ) -> Result:
        """Score one text's result.

        Args:
            spec: the task.
            result: from `results`.
            shares: [L] the calibrated probabilities.
            logits: [L] if they are requested.
            scoring: the requested scoring.
        """

    def fit_calibration(
        self, spec: TaskSpec, evidence: Sequence[Evidence], folds: NDArray[np.int64]
    ) -> Calibration:
        """Fit a calibration to the logits of all records."""
        scores = np.stack([one.scores for one in evidence])
        return self.fitted(scores, np.stack([one.gold for one in evidence]))

    @abstractmethod
    def fitted(self, logits: NDArray[np.float64], gold: NDArray[np.int64]) -> Calibration:
        """Fit a calibration.

        Args:
            logits: [N, L].
            gold: [N, 1] the right class, or [N, L] a flag for each class that applies.
        """


def class_index(spec: TaskSpec, name: str) -> int:
    """Return a class's index in a task, or `UNKNOWN`."""
    return spec.labels.index(name) if name in spec.labels else UNKNOWN


@register_kind
class Classification(NamedClasses):
    """One class per sentence."""

    name = "classification"
    fields = ("label",)
    head = "manyheads.modeling.heads.classification:ClassificationHead"
    options: ClassVar[tuple[str, ...]] = (
        *LABEL_OPTIONS,
        *HEAD_OPTIONS,
        *SENTENCE_OPTIONS,
        "label_smoothing",
        "start",
    )
    main_metric = "accuracy"
    in_words: ClassVar[str] = "{accuracy:.0%} of the texts get the right class"
    exclusive = True
    scopes: ClassVar[bool] = True
    sought_as: ClassVar[str | None] = "classification"
    starting: ClassVar[Mapping[str, Any]] = {
        "start": "fitted", "pooling": ["embedding", "middle"], "label_smoothing": 0.1
    }  # fmt: skip

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values are classes: few distinct names or indices."""
        few = values.is_few or (values.name in self.fields and len(values.distinct) > 1)
        return values.classes == values.records and few and values.is_paired == self.pairs

    def starting_options(self, values: FieldValues, given: Collection[str]) -> Mapping[str, Any]:
        """Start with a fitted head, which helps most with few records per class.

        A head with the user's own options starts as usual.
        """
        if self.pairs or {"reads", *SENTENCE_OPTIONS} & set(given):
            return {}
        return self.starting

    def starting_rates(self, values: FieldValues) -> Rates:
        """Return lower rates for few records per class.

        A fitted head then needs little change, and an encoder that is tuned faster forgets more
        than five sentences teach it (measured on banking77).
        """
        if self.pairs:
            return Rates()
        share = values.records / max(1, len(values.distinct))
        encoder = float(f"{min(1e-4, max(2e-5, 2e-5 * math.sqrt(share / 5))):.1e}")
        return Rates(encoder, 10 * encoder)

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of classes (see `Kind.reader`)."""
        names = Names(task, known, keeps_unseen)

        def read(record: RawRecord, field: str) -> str:
            label = read_class(record.fields[field], field, record.where)
            return names.of(label, field, record.where)

        return read

    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Return the index of the class."""
        return [UNLABELLED if label is None else labels.index(str(label))]

    def decode(
        self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: Any
    ) -> Scored:
        """Choose the most probable class of each sentence."""
        return decode_classes(logits)

    def probabilities(self, logits: Floats, learned: Any) -> Floats:
        """Return the probability of each class; those of a text sum to 1."""
        return softmax(self.class_logits(logits, learned))

    def calibrated(self, logits: Floats, learned: Any, calibration: Calibration | None) -> Floats:
        """Return the calibrated probability of each class."""
        if not isinstance(calibration, Temperature):
            return self.probabilities(logits, learned)
        return softmax(calibration.logits(self.class_logits(logits, learned)))

    def scored_one(
        self,
        spec: TaskSpec,
        result: ClassResult,
        shares: Floats,
        logits: Floats | None,
        scoring: Scoring,
    ) -> ClassResult:
        """Score one text's class; below its threshold it is undecided, with candidates."""
        if result.id is None:
            return result
        score = float(shares[result.id])
        limits = scoring.thresholds
        decided = limits is None or score >= limits.of(result.label)
        logit = None if logits is None else float(logits[result.id])
        count = scoring.top_k if decided else scoring.candidates
        listed = candidates(spec, shares, logits, count)
        if decided:
            return ClassResult(result.label, result.id, score, logit, listed)
        return ClassResult(None, None, score, logit, listed)

    def evidence(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any,
        logits: Floats,
    ) -> Evidence | None:  # fmt: skip
        """Return the logits and the right class; `UNKNOWN` makes every answer wrong."""
        right, _ = self.outcome(spec, label, tokens, result)
        return Evidence(logits.astype(np.float64), np.array([right]))

    def examples(self, evidence: Sequence[Evidence]) -> int:
        """Return the number of texts of classes that the model knows."""
        return sum(one.gold[0] != UNKNOWN for one in evidence)

    def fitted(self, logits: NDArray[np.float64], gold: NDArray[np.int64]) -> Temperature:
        """Fit a temperature to the texts of classes that the model knows."""
        known = gold[:, 0] != UNKNOWN
        return fit_temperature(logits[known], gold[known, 0])

    def judge(
        self, spec: TaskSpec, evidence: Sequence[Evidence], calibration: Calibration | None
    ) -> Judged:
        """Return the probability of each text's class."""
        if not evidence:
            return judged(())
        logits = np.stack([one.scores for one in evidence]).astype(np.float32)
        ids = logits.argmax(axis=1)
        scaled = calibration.logits(logits) if isinstance(calibration, Temperature) else logits
        scores = softmax(scaled)[np.arange(len(ids)), ids]
        return judged(
            [
                ([score], [i == one.gold[0]], [spec.labels[i]])
                for score, i, one in zip(scores, ids, evidence, strict=True)
            ]
        )

    def accepts(self, spec: TaskSpec, calibration: Calibration) -> bool:
        """Return whether it is a temperature."""
        return isinstance(calibration, Temperature)

    def results(self, spec: TaskSpec, texts: Sequence[ReadText], decoded: Scored) -> list[Result]:
        """Name the classes."""
        return list(class_results(spec, decoded))

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        """Return a result without a class."""
        return ClassResult(None, None, None)

    def columns(self, spec: TaskSpec) -> Columns:
        """Return the fields of a class."""
        return CLASS_COLUMNS

    def cell(self, spec: TaskSpec, result: ClassResult) -> Any:
        """Return the fields of a class, or None where there is none."""
        return None if result.label is None else class_cell(result)

    def outcome(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: ClassResult
    ) -> tuple[int, int]:
        """Return the indices of both classes."""
        return class_index(spec, str(label)), NO_ANSWER if result.id is None else result.id

    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Compute the metrics of classes."""
        return classification_metrics(gold, predicted, spec.labels)

    def ratio(self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]) -> Ratio:
        """Write accuracy as right sentences over all sentences."""
        return Ratio.accuracy(classification_counts(gold, predicted).correct)

    def shown(self, spec: TaskSpec, value: int) -> Any:
        """Return the name of the class."""
        return class_name(spec, value)

    def decisions(
        self, spec: TaskSpec, gold: int, predicted: int, scores: Sequence[float]
    ) -> tuple[Decision, ...]:
        """Compare the two classes; a text without words has no prediction."""
        right, found = class_name(spec, gold), class_name(spec, predicted)
        if found is None:
            return (Decision(right, None, MISSED),)
        return (
            Decision(
                right, found, "" if gold == predicted else WRONG_CLASS, next(iter(scores), None)
            ),
        )

    def suspicions(
        self, spec: TaskSpec, label: Label, text: ReadText, logs: Floats, elsewhere: Any
    ) -> list[Suspicion]:
        """Compare the class with the most probable other one."""
        found = class_suspicion(spec.labels, str(label), logs)
        return [] if found is None else [found]

    def corrected(self, label: Label, given: Any, proposed: Any) -> Label:
        """Return the proposed class."""
        if label != given or not isinstance(proposed, str):
            raise no_part(label, given, proposed)
        return proposed

    def field_value(self, label: Label, tokens: Sequence[WordSpan] | None) -> Any:
        """Return the class."""
        return label


def class_name(spec: TaskSpec, index: int) -> str | None:
    """Return the name of a class in outcomes; None for no answer."""
    return None if index == NO_ANSWER else "<unknown>" if index == UNKNOWN else spec.labels[index]


def class_results(spec: TaskSpec, scored: Scored) -> Iterator[ClassResult]:
    """Turn indices into named classes."""
    for i, score in zip(scored.ids.tolist(), scored.scores.tolist(), strict=True):
        yield ClassResult(spec.labels[i], i, score)


def candidates(
    spec: TaskSpec, shares: Floats, logits: Floats | None, count: int
) -> tuple[ClassResult, ...]:
    """Return the most probable labels of a text, at most `count`."""
    if not count:
        return ()
    return tuple(
        ClassResult(
            spec.labels[i], i, float(shares[i]), None if logits is None else float(logits[i])
        )
        for i in np.argsort(-shares, kind="stable")[:count].tolist()
    )


def class_cell(result: ClassResult) -> dict[str, Any]:
    """Return a class as the fields of a table's column."""
    return {"label": result.label, "id": result.id, "score": result.score}
