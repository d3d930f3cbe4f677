"""Scoring a predictor on labelled records: the same whatever computes its logits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.data.records import Record
from manyheads.evaluation.statistics import Ratio
from manyheads.inference import Predictor
from manyheads.tasks import (
    ClassResult,
    MultilabelResult,
    Pair,
    Prediction,
    Result,
    Scheme,
    TaggingResult,
    TaskSpec,
    spans_of,
    tags_of,
)
from manyheads.tasks.metrics import (
    NO_ANSWER,
    UNKNOWN,
    Evaluation,
    TaskMetrics,
    classification_counts,
    classification_metrics,
    frame_accuracy,
    multilabel_counts,
    multilabel_metrics,
    similarity_metrics,
    tagging_counts,
    tagging_metrics,
)

_CHUNK = 4096


@dataclass
class TaskOutcomes:
    """Gold labels and predictions of one task, sentence by sentence."""

    spec: TaskSpec
    gold: list[Any] = field(default_factory=list)
    predicted: list[Any] = field(default_factory=list)

    def add(self, record: Record, result: Result | float) -> bool | None:
        """Add a labelled record; tell whether the prediction is right altogether.

        Of the similarity of a pair nobody can say that it is right: None.
        """
        label = record.labels[self.spec.name]
        if isinstance(label, Pair):
            self.gold.append(label.score)
            self.predicted.append(result)
            return None
        gold: object
        predicted: object
        if isinstance(result, TaggingResult):
            gold, predicted = _tags(self.spec, record, result)
        elif isinstance(result, MultilabelResult):
            names = label if isinstance(label, tuple) else ()
            gold = frozenset(self._index(str(name)) for name in names)
            predicted = frozenset(one.id for one in result.labels)
        else:
            assert isinstance(result, ClassResult)
            gold = self._index(str(label))
            predicted = NO_ANSWER if result.id is None else result.id
        self.gold.append(gold)
        self.predicted.append(predicted)
        return bool(gold == predicted)

    def _index(self, name: str) -> int:
        return self.spec.labels.index(name) if name in self.spec.labels else UNKNOWN

    def metrics(self) -> TaskMetrics:
        """Reduce the outcomes to the metrics of the task's kind."""
        if not self.spec.answers:
            return similarity_metrics(self.gold, self.predicted)
        if self.spec.scheme is not None:
            return tagging_metrics(self.gold, self.predicted, self.spec.scheme)
        if self.spec.threshold is not None:
            return multilabel_metrics(self.gold, self.predicted, self.spec.labels)
        return classification_metrics(self.gold, self.predicted, self.spec.labels)

    def ratio(self) -> Ratio:
        """Write the task's main metric as a sum over sentences divided by another.

        There is none for a task of pairs, whose metric is a correlation.
        """
        gold, predicted = self.gold, self.predicted
        if self.spec.scheme is Scheme.PLAIN:
            pairs = list(zip(gold, predicted, strict=True))
            right = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in pairs]
            return Ratio(np.array(right, np.float64), np.array([len(g) for g in gold], np.float64))
        if self.spec.scheme is not None:
            return Ratio.f1(tagging_counts(gold, predicted, self.spec.scheme))
        if self.spec.threshold is not None:
            return Ratio.f1(multilabel_counts(gold, predicted, self.spec.labels))
        return Ratio.accuracy(classification_counts(gold, predicted).correct)


@dataclass
class Outcomes:
    """Gold labels and predictions of all tasks."""

    tasks: dict[str, TaskOutcomes]
    correct: dict[str, list[bool | None]]
    """By task and record whether all of it is right; None where the record is unlabelled or a pair
    of sentences."""
    records: int = 0

    def evaluation(self) -> Evaluation:
        """Reduce the outcomes to metrics."""
        return Evaluation(
            tasks={name: task.metrics() for name, task in self.tasks.items() if task.gold},
            frame_accuracy=frame_accuracy(self.correct),
            records=self.records,
        )


def score(predictor: Predictor, sets: Iterable[tuple[Iterable[Record], Sequence[str]]]) -> Outcomes:
    """Predict for labelled records and keep what was right.

    Args:
        predictor: the model.
        sets: records, each set with the tasks to score on it.
    """
    specs = {spec.name: spec for spec in predictor.specs}
    scored = [(records, tuple(tasks)) for records, tasks in sets]
    names = [name for name in specs if any(name in tasks for _, tasks in scored)]
    outcomes = Outcomes({n: TaskOutcomes(specs[n]) for n in names}, {n: [] for n in names})
    for records, tasks in scored:
        for record, results in _predicted(predictor, records, tasks):
            outcomes.records += 1
            for name in names:
                labelled = name in tasks and name in record.labels
                outcomes.correct[name].append(
                    outcomes.tasks[name].add(record, results[name]) if labelled else None
                )
    return outcomes


def _predicted(
    predictor: Predictor, records: Iterable[Record], tasks: Sequence[str]
) -> Iterator[tuple[Record, Mapping[str, Result | float]]]:
    """Yield records with each task's result; of a task of pairs, the cosine of their embeddings."""
    specs = [spec for spec in predictor.specs if spec.name in tasks]
    answering = [spec.name for spec in specs if spec.answers]
    pairs = [spec.name for spec in specs if not spec.answers]
    iterator = iter(records)
    while chunk := list(islice(iterator, _CHUNK)):
        texts = [record.text for record in chunk]
        predictions = predictor.predict(texts, tasks=answering, embed=bool(pairs))
        cosines = [_cosines(predictor, name, chunk, predictions) for name in pairs]
        for i, (record, prediction) in enumerate(zip(chunk, predictions, strict=True)):
            similar = {name: row[i] for name, row in zip(pairs, cosines, strict=True) if i in row}
            yield record, {**prediction.results, **similar}


def _cosines(
    predictor: Predictor, task: str, records: Sequence[Record], firsts: Sequence[Prediction]
) -> dict[int, float]:
    """Embed the second sentences of pairs; returns by the record's number the pair's cosine."""
    labels = {i: record.labels.get(task) for i, record in enumerate(records)}
    pairs = {i: label for i, label in labels.items() if isinstance(label, Pair)}
    seconds = predictor.predict([pair.text for pair in pairs.values()], tasks=[], embed=True)
    cosines = {}
    for i, second in zip(pairs, seconds, strict=True):
        one, other = firsts[i].embedding, second.embedding
        # A text without words has no embedding, and is similar to nothing.
        cosines[i] = 0.0 if one is None or other is None else cosine(one, other)
    return cosines


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Return the cosine of two vectors; 0 where one of them is zero."""
    norms = float(np.linalg.norm(one)) * float(np.linalg.norm(other))
    return float(one @ other) / norms if norms else 0.0


def _tags(spec: TaskSpec, record: Record, result: TaggingResult) -> tuple[list[str], list[str]]:
    """Put gold and predicted labels on the record's own tokens, or else on the words found."""
    scheme = spec.scheme or Scheme.BIO
    words = [(token.start, token.end) for token in result.tokens]
    tokens = record.tokens if record.tokens is not None else words
    predicted = spans_of([token.tag for token in result.tokens], words, scheme)
    return tags_of(record.spans(spec.name), tokens, scheme), tags_of(predicted, tokens, scheme)
