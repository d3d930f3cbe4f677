"""Adding labels to a trained head: new rows of its parameters, fitted to a few examples.

All other parameters are unchanged. The old labels' scores therefore stay the same, and a decision
changes only where a new label scores higher. Records with old labels ("kept records") are the
negative examples: two thirds of them are used for fitting, the others are scored before and after.
Where the former have few records of an old label, training records of the run are added to them.
With one label a text, the new labels' scores are lowered until old answers are rarely lost in a
cross-validation on the former.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from manyheads.config import Config, TaskConfig
from manyheads.data.own_files import moved_config, training_records
from manyheads.data.readers import Layout
from manyheads.data.records import Record, alike, label_names, read_records, spelt_like
from manyheads.errors import (
    ConfigError,
    DataError,
    ModelError,
    RequestError,
    at,
    counted,
    listing,
    nearest,
    option,
)
from manyheads.evaluation import own_validation_files, score
from manyheads.inference import LoadedModel, Predictor, store_calibration
from manyheads.inference.backends.pytorch import TrainedModel, load_trained, predictor_of_model
from manyheads.modeling import (
    Head,
    MultiTaskModel,
    choose_compute,
    make_head,
    model_contents,
    save_model_folder,
)
from manyheads.sampling import drawn
from manyheads.storage import (
    Manifest,
    StrPath,
    change_calibration,
    explained,
    read_manifest,
    refuse_other_folder,
    resolve_model,
)
from manyheads.tasks import LabelSet, TaskSpec, kind_of
from manyheads.tasks.found import natural_order
from manyheads.tasks.metrics import numbers
from manyheads.training.data.dataset import build_dataset
from manyheads.training.kept_scope import KeptScope
from manyheads.training.new_rows import (
    FOLDS,
    RowBatch,
    batches_of,
    fit,
    fit_within,
    grow,
    last_layer,
)
from manyheads.training.one_run import one_run

LIMIT = 0.3
"""The most right answers with old labels that may be lost, in percentage points of the kept
records."""
MOST_KEPT = 6000
"""The most kept records that are used, drawn from the whole file."""
FEW_KEPT = 20
"""Old labels with fewer records to fit get training records of the run, up to this number."""
FEW_SCORED = 50
"""With fewer kept records to score, a warning says so."""


@dataclass(frozen=True)
class AddedLabels:
    """A model with new labels, and what they changed for the old ones."""

    path: Path
    """The new model's folder."""
    task: str
    examples: Mapping[str, int]
    """The number of records of each new label."""
    kept: int
    """The number of kept records that were scored."""
    changed: int
    """How many of these have another answer than before."""
    before: float
    """The task's main metric on them before."""
    after: float

    def __str__(self) -> str:
        labels = listing(f"{name} ({n})" for name, n in self.examples.items())
        return (
            f"New labels of {self.task} (examples): {labels}. Of {counted(self.kept, 'record')} "
            f"with old labels, {self.changed} {'has' if self.changed == 1 else 'have'} another "
            f"answer; their score was {self.before:.4f} and is now {self.after:.4f}."
        )


