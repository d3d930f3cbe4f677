"""From gold labels and predictions to the report, without a model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from manyheads.data.records import Record, label_names
from manyheads.evaluation.evaluate import EvaluationReport
from manyheads.evaluation.report.advice import findings, verdict
from manyheads.evaluation.report.confidence import SCORE_DIGITS, confidence_of
from manyheads.evaluation.report.data import (
    FAR,
    MAX_ERRORS,
    MAX_LABELS,
    MAX_POINTS,
    MAX_TEXT,
    Cell,
    Epoch,
    ErrorRecord,
    LabelScore,
    Neighbour,
    Report,
    SentenceMap,
    TaskAnswer,
    TaskReport,
)
from manyheads.evaluation.report.geometry import nearest_rows, sentence_plane
from manyheads.evaluation.report.slices import (
    TrainingWords,
    label_frequency,
    record_slices,
    task_slices,
)
from manyheads.evaluation.scoring import Outcomes, TaskOutcomes
from manyheads.evaluation.statistics import bootstrap_interval
from manyheads.sampling import spread
from manyheads.tasks import Decision
from manyheads.tasks.metrics import Ratio, frames_of, numbers

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Embeds texts as [N, E]; a text without words becomes zeros."""

MAX_EMBEDDED = 1000
"""Errors with neighbours."""
MAX_TRAINING = 10_000
"""Training sentences among which neighbours are looked for."""
_NEIGHBOURS = 3
INTERVALS = 40
"""Labels with an interval: those in most errors."""
_LABEL_RESAMPLES = 2000
_SHORT = 160


@dataclass(frozen=True)
class Surroundings:
    """Optional material for a report: training data, embeddings and the training run."""

    training: Sequence[Record] | None = None
    embed: Embed | None = None
    epochs: tuple[Epoch, ...] = ()
    notes: tuple[str, ...] = ()


def make_report(
    evaluated: EvaluationReport,
    fields: Sequence[str] = (),
    surroundings: Surroundings | None = None,
) -> Report:
    """Make the report of an evaluation.

    Args:
        evaluated: the evaluation.
        fields: custom fields to slice by; the records keep their values.
        surroundings: training data, embeddings and the training run, if available.
    """
    beside = surroundings or Surroundings()
    records, outcomes = evaluated.records, evaluated.outcomes
    training = None if beside.training is None else TrainingWords(beside.training)
    slices = record_slices(records, fields, training)
    decided = {name: decisions_of(task) for name, task in outcomes.tasks.items() if task.gold}
    tasks = tuple(
        _task_report(name, evaluated, decided[name], slices, training) for name in decided
    )
    wrong = wrong_answers(outcomes, decided)
    listed = spread(sorted(wrong), MAX_ERRORS)
    errors = tuple(_error_record(row, records[row], wrong[row], slices[row]) for row in listed)
    near = beside.training if beside.embed is not None else None
    sentences = None
    if beside.embed is not None:
        sentences = _sentence_map(records, tuple(decided), wrong, beside.embed)
        errors = _with_neighbours(errors, records, near or (), beside.embed)
    return Report(
        evaluated.model,
        evaluated.data,
        evaluated.to_json(),
        _frame_interval(outcomes),
        tasks,
        errors,
        len(wrong),
        sentences,
        beside.epochs,
        (*beside.notes, *_limit_notes(len(wrong), len(errors), len(near or ()))),
    )


def _limit_notes(wrong: int, listed: int, training: int) -> Iterator[str]:
    """Yield what is left out: errors, their neighbours, and training sentences among those."""
    if listed < wrong:
        yield (
            f"{listed:,} of the {wrong:,} records with an error are listed, spread evenly; "
            "`manyheads evaluate --errors FILE` writes all of them"
        )
    if training and listed > MAX_EMBEDDED:
        yield f"the first {MAX_EMBEDDED:,} errors have their nearest training sentences"
    if training > MAX_TRAINING:
        yield (
            f"the nearest of {MAX_TRAINING:,} training sentences, spread evenly over all "
            f"{training:,}"
        )


def decisions_of(task: TaskOutcomes) -> list[tuple[Decision, ...]]:
    """Return the decisions of each sentence of a task."""
    kind, spec = task.kind, task.spec
    rows = zip(task.gold, task.predicted, task.scores, strict=True)
    return [kind.decisions(spec, gold, found, scores) for gold, found, scores in rows]


