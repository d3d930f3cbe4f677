"""The Python API: one function per command."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from manyheads.api.model import ExtendedModel, Model, TrainedModel
from manyheads.config import Config, load_config, make_config
from manyheads.data.readers import are_records, are_splits, in_memory, is_data_file
from manyheads.errors import ConfigError, shorten

if TYPE_CHECKING:
    from manyheads.api.progress import OnEpoch, OnStep
    from manyheads.data.augment import Augmented
    from manyheads.data.check import DataReport
    from manyheads.data.readers import Layout
    from manyheads.data.suspects import Suspects
    from manyheads.evaluation import CalibrationReport, EvaluationReport, ThresholdReport
    from manyheads.evaluation.report import Report
    from manyheads.evaluation.selection import Selection
    from manyheads.exporting import ExportResult
    from manyheads.storage import Prefer, StrPath
    from manyheads.training import Comparison, Reporter


def train(
    data: Any = None,
    *,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    valid: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a model and return it; the command is `manyheads train`.

    Args:
        data: labelled records: dicts, a DataFrame, an Arrow table, a `datasets.Dataset`, or the
            path of a file or several. Tasks that are not named are worked out. Or a configuration.
        config: a configuration, its YAML file, or a mapping of its values.
        valid: labelled records, or a file, on which the best model is chosen; default: a part of
            the data is held out.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter: shows progress in the place of that.
        on_step: called with a `StepReport` for each loss of a step.
        on_epoch: called at the end of an epoch with its losses, metrics and score.
        **settings: configuration fields, such as `num_epochs`, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    with ExitStack() as named:
        chosen = _train_config(data, config, valid, settings, named, resume)
        return _run(chosen, resume, overwrite, progress, reporter, on_step, on_epoch)


def _train_config(
    data: Any, config: Any, valid: Any, settings: Mapping[str, Any], named: ExitStack, resume: bool
) -> Config:
    """Return the configuration that data and settings mean; records keep their names in `named`."""
    from manyheads.training.files import run_config

    if valid is not None:
        settings = {**settings, "valid_file": _named(valid, "valid", named)}
    if isinstance(data, Mapping | Config) and not are_splits(data):
        config, data = _only(data, config), None
    if data is None:
        return _as_config(config, settings)
    several = isinstance(data, list | tuple) and not are_records(data)
    paths = [_named(one, "train", named) for one in (data if several else [data])]
    if config is not None:
        return _as_config(config, {**settings, "files": paths})
    return run_config(paths, settings, resume=resume).config


def _named(data: Any, name: str, named: ExitStack) -> str:
    """Return the path of data, or a name for records in memory until the stack is closed."""
    if isinstance(data, str | os.PathLike):
        return os.fspath(data)
    return named.enter_context(in_memory(data, name))


def _only(first: Any, config: Any) -> Any:
    """Return the first argument of a verb, a configuration, unless there is another one."""
    if config is not None:
        raise ConfigError(
            "there are two configurations", expected="one", fix="Leave out one of the two."
        )
    return first


def _run(
    config: Config,
    resume: bool,
    overwrite: bool,
    progress: bool,
    reporter: Reporter | None,
    on_step: OnStep | None = None,
    on_epoch: OnEpoch | None = None,
) -> TrainedModel:
    from manyheads.api.progress import Calling, progress_of
    from manyheads.inference import load_model
    from manyheads.training import Reporter
    from manyheads.training import train as verb

    shown = reporter or (progress_of(config) if progress else Reporter())
    try:
        calling = Calling(shown, on_step, on_epoch)
        result = verb(config, resume=resume, overwrite=overwrite, reporter=calling)
    finally:
        shown.end()
    return TrainedModel(result, lambda: load_model(result.best, threads=config.threads))


def add_head(
    model: StrPath,
    task: str,
    *,
    kind: str,
    train_file: Any,
    valid_file: Any,
    save_dir: StrPath,
    task_settings: Mapping[str, Any] | None = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    **settings: Any,
) -> TrainedModel:
    """Add a task to a trained model; its other outputs stay bit-identical.

    The encoder is frozen unless `freeze` says otherwise. The command is `manyheads add-head`.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: name of the new task.
        kind: kind of the task.
        train_file: training records of the task, in memory or a file.
        valid_file: validation records of the task.
        save_dir: folder of the new model, which has the old tasks and the new one.
        task_settings: other fields of the task, such as `field` and `decoder`.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter: shows progress in the place of that.
        **settings: configuration fields, such as `num_epochs`; `freeze` to train the encoder.

    Raises:
        ManyheadsError: the model, data, a setting or the folder is invalid.
    """
    from manyheads.training import add_head_config

    with ExitStack() as named:
        own = {
            "kind": kind,
            "train_file": _named(train_file, "train", named),
            "valid_file": _named(valid_file, "valid", named),
        }
        config = add_head_config(
            model,
            task,
            {**(task_settings or {}), **own},
            {**settings, "save_dir": os.fspath(save_dir)},
        )
        return _run(config, resume, overwrite, progress, reporter)


def distill(
    teachers: StrPath | Sequence[StrPath],
    texts: Any = None,
    *,
    save_dir: StrPath = "distilled",
    train_file: Any = None,
    valid_file: Any = None,
    resume: bool = False,
    overwrite: bool = False,
    progress: bool = True,
    reporter: Reporter | None = None,
    **settings: Any,
) -> TrainedModel:
    """Train a student on the answers of trained models; the command is `manyheads distill`.

    Args:
        teachers: a trained model or several, whose mean is learned; or files of soft labels beside
            a model. Tasks, data and settings are those of the first model.
        texts: unlabelled sentences: strings, records in memory, or a file.
        save_dir: folder of the student.
        train_file: labelled records in memory, or a file; default: the teacher's.
        valid_file: the same, to choose the best epoch by; default: the teacher's.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter: shows progress in the place of that.
        **settings: configuration fields, such as `student_layers`.

    Raises:
        ManyheadsError: a teacher, the data, a setting or the folder is invalid.
    """
    from manyheads.training import distill_config

    sources = [teachers] if isinstance(teachers, str | os.PathLike) else list(teachers)
    with ExitStack() as named:
        files = {
            key: _named(data, name, named)
            for key, data, name in (
                ("train_file", train_file, "train"),
                ("valid_file", valid_file, "valid"),
            )
            if data is not None
        }
        if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
            texts = [{"text": text} for text in texts]
        path = None if texts is None else _named(texts, "texts", named)
        chosen = {**settings, **files, "save_dir": os.fspath(save_dir)}
        config = distill_config(sources, path, chosen)
        return _run(config, resume, overwrite, progress, reporter)


def add_label(
    model: StrPath,
    task: str,
    *,
    train_file: Any,
    kept: Any = None,
    save_dir: StrPath = "extended_model",
    overwrite: bool = False,
    threads: int | None = None,
    progress: bool = True,
) -> ExtendedModel:
    """Add classes or entity types to a trained task from a few examples.

    The weights of the old labels, the other tasks and the embedding stay as they are. The command
    is `manyheads add-label`.

    Args:
        model: a model folder, a checkpoint or a run's folder; it is not changed.
        task: the task.
        train_file: examples of the new labels, in memory or a file.
        kept: labelled records of the old labels, by which the new ones are kept apart from them and
            changed answers are counted; default: the validation data of the run.
        save_dir: folder of the new model.
        overwrite: replace the model in `save_dir`.
        threads: processor threads; default: all available cores.
        progress: whether each step is written to standard error.

    Raises:
        ManyheadsError: the model, a file or the folder cannot be used, or no label is new.
    """
    from manyheads.inference import load_model
    from manyheads.training import add_label as verb

    with ExitStack() as named:
        result = verb(
            model,
            task,
            train_file=_named(train_file, "new", named),
            kept=None if kept is None else _named(kept, "kept", named),
            save_dir=save_dir,
            overwrite=overwrite,
            threads=threads,
            report=_tell("add-label", progress),
        )
    return ExtendedModel(result, lambda: load_model(result.path, threads=threads))


def load(
    model: StrPath = "saved_model",
    *,
    backend: str = "auto",
    device: str = "auto",
    threads: int | None = None,
) -> Model:
    """Load a model.

    Args:
        model: a model folder, a checkpoint, a run's folder (its best model), or the name of a model
            on the hub: `user/name`, or `user/name@revision`.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        threads: processor threads; default: all available cores.

    Raises:
        ModelError: there is no such model, or it is damaged.
        RequestError: the backend or device is unknown or not available.
    """
    from manyheads.inference import load_model

    loaded = load_model(model, backend=backend, device=device, threads=threads)
    return Model(lambda: loaded)


def push(model: StrPath, name: str, *, private: bool = False) -> str:
    """Push a model to the Hugging Face hub, for `load(name)`; the command is `manyheads push`.

    Safetensors, JSON and the model card are sent, and nothing else.

    Args:
        model: a model folder, or a run's folder (its best model).
        name: `user/name`; the repository is made if it does not exist.
        private: whether a new repository can be seen by its owner alone.

    Returns:
        the name with the commit, which loads this state of the model at any later time.

    Raises:
        ManyheadsError: the model or the name is invalid, or the hub refuses or cannot be reached.
    """
    from manyheads.storage import push_model, resolve_model

    return push_model(resolve_model(model), name, private=private)


def evaluate(
    model: StrPath | None = None,
    data: Any = None,
    *,
    checkpoint: Prefer | None = None,
    tasks: Sequence[str] | None = None,
    backend: str = "auto",
    device: str = "auto",
) -> EvaluationReport:
    """Score a model on labelled records; the command is `manyheads evaluate`.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default: `saved_model`.
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        checkpoint: which model of a run's folder is scored; default: the best one, or the latest
            where no model is named.
        tasks: the tasks to score; default: all that the data have labels for.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.

    Raises:
        ManyheadsError: the model or the data cannot be used, or have no label in common.
    """
    from manyheads.evaluation import evaluate as verb

    with ExitStack() as named:
        path = None if data is None else _named(data, "evaluation", named)
        return verb(
            model, data=path, checkpoint=checkpoint, tasks=tasks, backend=backend, device=device
        )


def calibrate(
    model: StrPath = "saved_model",
    data: Any = None,
    *,
    unknown: StrPath | None = None,
    threads: int | None = None,
) -> CalibrationReport:
    """Calibrate a trained model's scores; the command is `manyheads calibrate`.

    Training does this by itself. The calibration is stored in the model's folder; thresholds are of
    the scores before, and are removed.

    Args:
        model: a model folder, or a run's folder (its best model).
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        unknown: a file of texts that are of no class that the model knows.
        threads: processor threads; default: all available cores.

    Raises:
        ManyheadsError: the model or the data cannot be used, or there are too few records.
    """
    from manyheads.evaluation import calibrate as verb

    with ExitStack() as named:
        path = None if data is None else _named(data, "calibration", named)
        return verb(model, data=path, unknown=unknown, threads=threads)


def thresholds(
    model: StrPath = "saved_model",
    data: Any = None,
    *,
    precision: float = 0.95,
    confidence: float = 0.95,
    tasks: Sequence[str] | None = None,
    threads: int | None = None,
) -> ThresholdReport:
    """Find the scores from which a share of the answers is right, and store them in the model.

    The command is `manyheads thresholds`. Load the model again to predict with them.

    Args:
        model: a model folder, or a run's folder (its best model).
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        precision: the share of answers that has to be right.
        confidence: the probability with which it has to hold on further data of the same kind.
        tasks: the tasks; default: all that are calibrated.
        threads: processor threads; default: all available cores.

    Raises:
        ManyheadsError: the model is not calibrated, the data cannot be used, or a share is
            impossible.
    """
    from manyheads.evaluation import thresholds as verb

    with ExitStack() as named:
        path = None if data is None else _named(data, "thresholds", named)
        return verb(
            model, precision=precision, confidence=confidence, data=path, tasks=tasks,
            threads=threads,
        )  # fmt: skip


def export(
    model: StrPath = "saved_model",
    *,
    formats: Sequence[str] | None = None,
    data: Any = None,
    limit: float = 0.3,
    threads: int | None = None,
    progress: bool = True,
) -> ExportResult:
    """Add fast graphs of a model to its folder; the command is `manyheads export`.

    Each graph is compared with PyTorch first. `load` then runs the fastest one.

    Args:
        model: a model, its folder, or a run's folder.
        formats: `float32`, `int8` (both ONNX) or `openvino`; default: the first two.
        data: labelled records to compare on, or a file; default: the validation data of the run.
        limit: hundredths of its main metric that a task may lose to int8, beyond chance.
        threads: processor threads; default: all available cores.
        progress: whether each step is written to standard error.

    Raises:
        ManyheadsError: the model, the data or a format cannot be used.
    """
    from manyheads.exporting import DEFAULT_FORMATS, export_model

    with ExitStack() as named:
        path = None if data is None else _named(data, "comparison", named)
        return export_model(
            model, formats=formats or DEFAULT_FORMATS, data=path, limit=limit, threads=threads,
            progress=_tell("export", progress),
        )  # fmt: skip


def _tell(verb: str, progress: bool) -> Callable[[str], None]:
    """Return what writes a verb's messages to standard error, if progress is shown."""

    def tell(text: str) -> None:
        if progress:
            print(f"{verb}: {text}", file=sys.stderr, flush=True)

    return tell


