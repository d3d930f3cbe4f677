"""Multilabel: any number of classes per sentence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from manyheads.errors import DataError
from manyheads.tasks.calibration import Calibration, Platt, fit_platt_by_label
from manyheads.tasks.class_labels import Names
from manyheads.tasks.decisions import INVENTED, MISSED, Decision
from manyheads.tasks.decoding import Scored, decode_multilabel, sigmoid
from manyheads.tasks.field_values import FieldValues
from manyheads.tasks.found import Found, Refuse
from manyheads.tasks.kinds.classification import (
    CLASS_COLUMNS,
    NamedClasses,
    candidates,
    class_cell,
    class_index,
    class_name,
    class_results,
)
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
    Targets,
)
from manyheads.tasks.label_values import NameOrIndex, read_classes
from manyheads.tasks.labels import LabelSet, WordSpan
from manyheads.tasks.metrics.classes import multilabel_counts, multilabel_metrics
from manyheads.tasks.metrics.counts import UNKNOWN
from manyheads.tasks.metrics.ratio import Ratio
from manyheads.tasks.results import ClassResult, MultilabelResult, Result
from manyheads.tasks.scoring import Evidence, Judged, Scoring, judged
from manyheads.tasks.suspicion import Suspicion, classes_suspicions, no_part
from manyheads.tasks.tag_sequences import Floats

if TYPE_CHECKING:
    from manyheads.tasks.spec import TaskSpec


@dataclass(slots=True)
class _FoundClasses(Found):
    """Classes, and whether the lists may be vectors of 0 and 1 rather than lists of indices."""

    vectors: set[tuple[int, ...]] = field(default_factory=set)
    others: bool = False


@register_kind
class Multilabel(NamedClasses):
    """Any number of classes per sentence."""

    name = "multilabel"
    fields = ("labels",)
    head = "manyheads.modeling.heads.multilabel:MultilabelHead"
    options = (*LABEL_OPTIONS, *HEAD_OPTIONS, *SENTENCE_OPTIONS, "threshold")
    spec_fields = ("threshold",)
    main_metric = "f1_micro"
    in_words = (
        "{recall:.0%} of the classes are found, and {precision:.0%} of those found are right "
        "(means over the classes)"
    )
    can_be_empty = True
    sought_as = "multilabel"

    def recognises(self, values: FieldValues) -> bool:
        """Return whether the values are lists of classes."""
        few = values.is_few or values.name in self.fields
        lists = bool(values.filled) and values.lists == values.records
        return lists and few and not values.repeating and not values.is_paired

    def classes(self, record: RawRecord, field: str) -> Sequence[NameOrIndex]:
        """Read the classes of a record."""
        return read_classes(record.fields[field], field, record.where)

    def found(self, task: str, fields: str) -> Found:
        """Start collecting classes (see `Kind.found`)."""
        return _FoundClasses(task, fields)

    def collect(self, found: Found, record: RawRecord, field: str, settings: Settings) -> None:
        """Note a record's classes, and lists that may be vectors."""
        super().collect(found, record, field, settings)
        if isinstance(found, _FoundClasses):
            value = record.fields[field]
            if value in ([0, 1], [1, 0]):
                found.vectors.add(tuple(value))
            else:
                found.others = True

    def decide(self, settings: Settings, found: Found, refuse: Refuse) -> LabelSet:
        """Decide the classes (see `Kind.decide`).

        Raises:
            DataError: all lists are vectors of 0 and 1 for two classes.
        """
        if isinstance(found, _FoundClasses) and (1, 0) in found.vectors and not found.others:
            raise DataError(
                f"all lists of the task {found.task!r} are [0, 1] or [1, 0]",
                where=next(iter(found.indices.values())),
                expected="the classes that apply, such as [1]; these look like vectors of 0 and 1",
                fix="Write the names of the classes that apply, or one class as `label`.",
            )
        return super().decide(settings, found, refuse)

    def reader(
        self, task: str, settings: Settings, known: LabelSet | None, keeps_unseen: bool
    ) -> ReadLabel:
        """Make the reader of lists of classes (see `Kind.reader`)."""
        names = Names(task, known, keeps_unseen)

        def read(record: RawRecord, field: str) -> tuple[str, ...]:
            return tuple(
                names.of(item, f"{field}[{i}]", record.where)
                for i, item in enumerate(self.classes(record, field))
            )

        return read

    def target(
        self, label: Label | None, words: NDArray[np.integer[Any]], labels: LabelSet,
        settings: Settings,
    ) -> Sequence[float]:  # fmt: skip
        """Return the indices of the classes that apply."""
        return [labels.index(name) for name in label or ()]

    def collate(self, targets: Targets, rows: NDArray[np.int64], width: int) -> NDArray[Any]:
        """Return [B, L] float32: 1 for a class that applies, 0 for one that does not."""
        flags = np.zeros((len(rows), targets.num_labels), np.float32)
        for i, row in enumerate(rows):
            flags[i, targets.values.row(int(row))] = 1.0
        flags[~targets.labelled[rows]] = UNLABELLED
        return flags

    def decode(
        self, spec: TaskSpec, logits: Floats, lengths: Lengths | None, learned: Any
    ) -> list[Scored]:
        """Choose every class whose probability reaches the threshold."""
        return decode_multilabel(logits, cast(float, spec.threshold))

    def probabilities(self, logits: Floats, learned: Any) -> Floats:
        """Return the independent probability of each class."""
        return sigmoid(logits).astype(np.float32)

    def calibrated(self, logits: Floats, learned: Any, calibration: Calibration | None) -> Floats:
        """Return the calibrated probability of each class."""
        if not isinstance(calibration, Platt):
            return self.probabilities(logits, learned)
        return calibration.probabilities(logits).astype(np.float32)

    def scored_one(
        self, spec: TaskSpec, result: Any, shares: Floats, logits: Floats | None, scoring: Scoring
    ) -> Result:
        """Score one text's classes; those below their thresholds become candidates."""
        limits = scoring.thresholds
        decided: list[ClassResult] = []
        undecided: list[ClassResult] = []
        for one in result.labels:
            score = float(shares[one.id])
            logit = None if logits is None else float(logits[one.id])
            new = ClassResult(one.label, one.id, score, logit)
            reached = limits is None or score >= limits.of(one.label)
            (decided if reached else undecided).append(new)
        listed = candidates(spec, shares, logits, scoring.top_k)
        known = {one.id for one in listed}
        listed += tuple(one for one in undecided if one.id not in known)
        return MultilabelResult(tuple(decided), listed)

    def evidence(
        self, spec: TaskSpec, label: Label, tokens: Sequence[WordSpan] | None, result: Any,
        logits: Floats,
    ) -> Evidence | None:  # fmt: skip
        """Return the logits, and a flag for each class that applies."""
        flags = np.zeros(len(spec.labels), np.int64)
        flags[[i for i in (class_index(spec, name) for name in label) if i != UNKNOWN]] = 1
        return Evidence(logits.astype(np.float64), flags)

    def fitted(self, logits: NDArray[np.float64], gold: NDArray[np.int64]) -> Platt:
        """Fit a logistic curve for each class."""
        return fit_platt_by_label(logits, gold > 0)

    def judge(
        self, spec: TaskSpec, evidence: Sequence[Evidence], calibration: Calibration | None
    ) -> Judged:
        """Return the probabilities of the classes that were predicted."""
        answers = []
        for one in evidence:
            raw = self.probabilities(one.scores.astype(np.float32), None)
            chosen = np.flatnonzero(raw >= cast(float, spec.threshold))
            shares = self.calibrated(one.scores.astype(np.float32), None, calibration)
            answers.append((shares[chosen], one.gold[chosen], [spec.labels[i] for i in chosen]))
        return judged(answers)

    def accepts(self, spec: TaskSpec, calibration: Calibration) -> bool:
        """Return whether it is a logistic curve for each class."""
        return isinstance(calibration, Platt) and len(calibration.slope) == len(spec.labels)

    def results(
        self, spec: TaskSpec, texts: Sequence[ReadText], decoded: Sequence[Scored]
    ) -> list[Result]:
        """Name the classes."""
        return [MultilabelResult(tuple(class_results(spec, scored))) for scored in decoded]

    def no_result(self, spec: TaskSpec, text: ReadText) -> Result:
        """Return a result without classes."""
        return MultilabelResult(())

    def columns(self, spec: TaskSpec) -> Columns:
        """Return a list of classes."""
        return [CLASS_COLUMNS]

    def cell(self, spec: TaskSpec, result: MultilabelResult) -> Any:
        """Return the classes that apply."""
        return [class_cell(label) for label in result.labels]

    def outcome(
        self,
        spec: TaskSpec,
        label: Label,
        tokens: Sequence[WordSpan] | None,
        result: MultilabelResult,
    ) -> tuple[frozenset[int], frozenset[int | None]]:
        """Return the indices of both sets of classes."""
        gold = frozenset(class_index(spec, name) for name in label)
        return gold, frozenset(one.id for one in result.labels)

    def measure(
        self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]
    ) -> Mapping[str, Any]:
        """Compute the metrics of sets of classes."""
        return multilabel_metrics(gold, predicted, spec.labels)

    def ratio(self, spec: TaskSpec, gold: Sequence[Any], predicted: Sequence[Any]) -> Ratio:
        """Write the micro F1 as twice the hits over predicted and gold classes."""
        return Ratio.f1(multilabel_counts(gold, predicted, spec.labels))

    def shown(self, spec: TaskSpec, value: frozenset[int]) -> list[str | None]:
        """Return the names of the classes."""
        return [class_name(spec, index) for index in sorted(value)]

    def decisions(
        self,
        spec: TaskSpec,
        gold: frozenset[int],
        predicted: frozenset[int],
        scores: Sequence[float],
    ) -> tuple[Decision, ...]:
        """Compare the sets class by class."""
        known = dict(zip(sorted(predicted), scores, strict=True))
        decisions = []
        for index in sorted(gold | predicted):
            name, score = class_name(spec, index), known.get(index)
            if index not in predicted:
                decisions.append(Decision(name, None, MISSED))
            elif index in gold:
                decisions.append(Decision(name, name, "", score))
            else:
                decisions.append(Decision(None, name, INVENTED, score))
        return tuple(decisions)

    def suspicions(
        self, spec: TaskSpec, label: Label, text: ReadText, logs: Floats, elsewhere: Any
    ) -> list[Suspicion]:
        """Compare each class, and the absence of each other one, with its opposite."""
        return classes_suspicions(spec.labels, label, logs)

    def corrected(self, label: Label, given: Any, proposed: Any) -> Label:
        """Return the classes with one added, removed or replaced."""
        if (given is not None and given not in label) or proposed in label:
            raise no_part(label, given, proposed)
        kept = tuple(name for name in label if name != given)
        return kept if proposed is None else (*kept, str(proposed))

    def field_value(self, label: Label, tokens: Sequence[WordSpan] | None) -> Any:
        """Return the list of classes."""
        return list(label)
