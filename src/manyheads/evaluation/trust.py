"""The verbs `calibrate` and `thresholds`: calibrated scores, and from which on to trust them."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from manyheads.config import BATCH_TOKENS, restored_threads
from manyheads.data.readers import Layout, layout_of_texts, read_rows
from manyheads.errors import (
    DataError,
    ModelError,
    RequestError,
    counted,
    listed,
    listing,
    option,
    shorten,
)
from manyheads.evaluation.calibration import (
    FittedTask,
    evidence_of,
    fit_calibrations,
    fit_scope_of,
    folds_of,
)
from manyheads.evaluation.evaluate import labelled_sets
from manyheads.evaluation.learned import refuse_trained_on
from manyheads.evaluation.scoring import TaskOutcomes, score
from manyheads.evaluation.thresholds import FoundThresholds, find_thresholds
from manyheads.inference import (
    INT8,
    LoadedModel,
    Predictor,
    Runtime,
    exported_backends,
    load_exported,
    load_model,
    store_calibration,
)
from manyheads.storage import (
    Manifest,
    StrPath,
    change_calibration,
    is_model_folder,
    read_manifest,
    resolve_model,
)

Warn = Callable[[str], None]


@dataclass(frozen=True, repr=False)
class CalibrationReport:
    """The calibrations that were written to a model."""

    model: str
    tasks: Mapping[str, FittedTask]
    backends: Mapping[str, Mapping[str, FittedTask]]
    """By backend of 8-bit products, its own ones."""

    def __repr__(self) -> str:
        lines = [f"CalibrationReport({self.model!r})"]
        for name, task in self.tasks.items():
            lines.append(f"  {name}: {task.in_words()}, on {counted(task.answers, 'answer')}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return the calibrations as the manifest has them."""
        return {
            "tasks": {name: task.to_json() for name, task in self.tasks.items()},
            "backends": {
                backend: {name: task.to_json() for name, task in tasks.items()}
                for backend, tasks in self.backends.items()
            },
        }


