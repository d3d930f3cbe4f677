"""The last step of a run: calibrate the scores of its best models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from manyheads.data.records import Record, read_records
from manyheads.errors import ManyheadsError, counted, listing, option
from manyheads.evaluation import (
    FOLDS,
    Outcomes,
    choices_without_folds,
    fit_calibrations,
    fit_scope_of,
    folds_of,
    scope_anew,
    score,
)
from manyheads.inference import (
    Predictor,
    Runtime,
    exported_backends,
    load_model,
    store_calibration,
)
from manyheads.storage import (
    BEFORE_REFIT,
    BEST,
    Manifest,
    best_of,
    read_manifest,
)
from manyheads.tasks import kind_of
from manyheads.tasks.metrics import Evaluation
from manyheads.training.refit import Earlier
from manyheads.training.run import Run
from manyheads.training.selection import best_value, chance, main_scores, standard_error
from manyheads.training.warm_start import Carried

_FEWEST = 50
"""Validation records of a task below which its folds are too small to tell epochs apart."""

_WITHOUT_FOLD = "score_without_fold"
_TASKS_WITHOUT_FOLD = "task_scores_without_fold"
"""The history's keys, the second with `keep_best_per_task`."""

_ALL = "validation records, which also chose the epoch"
_OTHERS = "validation records that did not decide the choice of the epoch"
"""The sources of a run's own calibrations."""


def scores_without_folds(run: Run) -> dict[str, Any]:
    """Return the scores that select the best models, on all validation records but each fold's.

    They show which records did not decide the choice of an epoch: those without which it would be
    the same. For these the model was selected on other data.

    Returns:
        By key of the history. Empty where they are not known: with few records, or in a process
        that does not evaluate.
    """
    outcomes = run.outcomes
    if outcomes is None or not any(kind_of(t.kind).calibrates for t in run.config.tasks.values()):
        return {}
    if any(len(task.gold) < _FEWEST for task in outcomes.tasks.values()):
        return {}
    folds = folds_of(outcomes.records)
    main = main_metrics(run)
    found = []
    by_task: dict[str, list[float]] = {}
    for fold in range(FOLDS):
        left = set(np.flatnonzero(folds == fold).tolist())
        rest = outcomes.without(left).evaluation()
        found.append(best_value(run.config, rest, main))
        for task, value in main_scores(rest, main).items():
            by_task.setdefault(task, []).append(value)
    per_task = {_TASKS_WITHOUT_FOLD: by_task} if run.config.keep_best_per_task else {}
    return {_WITHOUT_FOLD: found, **per_task}


def main_metrics(run: Run) -> dict[str, str]:
    """Return each task's main metric."""
    specs = [run.model.head(task).spec(task) for task in run.model.heads]
    return {spec.name: spec.main_metric for spec in specs}


def errors_of_epochs(run: Run, evaluations: Sequence[Evaluation]) -> list[float]:
    """Return by how much chance may move the number by which each evaluation is compared.

    With `early_stopping`, nothing: the rate is still high in the last epochs of such a run, so that
    the highest score decides.
    """
    if run.config.early_stopping is not None:
        return [0.0] * len(evaluations)
    main, records = main_metrics(run), run.validation_counts()
    return [chance(run.config, evaluation, main, records) for evaluation in evaluations]


def errors_of_task(run: Run, task: str, scores: Sequence[float]) -> list[float]:
    """Return the same of a task's main metric."""
    if run.config.early_stopping is not None:
        return [0.0] * len(scores)
    metric, count = main_metrics(run)[task], run.validation_counts()[task]
    return [standard_error(metric, score, count) for score in scores]


