"""The last step of a run: calibrate the scores of its best model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from manyheads.errors import ManyheadsError, counted
from manyheads.evaluation import (
    FOLDS,
    Outcomes,
    choices_without_folds,
    fit_calibrations,
    fit_scope_of,
    folds_of,
    score,
)
from manyheads.inference import load_predictor, scope_files
from manyheads.storage import BEST, add_files, read_manifest, resolve_model, set_calibration
from manyheads.tasks import kind_of
from manyheads.training.run import Run
from manyheads.training.selection import best_value

_FEWEST = 50
"""Validation records of a task below which its folds are too small to tell epochs apart."""


def scores_without_folds(run: Run) -> dict[str, Any]:
    """Return the score that selects the best model, on all validation records but each fold's.

    So the records without which the same epoch is chosen are known: for them, the model was chosen
    on other data. Empty where that cannot be told: with few records, or in another process than
    the one that evaluates.
    """
    outcomes = run.outcomes
    if outcomes is None or not any(kind_of(t.kind).calibrates for t in run.config.tasks.values()):
        return {}
    if any(len(task.gold) < _FEWEST for task in outcomes.tasks.values()):
        return {}
    folds = folds_of(outcomes.records)
    main = main_metrics(run)
    found = []
    for fold in range(FOLDS):
        left = set(np.flatnonzero(folds == fold).tolist())
        rest = outcomes.without(left).evaluation()
        found.append(best_value(run.config, rest, main))
    return {"score_without_fold": found}


def main_metrics(run: Run) -> dict[str, str]:
    """Return each task's main metric."""
    specs = [run.model.head(task).spec(task) for task in run.model.heads]
    return {spec.name: spec.main_metric for spec in specs}


def is_calibrated(run: Run) -> bool:
    """Return whether a finished run came as far as to calibrate its best model."""
    return "tasks" in read_manifest(run.save_dir / BEST).calibration


def calibrate_best(run: Run, report: Callable[[str], None]) -> None:
    """Calibrate the best model; if that fails, the model stays as it is, and the user learns why.

    Args:
        run: the run, which has ended.
        report: receives messages for the user.
    """
    try:
        _calibrate(run, report)
    except Exception as error:
        # The training is done and saved, whatever the disk or a kind of the user's own does here.
        folder = run.save_dir / BEST
        report(
            f"warning: the scores of {folder} are not calibrated ({error}). The model is trained "
            f"all the same. To try again, run: manyheads calibrate {folder}"
        )


def _calibrate(run: Run, report: Callable[[str], None]) -> None:
    """Calibrate the best model on validation records, and write that to its folder.

    It is fitted on the records without which the same epoch is chosen. Where they are not known,
    on all of them, which the log and the model then say.

    Args:
        run: the run, which has ended.
        report: receives messages for the user.
    """
    folder = run.save_dir / BEST
    outcomes = run.best_outcomes or _score_again(run)
    other = choices_without_folds(run.state.history, run.state.best.epoch)
    source = "validation records, which also chose the epoch"
    if other is not None:
        source = "validation records that did not decide the choice of the epoch"
    fitted = fit_calibrations(outcomes, source, other or ())
    for name, task in fitted.items():
        report(
            f"Calibrated {name} on {counted(task.answers, 'answer')} of {source}: calibration "
            f"error {task.error_before:.3f} before, {task.error:.3f} after."
        )
    tasks = {name: task.to_json() for name, task in fitted.items()}
    values: dict[str, Any] = {"tasks": _carried(run) | tasks}
    scope = fit_scope_of(outcomes, other or ())
    if scope is not None:
        add_files(folder, scope_files(scope))
        values["scope"] = {"task": scope.task, "source": source, "unknown": 0}
    set_calibration(folder, values)


def _score_again(run: Run) -> Outcomes:
    """Score the best model, which was evaluated in an earlier part of the run."""
    predictor = load_predictor(run.save_dir / BEST, backend="torch", threads=run.config.threads)
    return score(predictor, run.validation_sets(), evidence=True)


def _carried(run: Run) -> dict[str, Any]:
    """Return the calibrations of tasks whose outputs are those of the model they come from."""
    if run.config.init_from is None or not run.freezing.is_whole:
        return {}
    try:
        tasks = read_manifest(resolve_model(run.config.init_from)).calibration.get("tasks", {})
    except ManyheadsError:
        # It was a checkpoint, which has none, or is gone by now.
        return {}
    return {name: tasks[name] for name in run.warm_start.carried.tasks if name in tasks}
