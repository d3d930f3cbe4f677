"""The verb: load a model, score it, and gather what the report shows beside the scores."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from manyheads.config import Config, restored_threads
from manyheads.data.own_files import located, may_open
from manyheads.data.readers import Layout, without_split
from manyheads.data.records import Record, read_records
from manyheads.data.suspects import Suspect
from manyheads.errors import DataError, ModelError, RequestError, listed, listing, option
from manyheads.evaluation.evaluate import EvaluationReport, evaluate, refuse_learned
from manyheads.evaluation.report.build import (
    Surroundings,
    decisions_of,
    make_report,
    wrong_answers,
)
from manyheads.evaluation.report.changes import changes
from manyheads.evaluation.report.curve import MeasureCurves, learning_curve
from manyheads.evaluation.report.data import MAX_SUSPECTS, Epoch, LearningCurve, Report
from manyheads.inference import LoadedModel, Runtime, embed_texts, load_model
from manyheads.storage import Prefer, StrPath, logged_epochs

FindSuspects = Callable[[str, Config], Iterable[Suspect]]
"""Finds the labels of (file, configuration) that are likely wrong."""


@restored_threads()
def report(
    model: StrPath | None = None,
    *,
    against: StrPath | None = None,
    suspects: FindSuspects | None = None,
    curve: MeasureCurves | None = None,
    checkpoint: Prefer | None = None,
    data: StrPath | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    runtime: Runtime = Runtime(),
    drift: bool = True,
    warn: Callable[[str], None] = lambda text: None,
) -> Report:
    """Score a model on labelled records and report what it gets wrong.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default, `saved_model`.
        against: another model, which is scored on the same records to show what changed.
        suspects: finds the labels of a training file that are likely wrong, for a section of
            their own; default, they are not looked for.
        curve: measures the score by number of training records; default, it is not measured.
        checkpoint: which model of a run's folder is scored; default, the best one.
        data, layout, tasks, runtime, drift, warn: see `evaluate`.
        slices: fields of the records, such as `channel`, by whose values scores are compared.

    Raises:
        ManyheadsError: the model or the data cannot be used, or no record has a field of `slices`.
    """

    def load(path: StrPath) -> LoadedModel:
        return load_model(path, runtime, prefer=checkpoint or "best", warn=warn)

    def evaluated_on(
        source: StrPath | None, layout: Layout | None, loaded: LoadedModel, **more: Any
    ) -> EvaluationReport:
        return evaluate(
            loaded, data=source, layout=layout, tasks=tasks, runtime=runtime, warn=warn, **more
        )

    tasks, slices = listed("tasks", tasks), listed("slices", slices)
    loaded = load("saved_model" if model is None else model)
    other = None if against is None else load(against)
    if other is not None and data is None:
        refuse_learned(other)
    evaluated = evaluated_on(data, layout, loaded, drift=drift, keep=slices)
    changed = None
    if other is not None:
        source, laid_out = data, layout
        if source is None:
            source = _only_file(evaluated)
            laid_out = Layout.of(located(loaded.config, loaded.path))
        changed = changes(evaluated_on(source, laid_out, other, drift=False), evaluated)
    training, reason = _training_records(loaded)
    notes = _notes(evaluated, loaded, reason)
    found = curves = None
    if suspects is not None and training is not None:
        found, unchecked = _suspects(located(loaded.config, loaded.path), suspects)
        notes += unchecked
    if curve is not None:
        curves, unmeasured = _curves(curve, loaded, training, evaluated)
        notes += unmeasured
    beside = Surroundings(
        training,
        lambda texts: embed_texts(loaded.predictor, texts),
        _epochs(loaded),
        tuple(notes),
    )
    return replace(
        make_report(evaluated, slices, beside),
        changes=changed,
        suspects=None if found is None else tuple(found),
        curves=tuple(curves or ()),
    )


def _notes(evaluated: EvaluationReport, loaded: LoadedModel, reason: str) -> list[str]:
    notes = [reason] if reason else []
    if evaluated.no_drift:
        notes.append(f"the drift of the embedding is not known: {evaluated.no_drift}")
    backend = loaded.predictor.backend.name
    speed = len(evaluated.records) / max(evaluated.seconds, 1e-9)
    notes.append(f"answered by {backend}: {speed:,.0f} records a second")
    return notes


def _curves(
    measure: MeasureCurves,
    loaded: LoadedModel,
    training: Sequence[Record] | None,
    evaluated: EvaluationReport,
) -> tuple[list[LearningCurve], list[str]]:
    """Return each task's learning curve, and a note where there is none."""
    if training is None:
        return [], ["the learning curve needs the training data"]
    scored = {name for name, task in evaluated.outcomes.tasks.items() if task.gold}
    labels = {s.name: s.label_set() for s in loaded.predictor.specs if s.name in scored}
    try:
        found = measure(loaded.config, labels, training, evaluated.records)
    except (DataError, ModelError, RequestError) as error:
        return [], [f"the learning curve is not measured: {error}"]
    return [learning_curve(name, one) for name, one in found.items()], []