def wrong_answers(
    outcomes: Outcomes, decided: Mapping[str, Sequence[tuple[Decision, ...]]]
) -> dict[int, dict[str, TaskAnswer]]:
    """Return the wrong answers by record and task.

    Of a task with numbers they are the `FAR` answers that are farthest from the right number.
    """
    wrong: dict[int, dict[str, TaskAnswer]] = {}
    for name, decisions in decided.items():
        task = outcomes.tasks[name]
        kind, spec = task.kind, task.spec
        far = _far(task)
        for i, row in enumerate(task.rows):
            bad = [(d.gold, d.predicted, d.error, d.follows) for d in decisions[i] if d.error]
            if bad or i in far:
                wrong.setdefault(row, {})[name] = TaskAnswer(
                    kind.shown(spec, task.gold[i]),
                    kind.shown(spec, task.predicted[i]),
                    tuple(round(score, SCORE_DIGITS) for score in task.scores[i]),
                    tuple(bad or [(None, None, "far off", False)]),
                )
    return wrong


def _far(task: TaskOutcomes) -> set[int]:
    distances = task.kind.distances(task.spec, task.gold, task.predicted)
    known = [(-d, i) for i, d in enumerate(distances) if d]
    return {i for _, i in sorted(known)[:FAR]}


def _task_report(
    name: str,
    evaluated: EvaluationReport,
    decisions: Sequence[tuple[Decision, ...]],
    slices: Sequence[Mapping[str, str]],
    training: TrainingWords | None,
) -> TaskReport:
    task = evaluated.outcomes.tasks[name]
    metrics: Mapping[str, Any] = evaluated.evaluation["tasks"][name]
    flat = [decision for some in decisions for decision in some]
    metric = task.kind.metric_of(task.spec)
    ratio = task.ratio()
    low, high = (None, None) if ratio is None else bootstrap_interval(ratio)
    counted = training.labels.get(name) if training is not None else None
    labels = _label_scores(metrics, flat, counted)
    shown = [_with_interval(one, decisions) for one in labels[:INTERVALS]]
    shown += labels[INTERVALS:MAX_LABELS]
    confidence = confidence_of(flat)
    found = findings(shown, flat)
    values = []
    for row in task.rows:
        frequency = label_frequency(name, evaluated.records[row], training)
        own = {} if frequency is None else {"rarest label in training": frequency}
        values.append({**slices[row], **own})
    value = float(metrics[metric])
    return TaskReport(
        name=name,
        kind=task.spec.kind,
        measured_in=task.kind.measured_in,
        metric=metric,
        score=value,
        low=low,
        high=high,
        records=len(task.gold),
        metrics=numbers(metrics),
        labels=tuple(shown),
        hidden_labels=len(labels) - len(shown),
        errors=dict(Counter(d.error for d in flat if d.error and not d.follows).most_common()),
        cells=_cells(flat, {one.label for one in shown}),
        confidence=confidence,
        slices=task_slices(task, values),
        findings=found,
        verdict=verdict(
            name, (metric, value, low, high), len(task.gold), labels, found, confidence
        ),
    )


def _label_scores(
    metrics: Mapping[str, Any], decisions: Sequence[Decision], training: Mapping[str, int] | None
) -> list[LabelScore]:
    """Return the labels' scores as the evaluation has them, those in most errors first."""
    errors = Counter(
        label for d in decisions if d.error for label in {d.gold, d.predicted} if label is not None
    )
    reports = metrics.get("per_class", metrics.get("per_type", {}))
    scores = [
        LabelScore(
            label,
            one["precision"],
            one["recall"],
            one["f1"],
            one["support"],
            errors[label],
            None if training is None else training.get(label, 0),
        )
        for label, one in reports.items()
    ]
    return sorted(scores, key=lambda one: (-one.errors, one.f1))


def _with_interval(score: LabelScore, decisions: Sequence[tuple[Decision, ...]]) -> LabelScore:
    """Add the interval of a label's F1, where its decisions add up to its scores."""
    label = score.label
    hits = np.zeros(len(decisions))
    asked = np.zeros(len(decisions))
    for i, some in enumerate(decisions):
        for one in some:
            hits[i] += not one.error and one.gold == label
            asked[i] += (one.gold == label) + (one.predicted == label)
    ratio = Ratio(2 * hits, asked)
    if not asked.sum() or abs(ratio.value() - score.f1) > 1e-9:
        return score
    low, high = bootstrap_interval(ratio, resamples=_LABEL_RESAMPLES)
    return replace(score, low=low, high=high)


