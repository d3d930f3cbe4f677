"""Evaluate a model: metrics of each task on any labelled file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from manyheads.config import TaskConfig, restored_threads
from manyheads.data.own_files import located, may_open, refuse_layout_alone
from manyheads.data.readers import Layout, read_rows, without_split
from manyheads.data.readers.memory import is_in_memory
from manyheads.data.records import Reach, Record, read_records, unseen_labels
from manyheads.errors import (
    DataError,
    ModelError,
    RequestError,
    counted,
    listed,
    listing,
    nearest,
    option,
    shorten,
)
from manyheads.evaluation.drift import measure_drift
from manyheads.evaluation.learned import note_learned
from manyheads.evaluation.scoring import Outcomes, score
from manyheads.inference import LoadedModel, Runtime, load_model
from manyheads.storage import Prefer, StrPath
from manyheads.tasks import LabelSet
from manyheads.tasks.html import table
from manyheads.tasks.metrics import ConfidenceMetrics, DriftMetrics, Evaluation


@dataclass(frozen=True, repr=False)
class EvaluationReport:
    """The results of an evaluation and the data it used."""

    model: str
    data: tuple[str, ...]
    evaluation: Evaluation
    outcomes: Outcomes
    """Gold labels and predictions, sentence by sentence."""
    no_drift: str = ""
    """The reason why the drift from the original encoder is unknown."""
    records: Sequence[Record] = field(default=(), repr=False)
    """The records, in the order in which outcomes count them."""
    notes: tuple[str, ...] = ()
    """Data that were not read, and labels that are not scored as expected."""
    confidence: Mapping[str, ConfidenceMetrics] = field(default_factory=dict)
    """By task with scores, the metrics of their calibration."""
    seconds: float = 0.0
    """The time in which the records were answered."""

    @property
    def kinds(self) -> dict[str, str]:
        """The kind of each task."""
        return {name: task.spec.kind for name, task in self.outcomes.tasks.items()}

    def __repr__(self) -> str:
        records = self.evaluation["records"]
        lines = [f"EvaluationReport({self.model!r}, {counted(records, 'record')})"]
        for name, metrics in self.evaluation["tasks"].items():
            numbers = [f"{k} {v:.4f}" for k, v in metrics.items() if isinstance(v, float)]
            lines.append(f"  {name}: {', '.join(numbers)}")
        lines += [f"  note: {note}" for note in self.notes]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        """Return a table for notebooks: a row for each metric that is one number."""
        rows = [
            [name, metric, f"{value:.4f}"]
            for name, metrics in self.evaluation["tasks"].items()
            for metric, value in metrics.items()
            if isinstance(value, float)
        ]
        title = f"{self.model}, {counted(self.evaluation['records'], 'record')}"
        return table(title, ["task", "metric", "value"], rows)

    def to_json(self) -> dict[str, Any]:
        """Return the report as `evaluate --json` writes it."""
        found = {"model": self.model, "data": list(self.data), **self.evaluation}
        found["tasks"] = {
            name: {**metrics, "confidence": self.confidence[name]}
            if name in self.confidence
            else metrics
            for name, metrics in self.evaluation["tasks"].items()
        }
        return {**found, "drift": {"unknown": self.no_drift}} if self.no_drift else found


@restored_threads()
def evaluate(
    model: StrPath | LoadedModel | None = None,
    *,
    checkpoint: Prefer | None = None,
    data: StrPath | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    runtime: Runtime = Runtime(),
    drift: bool = True,
    keep: Sequence[str] = (),
    warn: Callable[[str], None] = lambda text: None,
) -> EvaluationReport:
    """Score a model on labelled records.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default, `saved_model`. Or a model
            that is loaded.
        checkpoint: which model of a run's folder is scored; default, the best one, or the latest
            if no model is named.
        data: any labelled file; default, the validation files that the model was chosen on.
        layout: how `data` are laid out, where content and names do not show it; validation files
            are read as the model's configuration says.
        tasks: the tasks to score; default, all that the data have labels for.
        runtime: what runs the model, unless it is loaded; its threads run the original encoder too.
        drift: whether to compare the embedding with the original encoder's on some of the
            records.
        keep: fields by which scores are compared; the records keep their values (`Record.kept`).
        warn: called with messages that do not stop the evaluation.

    Raises:
        ManyheadsError: the model or the data cannot be used, or have no label in common.
    """
    tasks = listed("tasks", tasks)
    if isinstance(model, LoadedModel):
        loaded = model
    else:
        prefer = checkpoint or ("latest" if model is None else "best")
        loaded = load_model(
            "saved_model" if model is None else model, runtime, prefer=prefer, warn=warn
        )
    notes: list[str] = []

    def note(message: str) -> None:
        notes.append(message)
        warn(message)

    files, sets = labelled_sets(loaded, data, layout=layout, tasks=tasks, keep=keep, warn=note)
    if data is not None:
        note_learned(loaded, sets, note)
    began = time.monotonic()
    outcomes = score(loaded.predictor, sets)
    seconds = time.monotonic() - began
    _check_labelled(outcomes, _chosen(loaded, tasks), files, all_wanted=tasks is not None)
    evaluation = outcomes.evaluation()
    records = [record for some, _ in sets for record in some]
    moved: DriftMetrics | str = "it was not asked for"
    if drift:
        moved = measure_drift(loaded.predictor, loaded.config, records, runtime.threads)
    if not isinstance(moved, str):
        evaluation["drift"] = moved
    return EvaluationReport(
        loaded.path, tuple(files), evaluation, outcomes, moved if isinstance(moved, str) else "",
        records, tuple(notes), _confidence(outcomes, loaded), seconds,
    )  # fmt: skip


def _confidence(outcomes: Outcomes, loaded: LoadedModel) -> dict[str, ConfidenceMetrics]:
    """Return the metrics of the calibration of each task with scores."""
    calibrated = loaded.predictor.scorings
    return {
        name: found
        for name, task in outcomes.tasks.items()
        if (found := task.confidence(calibrated=name in calibrated)) is not None
    }


def labelled_sets(
    loaded: LoadedModel,
    data: StrPath | None,
    *,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    keep: Sequence[str] = (),
    warn: Callable[[str], None] = lambda text: None,
) -> tuple[list[str], list[tuple[list[Record], tuple[str, ...]]]]:
    """Read labelled records for a model, and warn of labels that it cannot predict.

    Args and errors are those of `evaluate`.

    Returns:
        the files' names, and the records of each with the tasks that they have labels for.
    """
    refuse_layout_alone(layout, data)
    chosen = _chosen(loaded, tasks)
    files = (
        {os.fspath(data): tuple(chosen)}
        if data is not None
        else own_validation_files(loaded, chosen)
    )
    layout = Layout.of(loaded.config) if data is None else layout
    return list(files), _read_sets(loaded, chosen, files, layout, keep, warn)


def _read_sets(
    loaded: LoadedModel,
    chosen: Mapping[str, TaskConfig],
    files: Mapping[str, tuple[str, ...]],
    layout: Layout | None,
    keep: Sequence[str],
    note: Callable[[str], None],
) -> list[tuple[list[Record], tuple[str, ...]]]:
    """Read the records of each file with the tasks to score on them, and note lost labels."""
    label_sets = {spec.name: spec.label_set() for spec in loaded.predictor.specs}
    sets = []
    for path, names in files.items():
        tasks = {name: chosen[name] for name in names}
        sets.append((_read_file(loaded, path, tasks, label_sets, layout, keep, note), names))
    for number, name in enumerate(keep):
        if all(record.kept[number] is None for records, _ in sets for record in records):
            raise _no_field(name, files, layout)
    for records, names in sets:
        reach = Reach.of({name: label_sets[name] for name in names})
        for message in reach.add_all(records, loaded.predictor.tokenizer).messages():
            note(message)
    return sets


def _no_field(name: str, files: Iterable[str], layout: Layout | None) -> RequestError:
    """Make the error for a field by which scores are compared, and which no record has."""
    rows = (row for path in files for row in read_rows(path, layout=layout))
    fields = dict.fromkeys(field for row in rows for field in row.fields)
    return RequestError(
        f"no record has the field {name!r}{nearest(name, fields)}",
        expected=f"a field of the records: {listing(fields)}",
        fix=f"Correct {option('--slice', '`slices`')}.",
    )


def _read_file(
    loaded: LoadedModel,
    path: str,
    tasks: Mapping[str, TaskConfig],
    label_sets: Mapping[str, LabelSet],
    layout: Layout | None,
    keep: Sequence[str],
    note: Callable[[str], None],
) -> list[Record]:
    records = list(
        read_records(
            path, tasks, label_sets, layout=layout, allow_unseen=True, keep=keep,
            read_elsewhere=loaded.config.tasks,
            on_unread=lambda message: note(f"{path}: {message}"),
        )
    )  # fmt: skip
    if not records:
        raise DataError("there is no record", where=path, expected="at least one")
    for name in tasks:
        unseen = unseen_labels(records, name, label_sets[name])
        if unseen:
            labels = counted(sum(unseen.values()), "label")
            note(
                f"{path}: unknown to the model and counted as errors: {labels} of task "
                f"{name!r}: {listing(f'{label} ({n})' for label, n in unseen.items())}"
            )
    return records


def _check_labelled(
    outcomes: Outcomes,
    chosen: Mapping[str, TaskConfig],
    files: Sequence[str],
    *,
    all_wanted: bool,
) -> None:
    """Refuse data without a label for any task, or for one of those that the user named."""
    labelled = [name for name, task in outcomes.tasks.items() if task.gold]
    for name in chosen if all_wanted or not labelled else ():
        if name not in labelled:
            raise DataError(
                f"no record has a label for task {name!r}", where=", ".join(files),
                expected=f"labels in the field {' or '.join(chosen[name].fields)}",
                fix="Evaluate another file, or only the tasks that it has labels for "
                f"({option('--task', '`tasks`')}).",
            )  # fmt: skip


def _chosen(loaded: LoadedModel, tasks: Sequence[str] | None) -> Mapping[str, TaskConfig]:
    known = loaded.config.tasks
    if tasks is not None and not tasks:
        raise RequestError("no task is named", expected=f"some of: {listing(known)}")
    for name in tasks or ():
        if name not in known:
            raise RequestError(
                f"the model has no task {shorten(name)}{nearest(name, known)}",
                expected=f"one of: {listing(known)}",
            )
    return {name: task for name, task in known.items() if tasks is None or name in tasks}


def refuse_learned(loaded: LoadedModel) -> None:
    """Refuse to score a model on the records of its run, if it has learned from all of them.

    Raises:
        ModelError: it has.
    """
    if loaded.config.refit is not None:
        raise ModelError(
            "the model has learned from all records of its run, and none is left to score it on",
            where=loaded.path,
            expected="other labelled data; or the model before, whose scores tell what to expect: "
            f"{loaded.config.refit}",
            fix=f"Name a file: {option('--file FILE', '`data`')}.",
        )


def own_validation_files(
    loaded: LoadedModel, chosen: Collection[str]
) -> dict[str, tuple[str, ...]]:
    """Return the files on which a model was chosen, each with those of the chosen tasks it is for.

    Raises:
        ModelError: one is missing, or may not be opened without being named (see `may_open`); or
            the model has learned from them (`refit`).
        ConfigError: a task has none.
    """
    refuse_learned(loaded)
    files = {
        path: tuple(name for name in names if name in chosen)
        for path, names in located(loaded.config, loaded.path).valid_files().items()
        if any(name in chosen for name in names)
    }
    for path in files:
        if not may_open(path, loaded.config, loaded.path):
            raise ModelError(
                f"the model's configuration names {path} as its validation data",
                where=loaded.path,
                expected="data that you name, or data beside the run that made the model, "
                "because a model may come from anywhere",
                fix="Name them: "
                + option(
                    f"manyheads evaluate MODEL --file {path}",
                    f"manyheads.evaluate(MODEL, {path!r})",
                ),
            )
    gone = [
        path
        for path in files
        if not is_in_memory(path) and not Path(without_split(path)[0]).exists()
    ]
    if gone:
        fix = "Name a file: " + option(
            "manyheads evaluate MODEL --file FILE", "manyheads.evaluate(MODEL, FILE)"
        )
        others = [name for path, names in files.items() if path not in gone for name in names]
        if others:
            chosen = option(f"--task {','.join(others)}", f"`tasks={others}`")
            fix += f"; or leave out what it validates: {chosen}"
        raise ModelError(
            f"the validation file {gone[0]} on which the model was chosen is missing",
            where=loaded.path,
            fix=fix,
        )
    return files