def _suspects(config: Config, find: FindSuspects) -> tuple[list[Suspect], list[str]]:
    """Return the suspect labels of all training files, and a note for each unchecked file."""
    found: list[Suspect] = []
    unchecked: list[str] = []
    for path, names in config.train_files().items():
        tasks = {name: config.tasks[name] for name in names}
        try:
            found += find(path, config.model_copy(update={"tasks": tasks}))
        except (DataError, RequestError) as error:
            unchecked.append(f"the labels are not checked: {error}")
    return sorted(found, key=lambda one: -one.score)[:MAX_SUSPECTS], unchecked


def _only_file(evaluated: EvaluationReport) -> str:
    """Return the file that a model was scored on, to score another one on it.

    Raises:
        RequestError: there are several.
    """
    if len(evaluated.data) != 1:
        raise RequestError(
            f"{evaluated.model} was scored on {listing(evaluated.data)}",
            expected="one file to compare two models on",
            fix=f"Name it: {option('--file FILE', '`data`')}.",
        )
    return evaluated.data[0]


def error_lines(evaluated: EvaluationReport) -> Iterator[dict[str, Any]]:
    """Yield every record with an error as `evaluate --errors` writes it."""
    tasks = evaluated.outcomes.tasks
    decided = {name: decisions_of(task) for name, task in tasks.items() if task.gold}
    for row, answers in sorted(wrong_answers(evaluated.outcomes, decided).items()):
        record = evaluated.records[row]
        first, *others = record.texts
        line: dict[str, Any] = {"text": first, **({"text2": others[0]} if others else {})}
        yield {
            **line,
            "where": record.where,
            "tasks": {name: _answer(asdict(answer)) for name, answer in answers.items()},
        }


def _answer(answer: dict[str, Any]) -> dict[str, Any]:
    wrong = [
        {"error": error, "gold": gold, "predicted": predicted}
        for gold, predicted, error, _ in answer.pop("wrong")
    ]
    return {**answer, "wrong": wrong}


def _training_records(loaded: LoadedModel) -> tuple[list[Record] | None, str]:
    """Return the training records where they may be opened unasked, or why there are none."""
    files = located(loaded.config, loaded.path).train_files()
    for path in files:
        if (
            not may_open(path, loaded.config, loaded.path)
            or not Path(without_split(path)[0]).exists()
        ):
            return None, f"the training data are not available: {path}"
    sets = {spec.name: spec.label_set() for spec in loaded.predictor.specs}
    layout = Layout.of(loaded.config)
    try:
        return [
            record
            for path, names in files.items()
            for record in read_records(
                path, {name: loaded.config.tasks[name] for name in names if name in sets}, sets,
                layout=layout, allow_unseen=True,
            )
        ], ""  # fmt: skip
    except DataError as error:
        return None, f"the training data cannot be read: {error}"


def _epochs(loaded: LoadedModel) -> tuple[Epoch, ...]:
    """Return what the training run logged, where the model lies in the run's folder."""
    main = {spec.name: spec.main_metric for spec in loaded.predictor.specs}
    epochs = []
    for entry in logged_epochs(Path(loaded.path).parent):
        try:
            scores = {
                name: float(metrics[main[name]])
                for name, metrics in entry["metrics"]["tasks"].items()
                if name in main and main[name] in metrics
            }
            losses = {name: float(loss) for name, loss in entry["loss"].items()}
            epochs.append(Epoch(int(entry["epoch"]), entry["best"] is True, losses, scores))
        except (KeyError, TypeError, ValueError, AttributeError):
            return ()
    return tuple(epochs)