@one_run()
def add_label(
    model: StrPath,
    task: str,
    *,
    train_file: str,
    kept: str | None = None,
    save_dir: StrPath,
    limit: float = LIMIT,
    overwrite: bool = False,
    threads: int | None = None,
    report: Callable[[str], None] = lambda text: None,
    warn: Callable[[str], None] = lambda text: None,
) -> AddedLabels:
    """Add the labels of a file that a trained model's task lacks to that task.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: the task.
        train_file: examples of the new labels, and possibly of old ones.
        kept: records with old labels. Default: the validation data of the run, and training records
            where they have few of an old label.
        save_dir: the folder of the new model.
        limit: the right answers that may be lost, in percentage points of the kept records, for
            tasks with one label a text.
        overwrite: whether to replace a model in that folder.
        threads: processor threads; default: all available cores.
        report: receives messages for the user.
        warn: receives warnings: of new labels spelt like others, of old labels without kept
            records, and of a check on few records.

    Raises:
        ManyheadsError: the model, a file or the folder cannot be used, no label is new, or another
            thread trains.
    """
    if not 0 <= limit <= 100:
        raise RequestError(f"the limit is {limit}", expected="0 to 100 percentage points")
    path = resolve_model(model)
    _check_target(Path(save_dir), path, overwrite)
    trained = load_trained(path)
    compute = choose_compute("cpu", "float32", threads)
    head = _extensible(trained, task, path)
    examples, new = _examples(trained.config.tasks[task], task, head.labels, train_file)
    labels = head.labels.extended(new)
    _warn_of_alike(task, head.labels, new, warn)
    report(f"New labels of {task}: {listing(new)}. Reading kept records ...")
    predictor = predictor_of_model(trained.model, compute, trained.tokenizer, trained.max_length)
    old = LoadedModel(os.fspath(path), predictor, trained.config)
    records = _kept_records(old, task, head.labels, kept, report)
    fitted, scored = [r for i, r in enumerate(records) if i % 3], records[::3]
    if kept is None:
        fitted += _training_records(old, task, head.labels, fitted)
    _warn_of_few(task, head.labels, fitted, scored, warn)
    config = _extended_config(trained.config, task, labels)
    report(f"Fitting {counted(len(labels) - len(head.labels), 'row')} of the head ...")
    read = replace(trained, tokenizer=predictor.tokenizer, config=config)
    extended = _extended(read, task, labels, examples, fitted, limit)
    after = predictor_of_model(extended, compute, trained.tokenizer, trained.max_length)
    changed, scores = _compared(predictor, after, task, scored)
    with explained(save_dir):
        Path(save_dir).parent.mkdir(parents=True, exist_ok=True)
    # Its data stay with the run of the old model.
    stored = moved_config(config, path, save_dir)
    contents = model_contents(
        extended, stored, trained.max_length, _metrics(trained.manifest, task)
    )
    save_model_folder(save_dir, contents)
    _carry_calibrations(trained.manifest, Path(save_dir), task, warn)
    counts = _counts(examples, task, new)
    return AddedLabels(Path(save_dir), task, counts, len(scored), changed, *scores)


def _extended(
    trained: TrainedModel,
    task: str,
    labels: LabelSet,
    examples: Sequence[Record],
    kept: Sequence[Record],
    limit: float,
) -> MultiTaskModel:
    """Return a model whose head for a task is fitted to further labels.

    Args:
        trained: the model, with the configuration and tokenizer for all labels. The new model
            shares its other weights.
        task: the task.
        labels: all labels, the old ones first.
        examples: records with new labels.
        kept: records with old labels.
        limit: see `add_label`.
    """
    model, settings = trained.model, {task: trained.config.tasks[task]}
    head = model.head(task)
    grown = make_head(settings[task], labels, model.encoder.shape).eval()
    masks = grow(grown, head)
    layer = last_layer(grown, masks, head.kind)
    heads = {name: model.head(name) for name in model.heads}
    extended = MultiTaskModel(model.encoder, {**heads, task: grown}, model.head_layers)

    def batches(records: Sequence[Record], source: str) -> list[RowBatch]:
        data = build_dataset(
            records, source, settings, {task: labels}, trained.tokenizer, trained.max_length
        )
        return list(batches_of(extended, task, layer, data))

    learned = batches(examples, "the examples"), batches(kept, "the kept records")
    if kind_of(head.kind).exclusive and len(kept) >= FOLDS:
        fit_within(grown, layer, masks, *learned, limit)
    else:
        fit(grown, layer, masks, *learned)
    return extended.eval()


def _compared(
    before: Predictor, after: Predictor, task: str, records: Sequence[Record]
) -> tuple[int, tuple[float, float]]:
    """Return how many records have another answer, and the score before and after."""
    outcomes = [score(one, [(records, (task,))]).tasks[task] for one in (before, after)]
    shown = [[kind_of(o.spec.kind).shown(o.spec, p) for p in o.predicted] for o in outcomes]
    first, second = (numbers(o.metrics())[o.spec.main_metric] for o in outcomes)
    return sum(a != b for a, b in zip(*shown, strict=True)), (first, second)


# -------------------------------------------------------------------------------------- what is new


def _check_target(target: Path, model: Path, overwrite: bool) -> None:
    if target.resolve() in (model.resolve(), *model.resolve().parents):
        raise RequestError(
            "is the model that is extended", where=at(target), expected="another folder",
            fix=f"Name one: {option('--output DIR', '`save_dir`')}.",
        )  # fmt: skip
    refuse_other_folder(target)
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise RequestError(
            "holds a model", where=at(target),
            fix=f"Replace it with {option('--overwrite')}, or name another folder: "
            f"{option('--output DIR', '`save_dir`')}.",
        )  # fmt: skip


