"""Tables of calibrations and thresholds."""

from __future__ import annotations

from manyheads.display.tables import MAX_LABELS, Section, cell, make_table, share
from manyheads.errors import counted, option
from manyheads.evaluation import CalibrationReport, FoundThresholds, ThresholdReport
from manyheads.tasks.results import percent_of


def calibration_table(report: CalibrationReport) -> Section:
    """Show the calibration error of each task, before and after."""
    table = make_table(
        ["task", "backend", "method"], ["answers", "error before", "error after", "by chance"]
    )
    rows = [("all but int8", report.tasks), *report.backends.items()]
    for backend, tasks in rows:
        for name, task in tasks.items():
            table.add_row(
                cell(name), cell(backend), task.calibration.method, f"{task.answers:,}",
                share(task.error_before), share(task.error), share(task.error_by_chance),
            )  # fmt: skip
    note = (
        "the mean distance of scores from the share that is right; after: on parts left out; by "
        "chance: of perfect scores"
    )
    return Section(f"Calibrated {report.model}", table, note)


def threshold_tables(report: ThresholdReport) -> list[Section]:
    """Show each task's thresholds, and those of labels with their own."""
    return [_thresholds(report, name, found) for name, found in report.tasks.items()]


def _thresholds(report: ThresholdReport, name: str, found: FoundThresholds) -> Section:
    title = f"{name}: a precision of {found.precision:g}, certain to {found.confidence:g}"
    table = make_table(["label"], ["from score", "answers", "precision", "at least"])
    if found.task is None:
        note = (
            f"no score of {counted(report.records, 'record')} is high enough; no threshold is "
            f"stored. Ask for less, or use more labelled records ({option('--file', '`data`')})"
        )
        return Section(title, table, note)
    rows = {"all labels": found.task, **found.labels}
    for label, one in list(rows.items())[: MAX_LABELS + 1]:
        table.add_row(
            cell(label), share(one.score), f"{one.answers:,}", share(one.right / one.answers),
            share(one.low),
        )  # fmt: skip
    note = f"{percent_of(found.task.coverage)} of the answers reach the threshold of all labels"
    if found.raised:
        have = "has" if len(found.raised) == 1 else "have"
        note += (
            f"; {counted(len(found.raised), 'label')} without enough answers {have} a higher one"
        )
    return Section(title, table, note)