def calibrate_models(run: Run, report: Callable[[str], None], *, only_missing: bool) -> None:
    """Calibrate a run's best models; if that fails, a model stays as it is, with a warning.

    A model with thresholds, or a calibration on other records, keeps them. A run on all records
    (`refit`) has no record to calibrate on: its model has the calibration of the model before.

    Args:
        run: the run, which has ended.
        report: receives messages for the user.
        only_missing: whether to leave out the models that are calibrated already.
    """
    if run.earlier is not None:
        with _reported(run.save_dir / BEST, report):
            _carry(run, run.earlier, report)
        return
    history = run.state.history
    scores = [entry.get(_WITHOUT_FOLD) for entry in history]
    errors = errors_of_epochs(run, [entry["metrics"] for entry in history])
    models = [_Model(run.save_dir / BEST, run.state.best.epoch, scores, errors)]
    for task, best in run.state.best_of.items():
        scores = [entry.get(_TASKS_WITHOUT_FOLD, {}).get(task) for entry in history]
        main = main_metrics(run)
        own = [main_scores(entry["metrics"], main)[task] for entry in history]
        errors = errors_of_task(run, task, own)
        models.append(_Model(run.save_dir / best_of(task), best.epoch, scores, errors))
    for model in models:
        with _reported(model.folder, report):
            manifest = read_manifest(model.folder)
            calibration = manifest.calibration
            if "tasks" in calibration and (only_missing or is_by_user(run, calibration)):
                continue
            _calibrate(run, model, manifest, report)


@contextmanager
def _reported(folder: Path, report: Callable[[str], None]) -> Iterator[None]:
    """Report what prevents a calibration; the model stays as it is."""
    try:
        yield
    except Exception as error:
        # The training is done and saved, whatever the disk or a user's own kind does here.
        report(
            f"warning: the scores of {folder} are not calibrated ({error}). The model is trained "
            "all the same. To try again, run: "
            + option(f"manyheads calibrate {folder}", f"manyheads.calibrate({str(folder)!r})")
        )


def _carry(run: Run, earlier: Earlier, report: Callable[[str], None]) -> None:
    """Give the model of a run on all records the calibrations and the scope of the model before.

    No record is left to fit them on. They are kept for tasks that have the same labels still; the
    classes of the scope are described by the embeddings of now.
    """
    manifest = read_manifest(run.save_dir / BEST)
    if "tasks" in manifest.calibration:
        return
    same = {task["name"] for task in manifest.tasks if task in earlier.tasks}
    known = earlier.calibration.get("tasks", {})
    tasks = {
        name: {**one, "source": _of_before(one["source"])}
        for name, one in known.items()
        if name in same
    }
    if run.freezing.is_whole:  # the outputs of carried tasks are those of before
        carried = run.warm_start.carried.calibrations
        tasks |= {**carried, **{name: known[name] for name in carried if name in known}}
    kept, scope, source, unknown = earlier.scope, None, "", 0
    unchanged = run.warm_start.carried.tasks if run.freezing.is_whole else {}
    if kept is not None and kept.scope.task in unchanged:
        scope, source, unknown = kept.scope, kept.source, kept.unknown
    # A direction towards known texts out of scope is one of the embeddings of before.
    elif kept is not None and kept.scope.task in same and not kept.unknown:
        scope = scope_anew(_evidence(run, manifest.folder), kept.scope)
        source = f"validation records, with the weights of: {_of_before(kept.source)}"
    if tasks or scope is not None:
        store_calibration(manifest, lambda own: {**own, "tasks": tasks}, scope, source, unknown)
    if tasks:
        report(f"Scores of {listing(tasks)} are calibrated as those of the model before.")
    if lost := [name for name in known if name not in same]:
        report(
            f"warning: the scores of {listing(lost)} are not calibrated: with all records, there "
            "are other labels than before."
        )
    if kept is not None and scope is None:
        report(
            "warning: this model does not tell whether texts are in scope, as the one before does. "
            "To fit that on other records, run: "
            + option(
                f"manyheads calibrate {manifest.folder} --file FILE --unknown FILE",
                f"manyheads.calibrate({str(manifest.folder)!r}, FILE, unknown=FILE)",
            )
        )


