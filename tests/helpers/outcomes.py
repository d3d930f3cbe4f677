"""Evaluations without a model: gold labels and predictions as a test states them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from manyheads.data.records import Record
from manyheads.evaluation import EvaluationReport, Outcomes, TaskOutcomes
from manyheads.tasks import Result, Scheme, TaskSpec, spans_of
from manyheads.tasks.metrics import TaggedText


def tagged_text(tags: Sequence[str], scheme: Scheme = Scheme.BIO) -> TaggedText:
    """Read the entities off tags; their borders are counted in tokens."""
    if scheme is Scheme.PLAIN:
        return TaggedText(tuple(tags))
    places = [(i, i + 1) for i in range(len(tags))]
    return TaggedText(tuple(tags), frozenset(spans_of(tags, places, scheme)))


def evaluation_of(
    specs: Sequence[TaskSpec],
    records: Sequence[Record],
    results: Sequence[Mapping[str, Result]],
) -> EvaluationReport:
    """Score results for records, as `evaluate` does a model's."""
    outcomes = Outcomes(
        {spec.name: TaskOutcomes(spec) for spec in specs}, {spec.name: [] for spec in specs}
    )
    for row, (record, answers) in enumerate(zip(records, results, strict=True)):
        outcomes.records += 1
        for name, task in outcomes.tasks.items():
            answer: Any = answers.get(name)
            labelled = name in record.labels
            outcomes.correct[name].append(task.add(record, answer, row) if labelled else None)
    confidence = {
        name: found
        for name, task in outcomes.tasks.items()
        if (found := task.confidence(calibrated=False)) is not None
    }
    return EvaluationReport(
        "model", ("data.jsonl",), outcomes.evaluation(), outcomes, "", records, (), confidence
    )
