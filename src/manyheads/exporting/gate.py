"""The gate: an exported graph is used only if it predicts as the trained model does.

Each head's logits, decisions and main metric, and the sentence embeddings, are compared with the
PyTorch model in float32 on labelled validation records. Both run in the same predictor, so that
they see the same batches and differ in nothing but the graph.

A head may lose a little. With few records, a loss over the limit may be chance: then the graph is
refused only if the 95 % interval over the changed answers lies above the limit, or if so many
answers change, counting also sentences without labels, that far more may be lost.

Axes: B sentences, W words, L labels, H hidden.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from manyheads.data.records import Record
from manyheads.errors import DataError, listing
from manyheads.evaluation import (
    FittedTask,
    Outcomes,
    fit_calibrations,
    paired_bootstrap,
    score,
    share_interval,
    text_of,
)
from manyheads.inference import Predictor, single_batch_backend
from manyheads.inference.backends.base import Backend
from manyheads.tasks import EMBEDDING, Prediction, kind_of
from manyheads.text import Batch

LIMIT = 0.3
"""Points (hundredths) of its main metric that a head may lose, if nothing else is asked for."""

POSSIBLE = 10
"""Times the limit that a loss, if it may be chance, could at most be with the share of answers that
change (the upper end of its 95 % interval)."""

MIN_COSINE = 0.95
"""The least mean cosine of the embeddings with the reference."""

EXACT_LOGITS = 1e-2
EXACT_COSINE = 0.9999
"""The bounds for a float32 graph, which computes the same in another order."""

MAX_ERROR_ADDED = 0.02
"""How much larger the calibration error may be, each with its own calibration."""

_JUDGED = 500
"""Answers below which a calibration error is not compared: it would be chance."""
_SOURCE = "the records that the graphs were compared on"

_MATES = 128
"""Sentences that are predicted alone as well, to see whether batch mates change them."""

_TIMED, _ROUNDS = 1024, 3
"""Sentences and rounds of the speed measurement in batches; the fastest round counts."""

RecordSets = Sequence[tuple[Sequence[Record], Sequence[str]]]
"""Validation records, each set with the tasks that it has labels for."""
MakePredictor = Callable[[Backend], Predictor]
"""Puts the model's tokenizer and tasks around a backend."""


@dataclass(frozen=True, slots=True)
class HeadComparison:
    """One head of the graph against the same head of the reference."""

    metric: str
    reference: float
    exported: float
    decisions: int
    """Sentences of the task."""
    changed: int
    """Sentences that are answered differently."""
    lost_low: float
    lost_high: float
    """Between them lie the points that the head loses on other sentences, with 95 %."""
    changed_share: float
    """Share of all sentences, unlabelled ones too, that are answered differently."""
    lost_at_most: float
    """Points lost if as many answers change as the 95 % interval of that share allows."""
    max_logit_difference: float
    mean_logit_difference: float
    error_reference: float | None = None
    """The calibration error of the reference's scores, calibrated; None without scores."""
    error_exported: float | None = None
    """The same of the graph's, with a calibration of its own."""

    @property
    def lost(self) -> float:
        """Points of the main metric that the head loses; negative for a gain."""
        return 100.0 * (self.reference - self.exported)

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "metric": self.metric,
            "reference": self.reference,
            "exported": self.exported,
            "points_lost": self.lost,
            "decisions": self.decisions,
            "changed": self.changed,
            "interval_of_points_lost": [self.lost_low, self.lost_high],
            "changed_share": self.changed_share,
            "points_lost_at_most": self.lost_at_most,
            "max_logit_difference": self.max_logit_difference,
            "mean_logit_difference": self.mean_logit_difference,
            "ece_reference": self.error_reference,
            "ece_exported": self.error_exported,
        }


