"""The gate: an exported graph is used only if it predicts as the trained model does.

Each head's logits, decisions and main metric, and the sentence embeddings, are compared with the
PyTorch model in float32 on labelled validation records. Both run in the same predictor, so that
they see the same batches and differ in nothing but the graph. `gate_report` has the limits.

Axes: B sentences, H hidden.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import Any

import numpy as np

from manyheads.data.records import Record
from manyheads.errors import DataError, listing, option
from manyheads.evaluation import (
    FittedTask,
    Outcomes,
    fit_calibrations,
    paired_bootstrap,
    score,
    share_interval,
    text_of,
)
from manyheads.exporting.gate_report import (
    BatchMates,
    GateReport,
    HeadComparison,
    reasons_to_refuse,
)
from manyheads.exporting.recording import Comparer, Differences, Recorder, cosines_of
from manyheads.inference import Backend, Predictor, single_batch_backend
from manyheads.sampling import spread
from manyheads.tasks import Prediction, kind_of

LIMIT = 0.3
"""Percentage points of its main metric that a head may lose, if nothing else is asked for."""

_JUDGED = 500
"""Answers below which a calibration error is not compared, since it would be chance."""
_SOURCE = "the records that the graphs were compared on"

_MATES = 128
"""Sentences that are predicted alone as well, to see whether batch mates change them."""

_TIMED, _ROUNDS = 1024, 3
"""Sentences and rounds of the speed measurement in batches; the fastest round counts."""

RecordSets = Sequence[tuple[Sequence[Record], Sequence[str]]]
"""Validation records, each set with the tasks that it has labels for."""
MakePredictor = Callable[[Backend], Predictor]
"""Puts the model's tokenizer and tasks around a backend."""


class Gate:
    """Compares graphs with one reference, which runs once.

    Args:
        reference: the PyTorch model in float32.
        make_predictor: puts the model's tokenizer and tasks around a backend.
        sets: the validation records.
        limit: points of its main metric that a head may lose, beyond chance.
        unlabelled: further sentences, on which only changed answers are counted.
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
        self._recorder = Recorder(reference)
        predictor = make_predictor(self._recorder)
        # As many of each set, spread over it, since files are often sorted by label.
        share = max(1, _TIMED // max(1, len(sets)))
        self._texts = [
            text_of(record, tasks) if predictor.pairs else record.text
            for records, tasks in sets
            for record in spread(records, share)
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
                fix="Name a file that has them: "
                + option(
                    "manyheads export MODEL --file FILE", "manyheads.export(MODEL, data=FILE)"
                ),
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
            exact: whether outputs must equal the reference's up to rounding (float32).
            independent: whether answers must not depend on the others of a batch; default, if
                exact.
            details: further values for the report.
        """
        # The same batches as the reference's, and each by itself.
        comparer = Comparer(single_batch_backend(backend), self._recorder.outputs)
        outcomes = score(self._make_predictor(comparer), self._sets, evidence=True)
        self.calibrations[name] = fit_calibrations(outcomes, _SOURCE)
        answers = self._make_predictor(backend).predict(self._unlabelled)
        cosines = np.concatenate(comparer.cosines)
        mates, alone = self._batch_mates(backend)
        report = GateReport(
            backend=name,
            setting=setting,
            heads=self._heads(name, outcomes, answers, comparer.differences),
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
        faults = reasons_to_refuse(report, exact, exact if independent is None else independent)
        return replace(report, faults=tuple(faults))

    def _heads(
        self,
        backend: str,
        outcomes: Outcomes,
        answers: Sequence[Prediction],
        differences: Mapping[str, Differences],
    ) -> dict[str, HeadComparison]:
        """Compare each head, and the calibration error of its scores."""
        return {
            # A task of pairs has no logits of its own: the embeddings are compared.
            task: replace(
                self._head(task, outcomes, answers, differences.get(task, Differences())),
                error_reference=_error(self._fitted, task),
                error_exported=_error(self.calibrations[backend], task),
            )
            for task in self._metric
        }

    def _head(
        self,
        task: str,
        outcomes: Outcomes,
        answers: Sequence[Prediction],
        differences: Differences,
    ) -> HeadComparison:
        reference, exported = self._outcomes.tasks[task], outcomes.tasks[task]
        metric = self._metric[task]
        before, after = (float(one.metrics()[metric]) for one in (reference, exported))
        lost = 100.0 * (before - after)
        changed = more = 0
        if task in self._deciding:
            pairs = zip(reference.predicted, exported.predicted, strict=True)
            changed = sum(one != other for one, other in pairs)
            compared = zip(self._answers, answers, strict=True)
            more = sum(_answer(one, task) != _answer(other, task) for one, other in compared)
        interval = self._interval(task, outcomes) if changed else None
        low, high = interval or (lost, lost)
        decisions = len(reference.predicted)
        everything = max(1, decisions + len(answers))
        # The cost of a changed answer is known for labelled sentences, their share for all.
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

    def _interval(self, task: str, outcomes: Outcomes) -> tuple[float, float] | None:
        """Return between which points a head loses on other sentences, with 95 %, if known."""
        before, after = self._outcomes.tasks[task].ratio(), outcomes.tasks[task].ratio()
        if before is None or after is None:
            return None
        found = paired_bootstrap(before, after, resamples=2000)
        return -100.0 * found.high, -100.0 * found.low

    def _rate(self, predictor: Predictor, rounds: int = _ROUNDS) -> float:
        """Measure how many sentences a second are predicted in batches."""
        seconds = []
        for _ in range(rounds):
            began = time.perf_counter()
            predictor.predict(self._texts, embed=True)
            seconds.append(time.perf_counter() - began)
        # The first round also warms up.
        return len(self._texts) / min(seconds)

    def _batch_mates(self, backend: Backend) -> tuple[BatchMates, float]:
        """Predict sentences together and alone; also return the median milliseconds alone."""
        texts = spread(self._texts, _MATES)
        together = self._make_predictor(backend).predict(texts, embed=True)
        predictor = self._make_predictor(backend)
        alone, seconds = [], []
        for text in texts:
            began = time.perf_counter()
            alone += predictor.predict([text], embed=True)
            seconds.append(time.perf_counter() - began)
        pairs = list(zip(alone, together, strict=True))
        cosines = [
            cosines_of(one.embedding[None], other.embedding[None])[0]
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


def _error(fitted: Mapping[str, FittedTask], task: str) -> float | None:
    return fitted[task].error if task in fitted and fitted[task].answers >= _JUDGED else None


def _answer(prediction: Prediction, task: str) -> object:
    # A task of pairs has no answer for a single text.
    return prediction.results[task].decision() if task in prediction.results else None


def _scores(one: Prediction, other: Prediction, task: str) -> Iterator[tuple[float, float]]:
    """Pair the probabilities of answers that are the same."""
    if task in one.results and _answer(one, task) == _answer(other, task):
        left, right = one.results[task].scores(), other.results[task].scores()
        yield from zip(left, right, strict=True)
