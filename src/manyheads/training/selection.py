"""Model selection: one number for each evaluation, and the Pareto front of the epochs.

Scores are main metrics by task; higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from manyheads.config import Config
from manyheads.tasks.metrics import Evaluation, numbers

Scores = Mapping[str, float]

_CORRELATIONS = frozenset({"pearson", "spearman"})
"""Metrics from -1 to 1."""


def main_scores(evaluation: Evaluation, main: Mapping[str, str]) -> dict[str, float]:
    """Return each task's main metric.

    Args:
        evaluation: an epoch's metrics on the validation data.
        main: each task's main metric.
    """
    return {task: numbers(metrics)[main[task]] for task, metrics in evaluation["tasks"].items()}


def best_value(config: Config, evaluation: Evaluation, main: Mapping[str, str]) -> float:
    """Reduce an evaluation to the number that selects the best model (`best_metric`)."""
    parts = _parts(config, evaluation, main).values()
    return sum(part.weight * part.score for part in parts) / sum(part.weight for part in parts)


def chance(
    config: Config, evaluation: Evaluation, main: Mapping[str, str], records: Mapping[str, int]
) -> float:
    """Return the standard error of the number that selects the best model.

    Args:
        config: the run.
        evaluation: an epoch's metrics on the validation data.
        main: each task's main metric.
        records: each task's number of validation records.
    """
    parts = _parts(config, evaluation, main)
    errors = (
        part.weight * standard_error(part.metric, part.score, records[task])
        for task, part in parts.items()
    )
    return math.hypot(*errors) / sum(part.weight for part in parts.values())


def standard_error(metric: str, score: float, records: int) -> float:
    """Return about how far chance moves a metric: its standard error on so many records.

    A metric from 0 to 1 is taken as a share of the records, with one more right and one more wrong
    (Laplace), so that a score of 1 has an error too; a correlation r has (1 - r²) / √n. Other
    metrics have 0: their scale is not known.
    """
    if not records or not math.isfinite(score):
        return 0.0
    if metric in _CORRELATIONS:
        return (1 - score * score) / math.sqrt(records)
    if not 0 <= score <= 1:
        return 0.0
    share = (score * records + 1) / (records + 2)
    return math.sqrt(share * (1 - share) / records)


@dataclass(frozen=True, slots=True)
class _Part:
    """A task's part of the number that selects the best model."""

    weight: float
    metric: str
    score: float


def _parts(config: Config, evaluation: Evaluation, main: Mapping[str, str]) -> dict[str, _Part]:
    """Return the tasks that select the best model."""
    scores = main_scores(evaluation, main)
    name, _, metric = config.best_metric.partition(".")
    if name == "mean":
        return {task: _Part(1.0, main[task], score) for task, score in scores.items()}
    if name == "weighted":
        weights = config.best_weights or {n: task.weight for n, task in config.tasks.items()}
        return {
            task: _Part(weights.get(task, 0.0), main[task], score) for task, score in scores.items()
        }
    if metric:
        return {name: _Part(1.0, metric, numbers(evaluation["tasks"][name])[metric])}
    return {name: _Part(1.0, main[name], scores[name])}


def pareto_front(points: Sequence[Scores]) -> list[int]:
    """Return the indices of the points that no other point dominates, in order.

    A point dominates another if it is at least as good in all tasks and better in one. Of equal
    points only the last is returned, as for the best model.
    """
    return [
        i
        for i, one in enumerate(points)
        if not any(
            _at_least(other, one) and (other != one or j > i)
            for j, other in enumerate(points)
            if j != i
        )
    ]


def _at_least(one: Scores, other: Scores) -> bool:
    return all(one[task] >= other[task] for task in other)


def trade_off(points: Sequence[Scores]) -> str | None:
    """Describe the Pareto front of the epochs; None if one epoch is the best for all tasks.

    Args:
        points: each epoch's scores.
    """
    front = pareto_front(points)
    if len(front) < 2:
        return None
    epochs = "; ".join(
        f"epoch {i + 1} ({', '.join(f'{task} {score:.4f}' for task, score in points[i].items())})"
        for i in front
    )
    return f"No epoch is the best for every task. These are on the Pareto front: {epochs}."
