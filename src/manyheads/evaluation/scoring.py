"""Scores of a predictor on labelled records, the same for every backend."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from manyheads.data.records import Record
from manyheads.inference import Predictor, Recorded, TextPair
from manyheads.tasks import Evidence, Kind, Pair, Prediction, Result, TaskSpec, kind_of
from manyheads.tasks.metrics import (
    ConfidenceMetrics,
    Evaluation,
    Ratio,
    TaskMetrics,
    confidence_metrics,
    frame_accuracy,
)

_CHUNK = 4096
MOST_RECORDS = 20_000
"""The most records of a task whose evidence is kept, and so of a calibration's fit."""

Inputs = tuple[NDArray[np.float32], NDArray[np.float32]]
"""The embedding and the logits of a record."""


@dataclass
class Sample:
    """An even random choice of at most `MOST_RECORDS` places in a stream.

    The same stream has the same choice (Vitter 1985, "Random sampling with a reservoir").
    """

    _places: list[int] = field(default_factory=list)
    _offered: int = 0
    _draw: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def offer(self, place: int) -> int | None:
        """Offer a place; return the one that is left out for it, which may be itself, or None."""
        self._offered += 1
        if len(self._places) < MOST_RECORDS:
            self._places.append(place)
            return None
        number = int(self._draw.integers(self._offered))
        if number >= MOST_RECORDS:
            return place
        left_out, self._places[number] = self._places[number], place
        return left_out


@dataclass
class TaskOutcomes:
    """Gold labels and predictions of one task, sentence by sentence."""

    spec: TaskSpec
    gold: list[Any] = field(default_factory=list)
    predicted: list[Any] = field(default_factory=list)
    scores: list[tuple[float, ...]] = field(default_factory=list)
    """The probabilities of each prediction; none of a kind that has none."""
    rows: list[int] = field(default_factory=list)
    """The number of each sentence among all scored records."""
    evidence: list[Evidence | None] = field(default_factory=list)
    """What calibration learns from each sentence, if that is kept."""
    scope_inputs: list[Inputs | None] = field(default_factory=list)
    """What a scope is fitted on, of the same sentences; of the task that tells the scope alone."""
    _sample: Sample = field(default_factory=Sample)

    @property
    def kind(self) -> Kind:
        """The task's kind."""
        return kind_of(self.spec.kind)

    def add(self, record: Record, result: Result | float, row: int = 0) -> bool | None:
        """Add a labelled record; return whether the whole prediction is right.

        None if there is nothing to compare, or the kind's results are neither right nor wrong.

        Args:
            record: the record.
            result: what was predicted for it.
            row: its number among all scored records.
        """
        label = record.labels[self.spec.name]
        gold, predicted = self.kind.outcome(self.spec, label, record.tokens, result)
        self.gold.append(gold)
        self.predicted.append(predicted)
        self.scores.append(self.kind.answer_scores(label, result))
        self.rows.append(row)
        decides = self.kind.decides and self.kind.compares(label, record.text, record.tokens)
        return bool(gold == predicted) if decides else None

    def keep(
        self, record: Record, result: Recorded | Result | float, inputs: Inputs | None
    ) -> None:
        """Keep what calibration learns from a labelled record, of at most `MOST_RECORDS` in all.

        Args:
            record: the record.
            result: what was predicted for it; nothing is learned from a record without an answer.
            inputs: what a scope is fitted on, if this task tells the scope.
        """
        found = None
        if isinstance(result, Recorded):
            label = record.labels[self.spec.name]
            found = self.kind.evidence(self.spec, label, record.tokens, result.plain, result.logits)
        if found is None:
            inputs = None
        elif inputs is not None:
            # A row of its own: a view would keep its whole batch in memory.
            inputs = inputs[0].copy(), inputs[1].copy()
        self.evidence.append(found)
        self.scope_inputs.append(inputs)
        if found is not None:
            left_out = self._sample.offer(len(self.evidence) - 1)
            if left_out is not None:
                self.evidence[left_out] = self.scope_inputs[left_out] = None

    def evidence_alone(self) -> TaskOutcomes:
        """Return what calibration uses: the records with evidence, without their outcomes."""
        kept = [i for i, one in enumerate(self.evidence) if one is not None]
        return TaskOutcomes(
            self.spec, rows=[self.rows[i] for i in kept],
            evidence=[self.evidence[i] for i in kept],
            scope_inputs=[self.scope_inputs[i] for i in kept],
        )  # fmt: skip

    def confidence(self, *, calibrated: bool) -> ConfidenceMetrics | None:
        """Return how far the scores can be trusted; None where no answer has one."""
        answers = zip(self.gold, self.predicted, self.scores, strict=True)
        found = [
            (one.score, not one.error)
            for gold, predicted, scores in answers
            for one in self.kind.decisions(self.spec, gold, predicted, scores)
            if one.score is not None
        ]
        if not found:
            return None
        scores = np.array([score for score, _ in found], np.float64)
        right = np.array([is_right for _, is_right in found], np.bool_)
        return confidence_metrics(scores, right, calibrated=calibrated)

    def without(self, rows: Set[int]) -> TaskOutcomes:
        """Return the outcomes of all but some records."""
        kept = [i for i, row in enumerate(self.rows) if row not in rows]
        return TaskOutcomes(
            self.spec, [self.gold[i] for i in kept], [self.predicted[i] for i in kept]
        )

    def metrics(self) -> TaskMetrics:
        """Reduce the outcomes to the metrics of the task's kind."""
        return self.kind.measure(self.spec, self.gold, self.predicted)

    def ratio(self) -> Ratio | None:
        """Return the task's main metric as a ratio of sums over sentences, if it is one."""
        return self.kind.ratio(self.spec, self.gold, self.predicted)


