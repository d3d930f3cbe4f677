"""Slices: properties of records by which scores are compared."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from manyheads.data.records import Record, label_names
from manyheads.evaluation.report.data import MAX_SLICES, Slice
from manyheads.evaluation.scoring import TaskOutcomes
from manyheads.evaluation.statistics import bootstrap_interval
from manyheads.tasks.metrics import Ratio
from manyheads.text import script_of, segment

_LENGTHS = (
    (5, "1 to 5 words"),
    (10, "6 to 10 words"),
    (20, "11 to 20 words"),
    (50, "21 to 50 words"),
)
_FREQUENCIES = (
    (0, "never"),
    (9, "1 to 9 records"),
    (49, "10 to 49 records"),
    (249, "50 to 249 records"),
)
_RESAMPLES = 2000
OTHER = "(other values)"
NO_VALUE = "(no value)"


class TrainingWords:
    """The words and label counts of the training data.

    Args:
        records: all training records.
    """

    def __init__(self, records: Iterable[Record]) -> None:
        self.words: set[str] = set()
        self.labels: dict[str, Counter[str]] = {}
        for record in records:
            for text in record.texts:
                self.words.update(_words(text.lower()))
            for task, label in record.labels.items():
                self.labels.setdefault(task, Counter()).update(set(label_names(label)))


def record_slices(
    records: Sequence[Record], fields: Sequence[str], training: TrainingWords | None
) -> list[dict[str, str]]:
    """Return the values of each record's properties, without those that depend on the task.

    Args:
        records: the records, which keep the values of `fields`.
        fields: the custom fields to slice by.
        training: the training data, if available.
    """
    columns: dict[str, list[str]] = {
        "length": [_between(len(_words(r.text)), _LENGTHS, "51 words or more") for r in records],
        "script": [script_of(record.text) or "(no letter)" for record in records],
    }
    if training is not None:
        words = training.words
        columns["words unseen in training"] = [_unseen(record, words) for record in records]
    for i, name in enumerate(fields):
        columns[name] = _frequent([_shown(record.kept[i]) for record in records])
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def label_frequency(task: str, record: Record, training: TrainingWords | None) -> str | None:
    """Return the frequency of a record's rarest label in the training data; None if unknown."""
    names = label_names(record.labels[task])
    if training is None or not names or task not in training.labels:
        return None
    counts = training.labels[task]
    return _between(min(counts[name] for name in names), _FREQUENCIES, "250 records or more")


def task_slices(
    outcomes: TaskOutcomes, values: Sequence[Mapping[str, str]]
) -> dict[str, tuple[Slice, ...]]:
    """Score a task on each value of each property; properties with one value are left out.

    Args:
        outcomes: of the task.
        values: the properties of each of its sentences.
    """
    measure = _measure(outcomes)
    slices = {}
    for name in dict.fromkeys(name for row in values for name in row):
        groups: dict[str, list[int]] = {}
        for i, row in enumerate(values):
            if name in row:
                groups.setdefault(row[name], []).append(i)
        if len(groups) > 1:
            slices[name] = tuple(measure(v, groups[v]) for v in sorted(groups, key=_order))
    return slices


def _measure(outcomes: TaskOutcomes) -> Callable[[str, Sequence[int]], Slice]:
    ratio = outcomes.ratio()
    kind, spec = outcomes.kind, outcomes.spec

    def by_ratio(value: str, members: Sequence[int]) -> Slice:
        assert ratio is not None
        rows = np.array(members)
        part = Ratio(ratio.numerator[rows], ratio.denominator[rows])
        low, high = bootstrap_interval(part, resamples=_RESAMPLES)
        return Slice(value, len(members), part.value(), low, high)

    def by_metrics(value: str, members: Sequence[int]) -> Slice:
        gold = [outcomes.gold[i] for i in members]
        predicted = [outcomes.predicted[i] for i in members]
        metrics = kind.measure(spec, gold, predicted)
        return Slice(value, len(members), float(metrics[kind.metric_of(spec)]))

    return by_metrics if ratio is None else by_ratio


def _words(text: str) -> list[str]:
    """Return the words of a text without punctuation and symbols."""
    words = [text[start:end] for start, end in segment(text).tolist()]
    return [word for word in words if any(map(str.isalnum, word))]


def _between(number: int, limits: Iterable[tuple[int, str]], more: str) -> str:
    return next((name for limit, name in limits if number <= limit), more)


def _order(value: str) -> tuple[int, int, str]:
    number = re.match(r"\d+", value)
    rank = 3 if value in (OTHER, NO_VALUE) else 0 if value == "never" else 1
    return (rank, int(number[0]) if number else 0, value)


def _unseen(record: Record, words: set[str]) -> str:
    missing = sum(w not in words for text in record.texts for w in _words(text.lower()))
    return "none" if not missing else "1 word" if missing == 1 else "2 words or more"


def _shown(value: object) -> str:
    return NO_VALUE if value is None else str(value)[:80]


def _frequent(values: list[str]) -> list[str]:
    known = {value for value, _ in Counter(values).most_common(MAX_SLICES)}
    return [value if value in known else OTHER for value in values]