def check(
    *data: Any,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    tasks: Mapping[str, Any] | None = None,
    max_length: int | None = None,
    limit: int = 10,
    layout: Layout | None = None,
) -> DataReport:
    """Find what is wrong with data before training; the command is `manyheads data check`.

    Args:
        *data: labelled records in memory or files, those for training first; default: the files
            of the configuration.
        config: a configuration: its tasks, encoder and files.
        tasks: the tasks by name, as in a configuration; default: those of `config`, or what the
            usual fields hold.
        max_length: tokens of a record that training reads; default: that of `config`.
        limit: findings of a kind that are listed for a file.
        layout: how files are laid out, as far as you know it.

    Raises:
        DataError: a file is missing, blank, of no known format, or given twice.
        RequestError: there are neither data nor a configuration.
    """
    from manyheads.api.checking import check_files

    settings = None if config is None else _as_config(config, {})
    wanted = None if tasks is None else make_config({"tasks": tasks}).tasks
    with ExitStack() as named:
        paths = [_named(one, f"data {n}", named) for n, one in enumerate(data, 1)]
        return check_files(paths, settings, wanted, max_length, limit=limit, layout=layout)


def suspects(
    data: Any,
    *,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    tasks: Mapping[str, Any] | None = None,
    count: int | None = None,
    out: StrPath | None = None,
    label_studio: StrPath | None = None,
    fix: StrPath | None = None,
    layout: Layout | None = None,
    progress: bool = True,
    **settings: Any,
) -> Suspects:
    """Rank the labels that are likely wrong; the command is `manyheads data suspects`.

    Args:
        data: labelled records in memory or a file of any format; it is not changed.
        config: a configuration: its tasks and encoder.
        tasks: the tasks by name, as in a configuration; default: those of `config`, or what is
            found in the data.
        count: how many to return, the likeliest first; default: all that are likely wrong.
        out: where to write them as JSON lines.
        label_studio: where to write their records for Label Studio.
        fix: where to write the data with the proposals in place of the labels.
        layout: how a file is laid out, as far as you know it.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        **settings: configuration fields, such as `model_name`, `threads` and `seed`.

    Raises:
        ManyheadsError: the data, a setting or the encoder cannot be used.
    """
    from manyheads.api.suspect_search import search
    from manyheads.display import Counter

    wanted = None if tasks is None else make_config({"tasks": tasks}).tasks
    given = None if config is None else _as_config(config, {})
    with ExitStack() as named:
        return search(
            _named(data, "data", named), given, wanted, layout, settings, count=count, out=out,
            label_studio=label_studio, fix=fix,
            progress=lambda total: Counter(
                "Looking for wrong labels", total, "records", enabled=progress
            ),
        )  # fmt: skip