def _extensible(trained: TrainedModel, task: str, path: Path) -> Head:
    """Return the head of a task to which labels can be added.

    Raises:
        RequestError: there is no such task, or its labels have no names.
    """
    if task not in trained.model.heads:
        raise RequestError(
            f"the model has no task {task!r}{nearest(task, trained.model.heads)}", where=at(path),
            expected=f"one of: {listing(trained.model.heads)}",
            fix=f"For a new task, use {option('`manyheads add-head`', 'manyheads.add_head')}.",
        )  # fmt: skip
    head = trained.model.head(task)
    kind = kind_of(head.kind)
    if not kind.named_labels or kind.pairs:
        raise RequestError(
            f"the task {task!r} is of kind {head.kind}", where=at(path),
            expected="a task whose labels have names, for single texts",
        )  # fmt: skip
    return head


def _examples(
    settings: TaskConfig, task: str, old: LabelSet, file: str
) -> tuple[list[Record], list[str]]:
    """Read the examples, and return them with the names of their new labels.

    Raises:
        DataError: a record does not fit the task, or none has a new label.
    """
    free = settings.model_copy(update={"labels": None, "num_labels": None})
    known = frozenset(old.record_names)
    records = [one for one in read_records(file, {task: free}, {}) if task in one.labels]
    found = [name for record in records for name in label_names(record.labels[task])]
    new = natural_order(dict.fromkeys(name for name in found if name not in known))
    if not new:
        raise DataError(
            f"no record has a new label of the task {task!r}", where=file,
            expected=f"others than: {listing(sorted(known))}",
            fix="To train on with the same labels, use "
            f"{option('`manyheads train`', 'manyheads.train')} with `init_from`.",
        )  # fmt: skip
    numeral = next((name for name in new if name.isdecimal()), None)
    if numeral is not None and not any(name.isdecimal() for name in known):
        raise DataError(
            f"the label {numeral} of the task {task!r} looks like an index", where=file,
            expected=f"names, as the model has: {listing(sorted(known))}",
        )  # fmt: skip
    return records, new


def _warn_of_alike(
    task: str, old: LabelSet, new: Sequence[str], warn: Callable[[str], None]
) -> None:
    for group in alike([*old.record_names, *new]):
        if not set(new).isdisjoint(group):
            warn(
                f"the labels {listing(map(repr, group))} of the task {task!r} differ only in case "
                "or white space. Give one class one name."
            )
    for label, other in spelt_like(new, old.record_names):
        warn(
            f"the new label {label!r} of the task {task!r} is spelt like {other!r}. Is it that one?"
        )


def _counts(records: Sequence[Record], task: str, new: Sequence[str]) -> dict[str, int]:
    counts = _frequencies(records, task)
    return {name: counts[name] for name in new}


def _name_kept() -> str:
    return f"Name labelled records: {option('--kept FILE')}."


def _kept_records(
    model: LoadedModel,
    task: str,
    old: LabelSet,
    file: str | None,
    report: Callable[[str], None],
) -> list[Record]:
    """Read records with old labels, and return them in random order.

    Raises:
        RequestError: no file is named, and the run's validation data are not available.
        DataError: fewer than three records have old labels.
    """
    layout = None
    if file is None:
        try:
            file = next(iter(own_validation_files(model, [task])))
        except (ConfigError, ModelError) as error:
            raise RequestError(
                f"adding labels needs records with the old ones: {error.found}",
                where=error.where, fix=_name_kept(),
            ) from None  # fmt: skip
        layout = Layout.of(model.config)
    settings = {task: model.config.tasks[task]}
    read = read_records(file, settings, {task: old}, layout=layout, allow_unseen=True)
    # Not the first ones: files are often sorted by class, or take turns with the classes.
    records, total = drawn(_with_old_labels(read, task, old), MOST_KEPT)
    if total > len(records):
        report(f"Using {len(records):,} of {total:,} kept records, drawn at random.")
    if len(records) < 3:
        raise DataError(
            f"{counted(len(records), 'record')} with old labels of the task {task!r}", where=file,
            expected="at least 3, from which the new labels are told apart",
            fix=_name_kept(),
        )  # fmt: skip
    return records


