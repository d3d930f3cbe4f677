"""An evaluation in sentences: how good each task is, and which of its labels are the weakest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from manyheads.tasks import TaskSpec, kind_of
from manyheads.tasks.results import percent_of

GOOD = 0.9
"""The F1 from which a label is not called weak."""
_WEAKEST = 3


def in_words(tasks: Mapping[str, Mapping[str, Any]], specs: Mapping[str, TaskSpec]) -> list[str]:
    """Describe each task's metrics in a sentence, with its weakest labels.

    Args:
        tasks: the metrics of each task, as in `Evaluation`.
        specs: the tasks, by name.
    """
    return [_task(metrics, specs[name]) for name, metrics in tasks.items()]


def _task(metrics: Mapping[str, Any], spec: TaskSpec) -> str:
    if template := kind_of(spec.kind).sentence(spec):
        sentence = template.format(**{key: _shown(value) for key, value in metrics.items()})
    else:
        sentence = f"{spec.main_metric} {metrics[spec.main_metric]:.4f}"
    reports = metrics.get("per_class", metrics.get("per_type")) or {}
    weak = sorted(
        (report["f1"], label, report["support"])
        for label, report in reports.items()
        if report["support"] and report["f1"] < GOOD
    )[:_WEAKEST]
    shown = ", ".join(f"{label} (F1 {f1:.2f} of {support:,})" for f1, label, support in weak)
    return f"{spec.name}: {sentence}" + (f"; weakest: {shown}" if shown else "")


class _Metric(float):
    """A metric in a kind's sentence, in which a percentage hides no error by rounding."""

    def __format__(self, form: str) -> str:
        return percent_of(self) if form == ".0%" else super().__format__(form)


def _shown(value: object) -> object:
    return _Metric(value) if isinstance(value, float) else value