def select(
    pool: Any,
    model: StrPath = "saved_model",
    *,
    count: int = 100,
    tasks: Sequence[str] | None = None,
    out: StrPath | None = None,
    layout: Layout | None = None,
    seed: int = 0,
    backend: str = "auto",
    device: str = "auto",
    progress: bool = True,
) -> Selection:
    """Choose the texts most worth labelling next; the command is `manyheads data select`.

    Args:
        pool: records in memory or a file of any format; labels are not read.
        model: the model that is to become better.
        count: how many texts to choose.
        tasks: the tasks whose answers count; default: all.
        out: where to write them as JSON lines.
        layout: how a file is laid out, as far as you know it.
        seed: determines where the clusters begin.
        backend: what runs the model.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.
        progress: whether progress is shown.

    Raises:
        ManyheadsError: the model or the pool cannot be used.
    """
    from manyheads.api.suspect_search import chosen_texts
    from manyheads.display import Counter

    with ExitStack() as named:
        return chosen_texts(
            _named(pool, "pool", named), model, count, tasks=tasks, layout=layout, seed=seed,
            out=out, backend=backend, device=device,
            progress=lambda: Counter("Reading", unit="texts", enabled=progress),
        )  # fmt: skip


def report(
    model: StrPath | None = None,
    data: Any = None,
    *,
    against: StrPath | None = None,
    suspects: bool = False,
    out: StrPath | None = None,
    checkpoint: Prefer | None = None,
    layout: Layout | None = None,
    tasks: Sequence[str] | None = None,
    slices: Sequence[str] = (),
    backend: str = "auto",
    device: str = "auto",
) -> Report:
    """Report what a model gets wrong; the command is `manyheads report`.

    Args:
        model: a model folder, a checkpoint, or a run's folder; default: `saved_model`.
        data: labelled records in memory or a file of any format; default: the validation data of
            the run.
        against: another model; what changed from it to `model` is shown, and whether it can be
            chance.
        suspects: whether to look for wrong labels in the training data (see `suspects`).
        out: where to write the report, as Markdown if it ends with `.md`, or else as an HTML page;
            default: nowhere.
        checkpoint: which model of a run's folder is scored; default: the best one.
        layout: how `data` are laid out, where content and names do not show it.
        tasks: the tasks to score; default: all that the data have labels for.
        slices: fields of the records by whose values scores are compared.
        backend: what runs the model; `auto` selects the fastest exported graph, or PyTorch.
        device: `auto`, `cpu`, `cuda`, `cuda:N` or `mps`, for PyTorch.

    Raises:
        ManyheadsError: the model or the data cannot be used, or no record has a field of `slices`.
    """
    from manyheads.evaluation.report import report as verb

    with ExitStack() as named:
        path = None if data is None else _named(data, "report", named)
        found = verb(
            model, data=path, against=against, suspects=_find_suspects if suspects else None,
            checkpoint=checkpoint, layout=layout, tasks=tasks, slices=slices, backend=backend,
            device=device,
        )  # fmt: skip
    if out is not None:
        from manyheads.display.report import html_page, markdown
        from manyheads.storage import atomic_file

        as_markdown = os.fspath(out).lower().endswith(".md")
        with atomic_file(out) as stream:
            stream.write((markdown if as_markdown else html_page)(found).encode())
    return found