def _training_records(
    model: LoadedModel, task: str, old: LabelSet, fitted: Sequence[Record]
) -> list[Record]:
    """Return training records of the run for the old labels of which few records are fitted.

    Most of the time the others suffice, and are better: a model is surer of its training records
    than of other texts.
    """
    counts = _frequencies(fitted, task)
    found: list[Record] = []
    with suppress(DataError):  # a warning names the labels that stay without records
        training = training_records(model.config, {task: old}, model.path)
        for record in _with_old_labels(training, task, old):
            if all(counts[name] >= FEW_KEPT for name in old.record_names):
                break
            names = {*label_names(record.labels[task])}
            if any(counts[name] < FEW_KEPT for name in names):
                counts.update(names)
                found.append(record)
    return found


def _warn_of_few(
    task: str,
    old: LabelSet,
    fitted: Sequence[Record],
    scored: Sequence[Record],
    warn: Callable[[str], None],
) -> None:
    counts = _frequencies(fitted, task)
    if missing := [name for name in old.record_names if not counts[name]]:
        warn(
            f"the task {task!r}: no kept record is labelled {listing(missing)}; the new labels are "
            f"not told apart from {'them' if len(missing) > 1 else 'it'}. {_name_kept()}"
        )
    if len(scored) < FEW_SCORED:
        warn(
            f"the task {task!r}: what the new labels cost the old ones is counted on only "
            f"{counted(len(scored), 'record')}; evaluate the new model on others. {_name_kept()}"
        )


def _with_old_labels(records: Iterable[Record], task: str, old: LabelSet) -> Iterator[Record]:
    known = frozenset(old.record_names)
    for record in records:
        if task in record.labels and known.issuperset(label_names(record.labels[task])):
            yield record


def _frequencies(records: Iterable[Record], task: str) -> Counter[str]:
    """Return how many records have each label."""
    return Counter(name for one in records for name in {*label_names(one.labels[task])})


def _extended_config(config: Config, task: str, labels: LabelSet) -> Config:
    """Return the configuration with all labels in the task's settings."""
    settings = config.tasks[task]
    update: dict[str, Any] = {}
    if settings.labels is not None:
        update["labels"] = labels.names
    if settings.num_labels is not None:
        update["num_labels"] = len(labels)
    tasks = {**config.tasks, task: settings.model_copy(update=update)}
    return config.model_copy(update={"tasks": tasks})


def _metrics(old: Manifest | None, task: str) -> dict[str, Any]:
    """Return a model's stored scores without those of a task."""
    metrics = {} if old is None else dict(old.metrics)
    if metrics:
        metrics["tasks"] = {n: scores for n, scores in metrics["tasks"].items() if n != task}
        metrics.pop("frame_accuracy", None)
        metrics.pop("before_refit", None)
    return metrics


def _carry_calibrations(
    old: Manifest | None, new: Path, task: str, warn: Callable[[str], None]
) -> None:
    """Copy the calibrations of the other tasks, and a scope that one of them tells.

    Their scores are unchanged. What the task itself had is left out, with a message.
    """
    if old is None:
        return
    known = old.calibration.get("tasks", {})
    others = {name: scores for name, scores in known.items() if name != task}
    kept = KeptScope.of_model(old, [*map(TaskSpec.from_json, old.tasks)])
    lost = [
        name
        for name, had in (
            ("the calibration", task in known),
            ("the thresholds", known.get(task, {}).get("thresholds") is not None),
            ("`in_scope`", kept is not None and kept.scope.task == task),
        )
        if had
    ]
    if kept is not None and kept.scope.task != task:
        store_calibration(
            read_manifest(new), lambda own: {**own, "tasks": others}, kept.scope, kept.source,
            kept.unknown,
        )  # fmt: skip
    elif others:
        change_calibration(read_manifest(new), lambda own: {**own, "tasks": others})
    if lost:
        warn(
            f"{listing(lost)} of {task}: for the old labels alone, so the new model has none. Run: "
            + option(
                f"manyheads calibrate {new} --file FILE", f"manyheads.calibrate({str(new)!r}, FILE)"
            )
        )
