"""The end of an epoch: evaluate, log, save, and keep the model if it is the best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from manyheads.errors import counted, option
from manyheads.evaluation import last_within_chance
from manyheads.storage import BEST, best_of
from manyheads.tasks.metrics import Evaluation
from manyheads.training.calibrate import (
    added_to,
    calibrate_models,
    errors_of_epochs,
    errors_of_task,
    main_metrics,
    scores_without_folds,
)
from manyheads.training.epochs import epochs_without_gain, is_complete, is_improving
from manyheads.training.metrics_log import MetricsLog
from manyheads.training.reporter import Reporter
from manyheads.training.run import Run
from manyheads.training.selection import best_value, main_scores, pareto_front, trade_off
from manyheads.training.signals import StopRequest
from manyheads.training.state import Best, not_finite


def finish_epoch(run: Run, log: MetricsLog, reporter: Reporter, stop: StopRequest) -> Path:
    """Evaluate, log, save, and keep the model if it is the best.

    Returns:
        The epoch's checkpoint.

    Raises:
        Interrupted: a signal came during the evaluation; the run is unchanged.
        TrainingError: the weights or the model's outputs are not finite, or all steps of the
            epoch were skipped.
    """
    state = run.state
    _check_trained(run)
    if run.config.refit is not None:
        return _finish_unscored(run, log, reporter)
    reporter.message(f"Evaluating epoch {state.epoch + 1} ...")
    evaluation = run.processes.led(run.evaluate, stop)
    main = main_metrics(run)
    points = [main_scores(e["metrics"], main) for e in (*state.history, {"metrics": evaluation})]
    entry = _epoch_entry(run, evaluation, points)
    better = _end_epoch(run, entry, points)
    log.write({"event": "epoch", **entry, "seconds": round(run.clock.lap(), 3)})
    path = run.save_epoch(log)
    # After the checkpoint, from which a resumed run can restore these folders.
    for name in [*([BEST] if entry["best"] else []), *map(best_of, better)]:
        _replace_best(run, name, reporter)
    reporter.epoch(state.history)
    run.outcomes = None
    if state.finished:
        if run.processes.is_first:
            calibrate_models(run, reporter.message, only_missing=False)
        _report_end(run, points, reporter)
    return path


def _finish_unscored(run: Run, log: MetricsLog, reporter: Reporter) -> Path:
    """Log and save an epoch of a run on all records; the last epoch's model is kept."""
    state = run.state
    is_last = is_complete(run.config, state.epoch + 1, [])
    entry = {
        "epoch": state.epoch + 1,
        "step": state.step,
        "loss": {name: loss.mean for name, loss in state.this_epoch.items()},
        "score": None,
        "best": is_last,
        "front": [],
        "metrics": Evaluation(tasks={}, frame_accuracy=None, records=0),
    }
    _end_epoch(run, entry, [])
    log.write({"event": "epoch", **entry, "seconds": round(run.clock.lap(), 3)})
    path = run.save_epoch(log)
    if is_last:
        _replace_best(run, BEST, reporter)
    reporter.epoch(state.history)
    if is_last and run.processes.is_first:
        calibrate_models(run, reporter.message, only_missing=False)
    return path


def _check_trained(run: Run) -> None:
    """Refuse an epoch whose weights are not finite, or of which no step was made."""
    state = run.state
    if not all(bool(parameter.isfinite().all()) for parameter in run.trained()):
        raise not_finite("the weights", state.step)
    if not state.this_epoch:
        raise not_finite(f"the losses of all steps of epoch {state.epoch + 1}", state.step)


def _replace_best(run: Run, name: str, reporter: Reporter) -> None:
    """Save the epoch's model as a best one; report what goes with the one before."""
    lost = added_to(run, run.save_dir / name) if run.processes.is_first else []
    run.save_best(run.state.epoch, name)
    for what in lost:
        reporter.message(f"warning: the new {name} replaces a model with {what}.")


def _epoch_entry(
    run: Run, evaluation: Evaluation, points: Sequence[Mapping[str, float]]
) -> dict[str, Any]:
    """Return the history's entry of the epoch that was just evaluated.

    Args:
        run: the run, before its state counts the epoch.
        evaluation: the epoch's.
        points: each epoch's main scores by task, this one's last.
    """
    state, score = run.state, best_value(run.config, evaluation, main_metrics(run))
    scores = [*(entry["score"] for entry in state.history), score]
    errors = errors_of_epochs(run, [*(e["metrics"] for e in state.history), evaluation])
    return {
        "epoch": state.epoch + 1,
        "step": state.step,
        "loss": {name: loss.mean for name, loss in state.this_epoch.items()},
        "score": score,
        **scores_without_folds(run),
        "best": last_within_chance(scores, errors) == state.epoch,
        "front": [i + 1 for i in pareto_front(points)],
        "metrics": evaluation,
    }


def _end_epoch(run: Run, entry: dict[str, Any], points: Sequence[Mapping[str, float]]) -> list[str]:
    """Count the epoch in the run's state; return the tasks whose best model it has."""
    state, config = run.state, run.config
    state.history.append(entry)
    state.epoch, state.step_in_epoch, state.this_epoch = state.epoch + 1, 0, {}
    if entry["best"]:
        state.best = Best(state.epoch, entry["score"])
    better = []
    if config.keep_best_per_task:
        for task in points[-1]:
            scores = [point[task] for point in points]
            if last_within_chance(scores, errors_of_task(run, task, scores)) == len(scores) - 1:
                better.append(task)
        state.best_of |= {task: Best(state.epoch, points[-1][task]) for task in better}
    state.finished = is_complete(config, state.epoch, state.history)
    return better


def _report_end(run: Run, points: Sequence[Mapping[str, float]], reporter: Reporter) -> None:
    """Report the trade-off of the tasks, which epoch was kept, an early stop, or a rising score."""
    state = run.state
    scores = [entry["score"] for entry in state.history]
    highest = last_within_chance(scores, [0.0] * len(scores))
    if highest is not None and highest != state.best.epoch - 1:
        reporter.message(
            f"Epoch {state.best.epoch} is kept (score {state.best.score:.4f}): epoch {highest + 1} "
            f"({scores[highest]:.4f}) is ahead by no more than chance on so many validation "
            "records, and later epochs are trained further."
        )
    if text := trade_off(points):
        reporter.message(text)
    if state.epoch < run.config.epochs:
        waited = counted(epochs_without_gain(state.history), "epoch")
        reporter.message(f"Stopped early: no higher score for {waited} (`early_stopping`).")
    elif is_improving(state.history):
        more = state.epoch + max(2, state.epoch // 2)
        reporter.message(
            "The last epoch was the best so far, so more may be better still. Continue with "
            + option(f"--resume --epochs {more}", f"`resume=True, num_epochs={more}`")
            + "."
        )