@dataclass(frozen=True, repr=False)
class ThresholdReport:
    """The thresholds that were found, and written to a model."""

    model: str
    records: int
    tasks: Mapping[str, FoundThresholds]

    @property
    def reached(self) -> bool:
        """Whether every task reaches the precision."""
        return all(task.task is not None for task in self.tasks.values())

    def __repr__(self) -> str:
        lines = [f"ThresholdReport({self.model!r}, {counted(self.records, 'record')})"]
        for name, found in self.tasks.items():
            if found.task is None:
                lines.append(f"  {name}: no score reaches {found.precision:g}")
            else:
                lines.append(
                    f"  {name}: {found.task.score:.4f}, from which {found.task.right} of "
                    f"{counted(found.task.answers, 'answer')} are right"
                )
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Return what was found, as JSON values."""
        return {
            "model": self.model,
            "records": self.records,
            "tasks": {
                name: {
                    "precision": found.precision,
                    "confidence": found.confidence,
                    "task": None if found.task is None else asdict(found.task),
                    "labels": {label: asdict(one) for label, one in found.labels.items()},
                    "raised": dict(found.raised),
                }
                for name, found in self.tasks.items()
            },
        }


@restored_threads()
def calibrate(
    model: StrPath = "saved_model",
    *,
    data: StrPath | None = None,
    unknown: StrPath | None = None,
    layout: Layout | None = None,
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    warn: Warn = lambda text: None,
) -> CalibrationReport:
    """Calibrate a trained model's scores on labelled records, and store that in its folder.

    Thresholds belong to the former scores and are removed.

    Args:
        model: a model folder, or a run's folder (its best model).
        data: any labelled file; default, the validation files of the run.
        unknown: a file of texts that are out of scope, of no class that the model knows.
        layout: how `data` are laid out, where content and names do not show it.
        threads: processor threads; default, all cores.
        batch_tokens: sub-tokens of a batch, padding included.
        warn: called with messages that do not stop the work.

    Raises:
        ManyheadsError: the model or the data cannot be used, or there are too few records.
    """
    manifest = _model_folder(model)
    loaded = _loaded(manifest, threads, batch_tokens, warn)
    files, sets = labelled_sets(loaded, data, layout=layout, warn=warn)
    if data is not None:
        refuse_trained_on(loaded, sets, files[0], warn)
    source = "the validation records" if data is None else f"records of {Path(files[0]).name}"
    outcomes = score(loaded.predictor, sets, evidence=True)
    fitted = fit_calibrations(outcomes, source)
    if not fitted:
        raise ModelError(
            "no task can be calibrated on these records",
            expected="at least 20 labelled records of a task with classes, of which the model "
            "predicts some, or 20 predicted entities",
            fix="Name a larger file: "
            + option("manyheads calibrate MODEL --file FILE", "manyheads.calibrate(MODEL, FILE)"),
            where=", ".join(files),
        )
    backends = {}
    for backend in (one for one in INT8 if one in exported_backends(manifest)):
        runtime = Runtime(backend, threads=threads, batch_tokens=batch_tokens)
        predictor = load_exported(manifest, runtime, warn=warn)
        backends[backend] = fit_calibrations(score(predictor, sets, evidence=True), source)
    report = CalibrationReport(loaded.path, fitted, backends)
    strange = [] if unknown is None else _strange(loaded.predictor, outcomes.scope_task, unknown)
    scope = fit_scope_of(outcomes, unknown=strange)
    if scope is None and unknown is not None:
        warn("whether texts are in scope cannot be known: that needs a task of exclusive classes, "
             "with two records of at least three classes and 60 in all")  # fmt: skip

    def change(known: Mapping[str, Any]) -> Mapping[str, Any]:
        own = report.to_json()
        # A task without labels among the records keeps its calibration, and a graph that was
        # exported meanwhile its own.
        others = known.get("backends", {})
        return {
            "tasks": {**known.get("tasks", {}), **own["tasks"]},
            "backends": {
                **others,
                **{name: {**others.get(name, {}), **one} for name, one in own["backends"].items()},
            },
        }

    count, entry = len(strange), manifest.calibration.get("scope", {})
    told = outcomes.tasks.get(entry.get("task", ""))
    if scope is None and entry and (told is None or not told.gold):
        scope, source = loaded.predictor.scope, entry.get("source", "")
        count = entry.get("unknown") or 0
    store_calibration(manifest, change, scope, source, count)
    stored = manifest.calibration.get("tasks", {})
    if lost := [name for name in fitted if stored.get(name, {}).get("thresholds") is not None]:
        warn(
            f"the thresholds of {listing(lost)}, which were for the scores before, are removed. To "
            "find them anew: "
            + option(
                f"manyheads thresholds {shlex.quote(str(manifest.folder))}",
                f"manyheads.thresholds({str(manifest.folder)!r})",
            )
        )
    return report


def _strange(
    predictor: Predictor, task: TaskOutcomes | None, file: StrPath
) -> list[tuple[Any, Any]]:
    """Return the embedding and the logits of each text of a file that is out of scope."""
    rows = read_rows(os.fspath(file), layout=layout_of_texts(file), needs_labels=False)
    texts = (row.fields.get("text") for row in rows)
    given = [text for text in texts if isinstance(text, str) and text.strip()]
    if not given:
        raise DataError("there is no text", where=os.fspath(file), expected="at least one `text`")
    if task is None:
        return []
    found = (p.in_scope for p in predictor.record(given, [task.spec.name]))
    return [one for one in found if one is not None]  # type: ignore[misc]


@restored_threads()
def thresholds(
    model: StrPath = "saved_model",
    *,
    precision: float = 0.95,
    confidence: float = 0.95,
    data: StrPath | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    threads: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
    warn: Warn = lambda text: None,
) -> ThresholdReport:
    """Find the scores from which a share of a model's answers is right, and store them.

    Args:
        model: a model folder, or a run's folder (its best model).
        precision: the share of answers that must be right.
        confidence: the probability with which that must hold on further records.
        data: any labelled file; default, the validation files of the run.
        layout: how `data` are laid out, where content and names do not show it.
        tasks: the tasks; default, all that have scores.
        threads: processor threads; default, all cores.
        batch_tokens: sub-tokens of a batch, padding included.
        warn: called with messages that do not stop the work.

    Raises:
        ManyheadsError: the model or the data cannot be used, or a share is impossible.
    """
    for name, share in (("precision", precision), ("confidence", confidence)):
        if not 0.5 <= share < 1:
            raise RequestError(
                f"{name} is {shorten(share)}", expected="a number from 0.5 to below 1"
            )
    tasks = listed("tasks", tasks)
    manifest = _model_folder(model)
    loaded = _loaded(manifest, threads, batch_tokens, warn)
    known: Mapping[str, Any] = manifest.calibration.get("tasks", {})
    wanted = _calibrated(manifest, known, tasks, data)
    files, sets = labelled_sets(loaded, data, layout=layout, tasks=wanted, warn=warn)
    if data is not None:
        refuse_trained_on(loaded, sets, files[0], warn)
    outcomes = score(loaded.predictor, sets, evidence=True)
    found = {}
    for name, task in outcomes.tasks.items():
        evidence, _ = evidence_of(task, folds_of(outcomes.records))
        calibration = loaded.predictor.scorings[name].calibration
        judged = task.kind.judge(task.spec, evidence, calibration)
        found[name] = find_thresholds(judged, precision, confidence)
    _store_thresholds(manifest, known, found)
    return ThresholdReport(loaded.path, outcomes.records, found)


def _store_thresholds(
    manifest: Manifest, known: Mapping[str, Any], found: Mapping[str, FoundThresholds]
) -> None:
    """Write thresholds to a model, beside the calibrations for which they were found.

    Raises:
        ModelError: the model has been calibrated again since.
    """

    def change(now: Mapping[str, Any]) -> Mapping[str, Any]:
        tasks = dict(now.get("tasks", {}))
        for name, one in found.items():
            if tasks.get(name, {}).get("scores") != known[name].get("scores"):
                raise ModelError(
                    f"the scores of {name} were calibrated anew meanwhile",
                    expected="the calibration for which the thresholds were found",
                    fix="Find the thresholds again.",
                    where=str(manifest.folder),
                )
            limits = one.thresholds
            tasks[name] = {**tasks[name], "thresholds": limits.to_json() if limits else None}
        return {**now, "tasks": tasks}

    change_calibration(manifest, change)


def _calibrated(
    manifest: Manifest,
    known: Mapping[str, Any],
    tasks: Sequence[str] | None,
    data: StrPath | None,
) -> list[str]:
    """Return the tasks to find thresholds for; by default, all that are calibrated.

    Raises:
        ModelError: one of them is not calibrated, or none is.
    """
    wanted = [name for name in (known if tasks is None else tasks) if name in known]
    if wanted and len(wanted) == len(wanted if tasks is None else tasks):
        return wanted
    raise ModelError(
        "is not calibrated" if not known else f"has no calibration of {listing(tasks or ())}",
        expected="calibrated scores" + (f", as of {listing(known)}" if known else ""),
        fix="Run: "
        + option(
            f"manyheads calibrate {shlex.quote(str(manifest.folder))}"
            + ("" if data is None else f" --file {shlex.quote(os.fspath(data))}"),
            f"manyheads.calibrate({str(manifest.folder)!r}" + (")" if data is None else ", DATA)"),
        ),
        where=str(manifest.folder),
    )


def _loaded(manifest: Manifest, threads: int | None, batch_tokens: int, warn: Warn) -> LoadedModel:
    """Load a model with the backend that computes in float32: an exported graph if it has one."""
    exact = (one for one in exported_backends(manifest) if one not in INT8)
    runtime = Runtime(next(exact, "torch"), threads=threads, batch_tokens=batch_tokens)
    return load_model(manifest.folder, runtime, warn=warn)


def _model_folder(model: StrPath) -> Manifest:
    """Find a model folder, which keeps calibrations; a checkpoint does not."""
    path = resolve_model(model)
    if not is_model_folder(path):
        raise RequestError(
            "a checkpoint keeps no calibration",
            expected="a model folder, such as saved_model/best",
            where=str(path),
        )
    return read_manifest(path)
