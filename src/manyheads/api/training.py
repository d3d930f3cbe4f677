"""The verbs that train: `train`, `demo`, `add_head`, `add_label`, `distill` and `compare`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from manyheads.api.arguments import (
    as_config,
    is_config,
    messages,
    named_data,
    only_config,
    optional_data,
)
from manyheads.api.model import ExtendedModel, TrainedModel
from manyheads.config import Config, load_config
from manyheads.data.demo import SETTINGS as DEMO
from manyheads.data.readers import are_records, are_splits
from manyheads.storage import StrPath

if TYPE_CHECKING:
    from manyheads.api.progress import OnEpoch, OnStep
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
            path of a file or several. Tasks that are not named are inferred. Or a configuration.
        config: a configuration, its YAML file, or a mapping of its values.
        valid: labelled records, or a file, on which the best model is chosen; default: a part of
            the data is held out.
        resume: continue the run in `save_dir`.
        overwrite: replace the run in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        reporter: shows the progress instead.
        on_step: called with a `StepReport` for each loss of a step.
        on_epoch: called at the end of an epoch with its losses, metrics and score.
        **settings: configuration fields, such as `num_epochs`, which override `config`.

    Raises:
        ManyheadsError: the configuration, data, encoder or folder is invalid.
    """
    with ExitStack() as named:
        chosen = _train_config(data, config, valid, settings, named, resume)
        return _run(chosen, resume, overwrite, progress, reporter, on_step, on_epoch)


def demo(
    *,
    save_dir: StrPath = str(DEMO["save_dir"]),
    overwrite: bool = False,
    progress: bool = True,
    **settings: Any,
) -> TrainedModel:
    """Train a small model on the demonstration data; the command is `manyheads demo`.

    Args:
        save_dir: the folder of the model.
        overwrite: replace the model in `save_dir`.
        progress: whether progress is shown: a bar on a terminal, lines elsewhere.
        **settings: configuration fields.

    Raises:
        ManyheadsError: a setting or the folder is invalid.
    """
    config = load_config(None, {**DEMO, **settings, "save_dir": os.fspath(save_dir)})
    return _run(config, False, overwrite, progress, None)


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
        reporter: shows the progress instead.
        **settings: configuration fields, such as `num_epochs`; `freeze` to train the encoder.

    Raises:
        ManyheadsError: the model, data, a setting or the folder is invalid.
    """
    from manyheads.training import add_head_config

    with ExitStack() as named:
        own = {
            "kind": kind,
            "train_file": named_data(train_file, "train", named),
            "valid_file": named_data(valid_file, "valid", named),
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
        reporter: shows the progress instead.
        **settings: configuration fields, such as `student_layers`.

    Raises:
        ManyheadsError: a teacher, the data, a setting or the folder is invalid.
    """
    from manyheads.training import distill_config

    sources = [teachers] if isinstance(teachers, str | os.PathLike) else list(teachers)
    with ExitStack() as named:
        given = {"train_file": train_file, "valid_file": valid_file}
        files = {
            key: named_data(data, key.removesuffix("_file"), named)
            for key, data in given.items()
            if data is not None
        }
        if isinstance(texts, list | tuple) and all(isinstance(text, str) for text in texts):
            texts = [{"text": text} for text in texts]
        path = optional_data(texts, "texts", named)
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
        kept: labelled records of the old labels, from which the new ones are told apart, and on
            which changed answers are counted; default: the validation data of the run.
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
            train_file=named_data(train_file, "new", named),
            kept=optional_data(kept, "kept", named),
            save_dir=save_dir,
            overwrite=overwrite,
            threads=threads,
            report=messages("add-label", progress),
        )
    return ExtendedModel(result, lambda: load_model(result.path, threads=threads))


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
        files = {} if valid is None else {"valid_file": named_data(valid, "valid", named)}
        if not is_config(data):
            files["train_file"] = named_data(data, "train", named)
        elif data is not None:
            config = only_config(data, config)
        chosen = as_config(config, {**settings, **files})
        return verb(chosen, seeds=seeds, out=out, test_files=test_files)


def _train_config(
    data: Any, config: Any, valid: Any, settings: Mapping[str, Any], named: ExitStack, resume: bool
) -> Config:
    """Return the configuration of a training; records in memory keep names until `named` closes."""
    from manyheads.training.files import run_config

    if valid is not None:
        settings = {**settings, "valid_file": named_data(valid, "valid", named)}
    if isinstance(data, Mapping | Config) and not are_splits(data):
        config, data = only_config(data, config), None
    if data is None:
        return as_config(config, settings)
    several = isinstance(data, list | tuple) and not are_records(data)
    paths = [named_data(one, "train", named) for one in (data if several else [data])]
    if config is not None:
        return as_config(config, {**settings, "files": paths})
    return run_config(paths, settings, resume=resume).config


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