def _of_before(source: str) -> str:
    """Return where a calibration comes from, in a model that has learned these records too."""
    records = "validation records" if source in (_ALL, _OTHERS) else source
    return f"{records}{BEFORE_REFIT}"


def added_to(run: Run, folder: Path) -> list[str]:
    """Return what was added to a run's model after the run had made it, in words.

    It goes with the model when the run is continued and finds a better one.
    """
    try:
        manifest = read_manifest(folder)
        graphs = exported_backends(manifest)
    except ManyheadsError:
        return []
    added = []
    if graphs:
        by = option("`manyheads export`", "manyheads.export")
        added.append(f"graphs ({', '.join(graphs)}); make them again by {by}")
    if is_by_user(run, manifest.calibration):
        by = option("`manyheads calibrate`", "manyheads.calibrate")
        added.append(f"calibration or thresholds; make them again by {by}")
    return added


def is_by_user(run: Run, calibration: Mapping[str, Any]) -> bool:
    """Return whether a model's calibration has anything that its run did not make or carry."""
    tasks = calibration.get("tasks", {})
    carried = run.warm_start.carried.calibrations
    own = [one for name, one in tasks.items() if one != carried.get(name)]
    return any(one.get("source") not in (_ALL, _OTHERS) or one.get("thresholds") for one in own)


@dataclass(frozen=True)
class _Model:
    """A model that a run has kept."""

    folder: Path
    epoch: int
    """The epoch that it was selected for, from 1."""
    scores: Sequence[Sequence[float] | None]
    """Of each epoch, the scores that selected it, without each fold."""
    errors: Sequence[float]
    """Of each epoch, the standard error of the score that selected it."""


def _calibrate(run: Run, model: _Model, manifest: Manifest, report: Callable[[str], None]) -> None:
    """Calibrate a model on validation records, and write the calibration to its folder.

    It is fitted on the records that did not decide the choice of the epoch; if these are not
    known, on all of them, which the log and the model then state.
    """
    other = choices_without_folds(model.scores, model.errors, model.epoch)
    source = _ALL if other is None else _OTHERS
    known = run.best_evidence if model.epoch == run.state.best.epoch else None
    outcomes = known or _evidence(run, model.folder)
    fitted = fit_calibrations(outcomes, source, other or ())
    which = "" if model.folder.name == BEST else f" in {model.folder.name}"
    for name, task in fitted.items():
        report(
            f"Calibrated {name}{which} on {counted(task.answers, 'answer')} of {source}: "
            f"{task.in_words()}."
        )
    tasks = {name: task.to_json() for name, task in fitted.items()}
    # The outputs of carried tasks are those of `init_from` while the encoder is.
    carried = run.warm_start.carried if run.freezing.is_whole else Carried()
    values: dict[str, Any] = {"tasks": {**carried.calibrations, **tasks}}
    if (kept := carried.scope) is None:
        scope, unknown = fit_scope_of(outcomes, other or ()), 0
    else:
        scope, source, unknown = kept.scope, kept.source, kept.unknown

    def change(known: Mapping[str, Any]) -> Mapping[str, Any]:
        # Those of graphs that were exported meanwhile.
        return {**values, "backends": known["backends"]} if "backends" in known else values

    store_calibration(manifest, change, scope, source, unknown)


def _evidence(run: Run, folder: Path) -> Outcomes:
    """Score a model on the run's validation records, or on those of the run before."""
    predictor = load_model(folder, Runtime("torch", threads=run.config.threads)).predictor
    sets = run.validation_sets() if run.earlier is None else _sets_before(run, predictor)
    return score(predictor, sets, evidence=True)


def _sets_before(run: Run, predictor: Predictor) -> list[tuple[list[Record], tuple[str, ...]]]:
    """Read the records on which the run before was validated, each file with its tasks."""
    label_sets = {spec.name: spec.label_set() for spec in predictor.specs}
    return [
        (list(read_records(path, {n: run.config.tasks[n] for n in names}, label_sets)), names)
        for path, names in run.config.valid_files().items()
    ]