def _cells(decisions: Sequence[Decision], shown: set[str]) -> tuple[Cell, ...]:
    counts = Counter((d.gold, d.predicted, d.error == "") for d in decisions)
    cells: Counter[tuple[str | None, str | None]] = Counter()
    for (gold, predicted, is_right), count in counts.items():
        # A right type with wrong borders is neither on the diagonal nor a confusion of types.
        if gold == predicted and not is_right:
            cells[gold, None] += count
            cells[None, predicted] += count
        else:
            cells[gold, predicted] += count
    return tuple(
        Cell(gold, predicted, count)
        for (gold, predicted), count in cells.most_common()
        if {gold, predicted} - {None} <= shown
    )


def _frame_interval(outcomes: Outcomes) -> tuple[float, float] | None:
    frames = frames_of(outcomes.correct)
    if all(frame is None for frame in frames):
        return None
    return bootstrap_interval(Ratio.accuracy(frames))


def _error_record(
    row: int, record: Record, answers: Mapping[str, TaskAnswer], slices: Mapping[str, str]
) -> ErrorRecord:
    first, *others = record.texts
    second = others[0] if others else None
    is_cut = any(len(text) > MAX_TEXT for text in record.texts)
    return ErrorRecord(
        row, record.where, first[:MAX_TEXT], second[:MAX_TEXT] if second is not None else None,
        is_cut, {name: _within(answer) for name, answer in answers.items()}, slices,
    )  # fmt: skip


def _within(answer: TaskAnswer) -> TaskAnswer:
    """Leave out the entities beyond the text that is shown, and cut what is too long."""

    def cut(value: Any) -> Any:
        if isinstance(value, str):
            return value[:MAX_TEXT]
        if isinstance(value, list):
            inside = [v for v in value if not isinstance(v, dict) or v.get("end", 0) <= MAX_TEXT]
            return inside[:MAX_TEXT]
        return value

    return TaskAnswer(
        cut(answer.gold), cut(answer.predicted), answer.scores[:MAX_TEXT], answer.wrong[:MAX_TEXT]
    )


def _with_neighbours(
    errors: tuple[ErrorRecord, ...],
    records: Sequence[Record],
    training: Sequence[Record],
    embed: Embed,
) -> tuple[ErrorRecord, ...]:
    known = [training[i] for i in spread(range(len(training)), MAX_TRAINING)]
    some = errors[:MAX_EMBEDDED]
    if not some or not known:
        return errors
    vectors = embed([records[error.row].text for error in some])
    rows, cosines = nearest_rows(vectors, embed([record.text for record in known]), _NEIGHBOURS)
    found = []
    for error, near, close in zip(some, rows.tolist(), cosines.tolist(), strict=True):
        neighbours = tuple(
            Neighbour(
                known[i].text[: 2 * _SHORT], _labels_in_words(known[i]), round(float(cosine), 3)
            )
            for i, cosine in zip(near, close, strict=True)
        )
        found.append(replace(error, near=neighbours))
    return (*found, *errors[MAX_EMBEDDED:])


def _labels_in_words(record: Record) -> str:
    parts = []
    for task, label in record.labels.items():
        spans = record.spans(task)
        shown = [f"{record.text[s.start : s.end]} ({s.label})" for s in spans] or label_names(label)
        parts.append(f"{task}: {', '.join(shown) or 'none'}")
    return "; ".join(parts)[: 2 * _SHORT]


def _sentence_map(
    records: Sequence[Record],
    tasks: Sequence[str],
    wrong: Mapping[int, Mapping[str, Any]],
    embed: Embed,
) -> SentenceMap | None:
    chosen = spread(range(len(records)), MAX_POINTS)
    vectors = embed([records[i].text for i in chosen])
    known = np.any(vectors != 0, axis=1)
    rows = [row for row, is_known in zip(chosen, known.tolist(), strict=True) if is_known]
    if len(rows) < 3:
        return None
    points, explained = sentence_plane(vectors[known])
    names = {task: tuple(_first_label(records[i], task) for i in rows) for task in tasks}
    return SentenceMap(
        x=tuple(points[:, 0].astype(float).round(4).tolist()),
        y=tuple(points[:, 1].astype(float).round(4).tolist()),
        texts=tuple(records[i].text[:_SHORT] for i in rows),
        labels={task: labels for task, labels in names.items() if any(labels)},
        wrong={task: tuple(task in wrong.get(i, ()) for i in rows) for task in tasks},
        explained=explained,
    )


def _first_label(record: Record, task: str) -> str | None:
    names = label_names(record.labels.get(task))
    return names[0] if names else None