@dataclass(frozen=True, slots=True)
class BatchMates:
    """What it changes for a sentence to be predicted with others, not alone."""

    sentences: int
    changed: Mapping[str, int]
    """By task, sentences that are answered differently."""
    max_score_difference: float
    """The largest difference of a probability."""
    min_cosine: float
    """The smallest cosine between the embeddings."""

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values."""
        return {
            "sentences": self.sentences,
            "changed": dict(self.changed),
            "max_score_difference": self.max_score_difference,
            "min_cosine": self.min_cosine,
        }


@dataclass(frozen=True, slots=True)
class GateReport:
    """The gate's findings about a graph."""

    backend: str
    setting: str
    """The arithmetic of the parts of the graph, in words."""
    heads: Mapping[str, HeadComparison]
    min_cosine: float
    mean_cosine: float
    batch_mates: BatchMates
    records: int
    unlabelled: int
    """Sentences without labels, on which the answers were compared as well."""
    sentences_per_second: float
    """In batches, from text to answer."""
    milliseconds_alone: float
    """The median of sentences that are asked one by one, from text to answer."""
    reference_sentences_per_second: float
    threads: int
    limit: float
    faults: tuple[str, ...]
    """Why the graph is refused; none if it passes."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Of the export: fused operators, opset, versions, bytes."""

    @property
    def passed(self) -> bool:
        """Whether the graph may be used."""
        return not self.faults

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, as it is stored beside the graph."""
        return {
            "backend": self.backend,
            "setting": self.setting,
            "passed": self.passed,
            "faults": list(self.faults),
            "limit_points": self.limit,
            "records": self.records,
            "unlabelled": self.unlabelled,
            "heads": {name: head.to_json() for name, head in self.heads.items()},
            "embedding": {"min_cosine": self.min_cosine, "mean_cosine": self.mean_cosine},
            "batch_mates": self.batch_mates.to_json(),
            "sentences_per_second": self.sentences_per_second,
            "milliseconds_alone": self.milliseconds_alone,
            "reference_sentences_per_second": self.reference_sentences_per_second,
            "threads": self.threads,
            **self.details,
        }


class Gate:
    """Compares graphs with one reference, which is run once.

    Args:
        reference: the PyTorch model in float32.
        make_predictor: puts the model's tokenizer and tasks around a backend.
        sets: the validation records.
        limit: points of its main metric that a head may lose, beyond what is chance with so many
            records.
        unlabelled: more sentences, on which only the changed answers are counted.
        threads: processor threads of reference and graphs, for the report.

    Raises:
        DataError: a task has no labelled record, so that its head cannot be compared.
    """

    def __init__(
        self,
        reference: Backend,
        make_predictor: MakePredictor,
        sets: RecordSets,
        *,
        limit: float = LIMIT,
        unlabelled: Sequence[str] = (),
        threads: int = 1,
    ) -> None:
        self._make_predictor = make_predictor
        self._sets = sets
        self._limit = limit
        self._threads = threads
        self._recorder = _Recorder(reference)
        predictor = make_predictor(self._recorder)
        # From all over the sets, since files are often sorted by label.
        self._texts = [
            text_of(record, tasks) if predictor.pairs else record.text
            for records, tasks in sets
            for record in records[:: max(1, len(records) * len(sets) // _TIMED)]
        ][:_TIMED]
        self._metric = {spec.name: spec.main_metric for spec in predictor.specs}
        self._answering = [spec.name for spec in predictor.specs if spec.answers]
        self._deciding = [s.name for s in predictor.specs if kind_of(s.kind).decides]
        self._outcomes = score(predictor, sets, evidence=True)
        self._fitted = fit_calibrations(self._outcomes, _SOURCE)
        self.calibrations: dict[str, Mapping[str, FittedTask]] = {}
        """By backend, the calibrations of the graph that was examined last."""
        self._unlabelled = [] if predictor.pairs else list(unlabelled)
        self._answers = make_predictor(reference).predict(self._unlabelled)
        self._reference_rate = self._rate(make_predictor(reference), rounds=1)
        missing = [
            name for name in self._metric
            if name not in self._outcomes.tasks or not self._outcomes.tasks[name].gold
        ]  # fmt: skip
        if missing:
            raise DataError(
                f"no validation record has a label for task {listing(missing)}",
                expected="labelled records for every head, which the gate compares",
                fix="Name a file that has them: manyheads export MODEL --file FILE",
            )

    def examine(
        self,
        backend: Backend,
        name: str,
        setting: str,
        *,
        exact: bool,
        independent: bool | None = None,
        **details: Any,
    ) -> GateReport:
        """Compare a graph with the reference.

        Args:
            backend: the graph.
            name: the backend's name.
            setting: its arithmetic, in words.
            exact: whether it must compute what the reference does, but for rounding (float32).
            independent: whether no answer may depend on the others of a batch; default, if exact.
            details: more for the report.
        """
        # The same batches as the reference's, and each by itself.
        comparer = _Comparer(single_batch_backend(backend), self._recorder.outputs)
        outcomes = score(self._make_predictor(comparer), self._sets, evidence=True)
        self.calibrations[name] = fit_calibrations(outcomes, _SOURCE)
        answers = self._make_predictor(backend).predict(self._unlabelled)
        heads = {
            # A task of pairs has no logits of its own: the embeddings are compared.
            task: replace(
                self._head(task, outcomes, answers, comparer.differences.get(task, _Differences())),
                error_reference=_error(self._fitted, task),
                error_exported=_error(self.calibrations[name], task),
            )
            for task in self._metric
        }
        cosines = np.concatenate(comparer.cosines)
        mates, alone = self._batch_mates(backend)
        report = GateReport(
            backend=name,
            setting=setting,
            heads=heads,
            min_cosine=float(cosines.min()),
            mean_cosine=float(cosines.mean()),
            batch_mates=mates,
            records=outcomes.records,
            unlabelled=len(answers),
            sentences_per_second=self._rate(self._make_predictor(backend)),
            milliseconds_alone=alone,
            reference_sentences_per_second=self._reference_rate,
            threads=self._threads,
            limit=self._limit,
            faults=(),
            details=details,
        )
        faults = tuple(_faults(report, exact, exact if independent is None else independent))
        return GateReport(
            **{name: getattr(report, name) for name in GateReport.__slots__ if name != "faults"},
            faults=faults,
        )

    def _head(
        self,
        task: str,
        outcomes: Outcomes,
        answers: Sequence[Prediction],
        differences: _Differences,
    ) -> HeadComparison:
        reference, exported = self._outcomes.tasks[task], outcomes.tasks[task]
        metric = self._metric[task]
        before, after = (_value(one.metrics(), metric) for one in (reference, exported))
        lost = 100.0 * (before - after)
        low = high = lost
        changed = more = 0
        if task in self._deciding:
            pairs = zip(reference.predicted, exported.predicted, strict=True)
            changed = sum(one != other for one, other in pairs)
            compared = zip(self._answers, answers, strict=True)
            more = sum(_answer(one, task) != _answer(other, task) for one, other in compared)
            ratios = reference.ratio(), exported.ratio()
            # With equal answers nothing is left to chance.
            if changed and ratios[0] is not None and ratios[1] is not None:
                found = paired_bootstrap(ratios[0], ratios[1], resamples=2000)
                low, high = -100.0 * found.high, -100.0 * found.low
        decisions = len(reference.predicted)
        everything = max(1, decisions + len(answers))
        # What a changed answer costs is known of the labelled ones; how many change, of all.
        _, often = share_interval(changed + more, everything)
        return HeadComparison(
            metric=metric,
            reference=before,
            exported=after,
            decisions=decisions,
            changed=changed,
            lost_low=low,
            lost_high=high,
            changed_share=(changed + more) / everything,
            lost_at_most=lost * often * decisions / changed if changed else lost,
            max_logit_difference=differences.largest,
            mean_logit_difference=differences.total / max(1, differences.count),
        )

    def _rate(self, predictor: Predictor, rounds: int = _ROUNDS) -> float:
        """Measure how many sentences a second are predicted in batches."""
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            predictor.predict(self._texts, embed=True)
            seconds.append(time.perf_counter() - began)
        # The first time prepares what the others find.
        return len(self._texts) / min(seconds)

    def _batch_mates(self, backend: Backend) -> tuple[BatchMates, float]:
        """Predict sentences together and alone; also return the median milliseconds alone."""
        texts = self._texts[:: max(1, len(self._texts) // _MATES)][:_MATES]
        together = self._make_predictor(backend).predict(texts, embed=True)
        predictor = self._make_predictor(backend)
        alone, seconds = [], []
        for text in texts:
            began = time.perf_counter()
            alone += predictor.predict([text], embed=True)
            seconds.append(time.perf_counter() - began)
        pairs = list(zip(alone, together, strict=True))
        cosines = [
            _cosines(one.embedding[None], other.embedding[None])[0]
            for one, other in pairs
            if one.embedding is not None and other.embedding is not None
        ]
        mates = BatchMates(
            sentences=len(texts),
            changed={
                task: sum(_answer(one, task) != _answer(other, task) for one, other in pairs)
                for task in self._answering
            },
            max_score_difference=max(
                (
                    abs(a - b)
                    for one, other in pairs
                    for task in self._answering
                    for a, b in _scores(one, other, task)
                ),
                default=0.0,
            ),
            min_cosine=float(min(cosines, default=1.0)),
        )
        return mates, 1e3 * median(seconds)


def _faults(report: GateReport, exact: bool, independent: bool) -> Iterable[str]:
    for name, head in report.heads.items():
        # On few records one changed answer is more than the limit, and may be chance.
        certain = head.lost_low > report.limit
        possible = head.lost_at_most > POSSIBLE * report.limit
        if head.lost > report.limit and (certain or possible):
            reason = (
                f"{head.lost_low:.2f} to {head.lost_high:.2f} with 95 %" if certain
                else f"{head.lost_at_most:.2f} are possible, as {head.changed_share:.1%} of all "
                "answers change"
            )  # fmt: skip
            yield (
                f"head {name!r} loses {head.lost:.2f} points of {head.metric} "
                f"({100 * head.reference:.2f} to {100 * head.exported:.2f}; {reason}); "
                f"at most {report.limit:g} are allowed"
            )
        before, after = head.error_reference, head.error_exported
        if before is not None and after is not None and after - before > MAX_ERROR_ADDED:
            yield (
                f"head {name!r} has scores with a calibration error of {after:.3f}, where it was "
                f"{before:.3f}; at most {MAX_ERROR_ADDED:g} more are allowed"
            )
        if exact and not head.max_logit_difference <= EXACT_LOGITS:
            yield (
                f"head {name!r} has logits that differ by {head.max_logit_difference:.2g}; "
                f"at most {EXACT_LOGITS:g} is rounding"
            )
    least, found = (EXACT_COSINE, report.min_cosine) if exact else (MIN_COSINE, report.mean_cosine)
    if not found >= least:
        yield (
            f"the {'smallest' if exact else 'mean'} cosine of the embeddings is {found:.4f}; "
            f"at least {least:g} is needed"
        )
    if independent and any(report.batch_mates.changed.values()):
        yield "the answers depend on the other sentences of a batch"


@dataclass
class _Differences:
    """How far a task's logits are from the reference's."""

    largest: float = 0.0
    total: float = 0.0
    count: int = 0

    def add(self, values: NDArray[np.float32]) -> None:
        if values.size:
            # A value that is no number counts as infinitely far.
            values = np.nan_to_num(values, nan=np.inf, posinf=np.inf)
            self.largest = max(self.largest, float(values.max()))
            self.total += float(values.sum(dtype=np.float64))
            self.count += values.size


class _Recorder:
    """A backend that records the outputs of another, in order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.outputs: list[Mapping[str, NDArray[np.float32]]] = []

    @property
    def name(self) -> str:
        return self._backend.name

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        outputs = self._backend.run(batch)
        self.outputs.append(outputs)
        return outputs