def _find_suspects(path: str, config: Config) -> Suspects:
    from manyheads.api.suspect_search import shown_search

    return shown_search(path, config)


def compare(
    data: Any,
    *,
    config: Config | StrPath | Mapping[str, Any] | None = None,
    valid: Any = None,
    seeds: int = 3,
    out: StrPath = "comparison",
    test_files: Mapping[str, StrPath] | StrPath | None = None,
    **settings: Any,
) -> Comparison:
    """Compare joint training with training each task alone; the command is `manyheads compare`.

    Args:
        data: labelled records or a file, as for `train`, or a configuration.
        config: a configuration with two tasks or more, its file, or a mapping of its values.
        valid: labelled records, or a file, on which the best models are chosen.
        seeds: number of runs of each option.
        out: folder of the runs and the result; an interrupted comparison is resumed there.
        test_files: labelled data to score on, one file or a file per task; default: the
            validation data.
        **settings: configuration fields, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    from manyheads.training import compare as verb

    with ExitStack() as named:
        files = {} if valid is None else {"valid_file": _named(valid, "valid", named)}
        if not _is_config(data):
            files["train_file"] = _named(data, "train", named)
        elif data is not None:
            config = _only(data, config)
        chosen = _as_config(config, {**settings, **files})
        return verb(chosen, seeds=seeds, out=out, test_files=test_files)


def convert(
    source: Any,
    target: StrPath,
    *,
    to: str = "manyheads",
    layout: Layout | None = None,
    model: StrPath | None = None,
    on_unread: Callable[[Mapping[str, int]], None] | None = None,
) -> int:
    """Write data of any format as ours or for a labelling tool; see `manyheads.data.convert`.

    The source may be records in memory. With a model, its predictions are written beside or in
    place of labels.
    """
    from manyheads.data.convert import convert as verb

    predict = None if model is None else load(model).predict_stream
    with ExitStack() as named:
        path = _named(source, "convert", named)
        return verb(path, target, to=to, layout=layout, predict=predict, on_unread=on_unread)


def augment(
    source: Any,
    target: StrPath,
    *,
    copies: int = 1,
    seed: int = 42,
    layout: Layout | None = None,
) -> Augmented:
    """Write records, and new ones with exchanged entities; see `manyheads.data.augment`.

    Args:
        source: labelled records in memory, or a file of any format.
        target: the JSON lines to write.
        copies: new records made from each record.
        seed: determines the new records.
        layout: how `source` is laid out, where content and names do not show it.

    Raises:
        DataError: the records cannot be read, or have no entity that can be exchanged.
    """
    from manyheads.data.augment import augment as verb

    with ExitStack() as named:
        path = _named(source, "augmented", named)
        return verb(path, target, copies=copies, seed=seed, layout=layout)


def _is_config(data: Any) -> bool:
    """Return whether an argument is a configuration, or none, rather than data."""
    if isinstance(data, str | os.PathLike):
        return not is_data_file(os.fspath(data))
    return data is None or (isinstance(data, Config | Mapping) and not are_splits(data))


def _as_config(
    config: Config | StrPath | Mapping[str, Any] | None, settings: Mapping[str, Any]
) -> Config:
    if config is None or isinstance(config, str | os.PathLike):
        return load_config(config, settings)
    if isinstance(config, Config):
        return (
            load_config(None, {**config.model_dump(exclude_unset=True), **settings})
            if settings
            else config
        )
    if isinstance(config, Mapping):
        return load_config(None, {**config, **settings})
    raise ConfigError(
        f"the configuration is {shorten(config)}", expected="a Config, a path or a mapping"
    )
