"""Two models on the same records: what changed, and whether it can be chance."""

from __future__ import annotations

from math import comb
from statistics import NormalDist
from typing import Any

from manyheads.errors import RequestError, listing, option
from manyheads.evaluation.evaluate import EvaluationReport
from manyheads.evaluation.report.data import MAX_TEXT, ChangedRecord, Changes, TaskChange
from manyheads.evaluation.scoring import Outcomes, TaskOutcomes
from manyheads.evaluation.statistics import paired_bootstrap

MAX_CHANGES = 1000
"""Records that are listed, of both directions together."""
_MANY = 1000
"""Changed records from which McNemar's test is taken from the normal distribution."""


def changes(before: EvaluationReport, after: EvaluationReport) -> Changes:
    """Compare two evaluations of the same data.

    Args:
        before: of the model to compare with.
        after: of the model that the report is about.

    Raises:
        RequestError: they have no task in common, or were scored on other records.
    """
    first, second = before.outcomes, after.outcomes
    shared = [n for n, t in second.tasks.items() if t.gold and n in first.tasks]
    if not shared:
        raise RequestError(
            f"{before.model} has none of the tasks {listing(second.tasks)}",
            expected="two models with a task in common",
            fix=f"Name other models, or the tasks to compare: {option('--task NAME', '`tasks`')}.",
        )
    same = [r.texts for r in before.records] == [r.texts for r in after.records]
    if not same or any(first.tasks[n].rows != second.tasks[n].rows for n in shared):
        raise RequestError(
            "the two models were scored on different records",
            expected="the same labelled data for both",
            fix=f"Name them: {option('--file FILE', '`data`')}.",
        )
    tasks = []
    listed: list[ChangedRecord] = []
    unlisted = 0
    for name in shared:
        one, other = first.tasks[name], second.tasks[name]
        better, worse = _flips(first, second, name)
        tasks.append(_task(name, one, other, len(better), len(worse)))
        for rows, is_better in ((worse, False), (better, True)):
            room = MAX_CHANGES // (2 * len(shared))
            unlisted += max(0, len(rows) - room)
            listed += [_record(after, name, one, other, row, is_better) for row in rows[:room]]
    return Changes(before.model, tuple(tasks), tuple(listed), unlisted)


def _flips(first: Outcomes, second: Outcomes, task: str) -> tuple[list[int], list[int]]:
    """Return the records that became right, and those that became wrong."""
    pairs = list(zip(first.correct[task], second.correct[task], strict=True))
    better = [row for row, pair in enumerate(pairs) if pair == (False, True)]
    worse = [row for row, pair in enumerate(pairs) if pair == (True, False)]
    return better, worse


def _task(name: str, one: TaskOutcomes, other: TaskOutcomes, better: int, worse: int) -> TaskChange:
    metric = other.kind.metric_of(other.spec)
    before, after = float(one.metrics()[metric]), float(other.metrics()[metric])
    low = high = None
    ratios = one.ratio(), other.ratio()
    if ratios[0] is not None and ratios[1] is not None:
        paired = paired_bootstrap(ratios[0], ratios[1])
        low, high = paired.low, paired.high
    p_value = mcnemar(better, worse) if other.kind.decides else None
    return TaskChange(name, metric, before, after, low, high, better, worse, p_value)


def mcnemar(better: int, worse: int) -> float:
    """Return how probable so uneven changes are where both models are equally good.

    McNemar's exact test (1947): records that became right against those that became wrong, by the
    binomial distribution, two-sided; of very many changes its normal approximation.
    """
    total = better + worse
    if not total:
        return 1.0
    if total > _MANY:
        z = max(0.0, abs(better - worse) - 1) / total**0.5
        return 2 * (1 - NormalDist().cdf(z))
    tail: int = sum(comb(total, k) for k in range(min(better, worse) + 1))
    return float(min(1.0, 2 * tail / 2**total))


def _record(
    after: EvaluationReport,
    task: str,
    one: TaskOutcomes,
    other: TaskOutcomes,
    row: int,
    is_better: bool,
) -> ChangedRecord:
    record, place = after.records[row], other.rows.index(row)
    return ChangedRecord(
        row, record.where, record.text[:MAX_TEXT], task, is_better,
        _shown(other, other.gold[place]), _shown(one, one.predicted[place]),
        _shown(other, other.predicted[place]),
    )  # fmt: skip


def _shown(task: TaskOutcomes, value: Any) -> Any:
    """Return an answer by the names of the model that gave it, within the text that is shown."""
    found = task.kind.shown(task.spec, value)
    if isinstance(found, list):
        return [v for v in found if not isinstance(v, dict) or v.get("end", 0) <= MAX_TEXT]
    return found[:MAX_TEXT] if isinstance(found, str) else found