class _Comparer(_Recorder):
    """A backend whose outputs are compared with recorded ones, batch by batch."""

    def __init__(
        self, backend: Backend, recorded: Sequence[Mapping[str, NDArray[np.float32]]]
    ) -> None:
        super().__init__(backend)
        self._recorded = iter(recorded)
        self.differences: dict[str, _Differences] = {}
        self.cosines: list[NDArray[np.float32]] = []

    def run(self, batch: Batch) -> Mapping[str, NDArray[np.float32]]:
        outputs = super().run(batch)
        self.outputs.clear()
        for name, reference in next(self._recorded).items():
            if name == EMBEDDING:
                self.cosines.append(_cosines(outputs[name], reference))
                continue
            distance = np.abs(outputs[name] - reference)
            if distance.ndim == 3:
                distance = distance[batch.word_mask]
            self.differences.setdefault(name, _Differences()).add(distance)
        return outputs


def _cosines(left: NDArray[np.float32], right: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the cosines of two [B, H], row by row: [B]."""
    norms = np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1)
    cosines: NDArray[np.float32] = (left * right).sum(axis=1) / np.maximum(norms, 1e-12)
    return cosines


def _value(metrics: object, name: str) -> float:
    return float(cast(Mapping[str, Any], metrics)[name])


def _error(fitted: Mapping[str, FittedTask], task: str) -> float | None:
    return fitted[task].error if task in fitted and fitted[task].answers >= _JUDGED else None


def _answer(prediction: Prediction, task: str) -> object:
    # A task of pairs has no answer for a single text.
    return prediction.results[task].decision() if task in prediction.results else None


def _scores(one: Prediction, other: Prediction, task: str) -> Iterable[tuple[float, float]]:
    """Pair the probabilities of answers that are the same."""
    if task in one.results and _answer(one, task) == _answer(other, task):
        left, right = one.results[task].scores(), other.results[task].scores()
        yield from zip(left, right, strict=True)
