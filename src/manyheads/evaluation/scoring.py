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

    @property
    def kind(self) -> Kind:
        """The task's kind."""
        return kind_of(self.spec.kind)

    def add(self, record: Record, result: Result | float, row: int = 0) -> bool | None:
        """Add a labelled record; return whether the whole prediction is right.

        None if the kind's results are neither right nor wrong.

        Args:
            record: the record.
            result: what was predicted for it.
            row: its number among all scored records.
        """
        label = record.labels[self.spec.name]
        gold, predicted = self.kind.outcome(self.spec, label, record.tokens, result)
        self.gold.append(gold)
        self.predicted.append(predicted)
        self.scores.append(tuple(result.scores()) if isinstance(result, Result) else ())
        self.rows.append(row)
        return bool(gold == predicted) if self.kind.decides else None

    def keep(self, record: Record, result: Recorded | Result | float) -> None:
        """Keep what calibration learns from a labelled record; nothing without an answer."""
        found = None
        if isinstance(result, Recorded):
            label = record.labels[self.spec.name]
            found = self.kind.evidence(self.spec, label, record.tokens, result.plain, result.logits)
        self.evidence.append(found)

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
    """By task and record, whether the whole prediction is right; None for an unlabelled record or a
    pair of sentences."""
    records: int = 0
    seen: dict[int, tuple[NDArray[np.float32], NDArray[np.float32]]] = field(default_factory=dict)
    """By record, the embedding and the logits of the task that tells the scope, if kept."""

    @property
    def scope_task(self) -> TaskOutcomes | None:
        """The task by which texts can be known to be in scope: the first of exclusive classes."""
        return next((task for task in self.tasks.values() if task.kind.scopes), None)

    def without(self, rows: Set[int]) -> Outcomes:
        """Return the outcomes of all but some records."""
        return Outcomes({n: task.without(rows) for n, task in self.tasks.items()}, {})

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
        evidence: whether to keep what calibration learns from.
    """
    specs = {spec.name: spec for spec in predictor.specs}
    scored = [(records, tuple(tasks)) for records, tasks in sets]
    names = [name for name in specs if any(name in tasks for _, tasks in scored)]
    outcomes = Outcomes({n: TaskOutcomes(specs[n]) for n in names}, {n: [] for n in names})
    for records, tasks in scored:
        for record, results, seen in _predicted(predictor, records, tasks):
            row, outcomes.records = outcomes.records, outcomes.records + 1
            if evidence and seen is not None:
                outcomes.seen[row] = seen
            for name in names:
                if name not in tasks or name not in record.labels:
                    outcomes.correct[name].append(None)
                    continue
                task, result = outcomes.tasks[name], results[name]
                plain = result.result if isinstance(result, Recorded) else result
                outcomes.correct[name].append(task.add(record, plain, row))
                if evidence:
                    task.keep(record, result)
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