@dataclass
class Outcomes:
    """Gold labels and predictions of all tasks."""

    tasks: dict[str, TaskOutcomes]
    correct: dict[str, list[bool | None]]
    """By task and record, whether the whole prediction is right; None where there is no label, or
    the answer is a number."""
    records: int = 0

    @property
    def scope_task(self) -> TaskOutcomes | None:
        """The task by which texts can be known to be in scope: the first of exclusive classes."""
        return next((task for task in self.tasks.values() if task.kind.scopes), None)

    def without(self, rows: Set[int]) -> Outcomes:
        """Return the outcomes of all but some records."""
        return Outcomes({n: task.without(rows) for n, task in self.tasks.items()}, {})

    def evidence_alone(self) -> Outcomes:
        """Return what calibration uses, which is of limited size."""
        tasks = {name: task.evidence_alone() for name, task in self.tasks.items()}
        return Outcomes(tasks, {}, self.records)

    def evaluation(self) -> Evaluation:
        """Reduce the outcomes to metrics."""
        return Evaluation(
            tasks={name: task.metrics() for name, task in self.tasks.items() if task.gold},
            frame_accuracy=frame_accuracy(self.correct),
            records=self.records,
        )


def score(
    predictor: Predictor,
    sets: Iterable[tuple[Iterable[Record], Sequence[str]]],
    *,
    evidence: bool = False,
) -> Outcomes:
    """Predict for labelled records and collect the outcomes.

    Thresholds do not count: every answer is scored.

    Args:
        predictor: the model.
        sets: records, each set with the tasks to score on it.
        evidence: whether to keep what calibration learns from, of `MOST_RECORDS` of each task.
    """
    specs = {spec.name: spec for spec in predictor.specs}
    scored = [(records, tuple(tasks)) for records, tasks in sets]
    names = [name for name in specs if any(name in tasks for _, tasks in scored)]
    outcomes = Outcomes({n: TaskOutcomes(specs[n]) for n in names}, {n: [] for n in names})
    tells_scope = outcomes.scope_task
    for records, tasks in scored:
        for record, results, inputs in _predicted(predictor, records, tasks):
            row, outcomes.records = outcomes.records, outcomes.records + 1
            for name in names:
                if name not in tasks or name not in record.labels:
                    outcomes.correct[name].append(None)
                    continue
                task, result = outcomes.tasks[name], results[name]
                plain = result.result if isinstance(result, Recorded) else result
                outcomes.correct[name].append(task.add(record, plain, row))
                if evidence:
                    task.keep(record, result, inputs if task is tells_scope else None)
    return outcomes


def _predicted(
    predictor: Predictor, records: Iterable[Record], tasks: Sequence[str]
) -> Iterator[tuple[Record, Mapping[str, Recorded | float], Any]]:
    """Yield records with each task's result, and with what a scope is fitted on.

    The result of a similarity task is the cosine of the pair.
    """
    specs = [spec for spec in predictor.specs if spec.name in tasks]
    answering = [spec.name for spec in specs if spec.answers]
    pairs = [spec.name for spec in specs if not spec.answers]
    iterator = iter(records)
    while chunk := list(islice(iterator, _CHUNK)):
        texts = [text_of(record, tasks) for record in chunk]
        predictions = predictor.record(texts, answering, embed=bool(pairs))
        for record, prediction in zip(chunk, predictions, strict=True):
            similar = {name: _similarity(prediction) for name in pairs}
            found = cast(Mapping[str, Recorded], prediction.results)
            yield record, {**found, **similar}, prediction.in_scope


def text_of(record: Record, tasks: Iterable[str]) -> str | TextPair:
    """Return the input of a prediction: the text, or both texts if a label is about both."""
    for label in (record.labels.get(task) for task in tasks):
        if isinstance(label, Pair):
            return TextPair(record.text, label.text)
    return record.text


def _similarity(prediction: Prediction) -> float:
    """Return the cosine of a pair's embeddings; 0 if a text has no words."""
    one, other = prediction.embedding, prediction.embedding2
    return 0.0 if one is None or other is None else cosine(one, other)


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the cosine of two vectors; 0 where one of them is zero."""
    norms = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0
