"""Model selection: one number for each evaluation, and the Pareto front of the epochs.

Scores are main metrics by task; higher is better.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from manyheads.config import Config
from manyheads.tasks.metrics import Evaluation, numbers

Scores = Mapping[str, float]


def main_scores(evaluation: Evaluation, main: Mapping[str, str]) -> dict[str, float]:
    """Return each task's main metric.

    Args:
        evaluation: an epoch's metrics on the validation data.
        main: each task's main metric.
    """
    return {task: numbers(metrics)[main[task]] for task, metrics in evaluation["tasks"].items()}


def best_value(config: Config, evaluation: Evaluation, main: Mapping[str, str]) -> float:
    """Reduce an evaluation to the number that selects the best model (`best_metric`)."""
    return sum(weight * score for weight, score in _parts(config, evaluation, main).values())


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
    return math.hypot(*(w * share_error(score, records[t]) for t, (w, score) in parts.items()))


def share_error(share: float, count: int) -> float:
    """Return the standard error of a metric from 0 to 1, taken as a share; of others 0.

    One more right and one more wrong answer are counted (Laplace), so that a score of 1 has an
    error too.
    """
    if not count or not 0 <= share <= 1:
        return 0.0
    share = (share * count + 1) / (count + 2)
    return math.sqrt(share * (1 - share) / count)


def _parts(
    config: Config, evaluation: Evaluation, main: Mapping[str, str]
) -> dict[str, tuple[float, float]]:
    """Return the tasks that select the best model: the weight and score of each."""
    scores = main_scores(evaluation, main)
    name, _, metric = config.best_metric.partition(".")
    if name == "mean":
        return {task: (1 / len(scores), score) for task, score in scores.items()}
    if name == "weighted":
        weights = config.best_weights or {n: task.weight for n, task in config.tasks.items()}
        total = sum(weights.values())
        return {task: (weights.get(task, 0.0) / total, score) for task, score in scores.items()}
    return {name: (1.0, numbers(evaluation["tasks"][name])[metric] if metric else scores[name])}


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
